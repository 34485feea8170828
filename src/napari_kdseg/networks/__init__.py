"""Segmentation networks: names -> torch modules, checkpoints on disk, and what the other rooms ask of a network."""

import lazy_loader

# The names are in __init__.pyi; each is imported when it is first used, so that
# describing a network (NetworkSpec, names, input_multiple, inspect) does not load torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
