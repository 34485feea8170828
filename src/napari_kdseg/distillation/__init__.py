"""Knowledge distillation in plain PyTorch: losses, PLC-KD's correction of soft labels, and methods made of them.

No files and no window. The names of this face, and the files they come from, are listed in ``__init__.pyi``; each is
imported when it is first used, so that asking for settings or for the list of methods does not load torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
