"""What a study says when it has run: pages, tables, plots and pictures, drawn from its table alone."""
