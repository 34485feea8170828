"""One kind of file, one backend: tiles of pixels and what the file says of itself."""
