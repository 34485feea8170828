"""How masks are held against one another: everything that touches napari's canvas, its panes and its cameras."""
