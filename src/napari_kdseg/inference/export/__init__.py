"""A trained network leaves: ONNX, ExportedProgram, safetensors, and a card that says what it is.

The names of this face, and the files they come from, are listed in ``__init__.pyi``; each is imported when it is first
used, so that asking for the settings of a job does not load torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
