"""Masks and annotations for other programs: one kind of file a module."""
