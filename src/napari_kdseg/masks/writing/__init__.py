"""A mask written tile by tile so that it can be stopped at any moment: store, writer, journal, packing."""
