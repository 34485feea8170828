"""Docks, reader and sample data: the only room that knows Qt, magicgui and napari."""
