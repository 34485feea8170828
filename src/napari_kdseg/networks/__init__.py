"""Segmentation networks: names -> torch modules, checkpoints on disk, and what the other rooms ask of a network.

The names of this face, and the files they come from, are listed in ``__init__.pyi``; each is imported when it is first
used, so that describing a network (:class:`NetworkSpec`, :func:`names`, :func:`input_multiple`, :func:`inspect`) does
not load torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
