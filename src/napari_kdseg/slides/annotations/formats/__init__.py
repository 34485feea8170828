"""Files of outlines, one program a file: QuPath, ASAP, ImageScope."""
