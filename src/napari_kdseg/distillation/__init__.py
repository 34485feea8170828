"""Knowledge distillation in plain PyTorch: losses, PLC-KD's correction of soft labels, and methods made of them.

No files and no window.
"""

import lazy_loader

# The names are in __init__.pyi; each is imported when it is first used, so that
# asking for settings or for the list of methods does not load torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
