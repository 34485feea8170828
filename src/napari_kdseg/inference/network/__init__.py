"""A network ready to run: loaded once, folded and put in order for its device, and checked against the slide."""
