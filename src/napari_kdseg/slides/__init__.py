"""A file becomes a :class:`Slide`: levels read lazily, in micrometres; annotations lie on it."""

import lazy_loader

from napari_kdseg.errors import SlideError as SlideError

# The names are in __init__.pyi; each is imported when it is first used, so that
# asking for the table of formats does not load what reads them.
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = sorted([*__all__, "SlideError"])


def __dir__() -> list[str]:
    return __all__
