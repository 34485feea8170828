"""A network and a slide become a mask pyramid on disk."""

import lazy_loader

# The names are in __init__.pyi; each is imported when it is first used, so that
# asking for the settings of a job does not load torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
