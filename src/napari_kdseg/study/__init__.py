"""Which method helps, by how much, and why: many distillations planned as one study, its table and its report."""

import lazy_loader

from napari_kdseg.study.config import StudyConfig as StudyConfig

# The names are in __init__.pyi; each is imported when it is first used, so that
# asking for the settings of a job does not load torch.
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = sorted([*__all__, "StudyConfig"])


def __dir__() -> list[str]:
    return __all__
