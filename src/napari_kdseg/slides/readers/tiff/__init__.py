"""What a TIFF is made of: its header checked before a codec sees it, pages of tiles, what it says of itself."""
