"""Slides, masks and annotations as napari layers: how they look, where they lie, how they keep up with the state."""
