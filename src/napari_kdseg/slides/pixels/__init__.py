"""The pixels of a slide: tiles that are decoded once and kept, regions and levels put together from them."""
