"""Which method helps, by how much, and why: many distillations planned as one study, its table and its report.

The configuration loads without torch; the other names of this face are listed in ``__init__.pyi``, and what computes is
imported when it is first asked for.
"""

import lazy_loader

from napari_kdseg.study.config import StudyConfig as StudyConfig

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = sorted([*__all__, "StudyConfig"])
