"""Slides written: SVS-like and plain TIFF, OME-TIFF, OME-Zarr."""
