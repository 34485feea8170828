"""Masks of a slide on disk: written tile by tile, read while they grow, exported to other programs."""

import lazy_loader

# The names are in __init__.pyi; each is imported when it is first used, so that
# asking for the settings of a job does not load torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
