"""Annotated tiles: found, split, drawn, augmented, and cut from slides."""
