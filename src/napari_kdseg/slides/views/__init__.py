"""Other ways to see a slide: its colours as the scanner meant them, one stain, all of it in a small picture."""
