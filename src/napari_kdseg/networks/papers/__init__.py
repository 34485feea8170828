"""Networks of the papers that no library has, one a file, each to the layers and the size that its paper printed."""
