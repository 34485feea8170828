"""Which method helps, by how much, and why: many distillations planned as one study, its table and its report.

The configuration loads without torch; what computes is imported when it is first asked for.
"""

from importlib import import_module
from typing import Any

from napari_kdseg.study.config import StudyConfig

_LATER = {
    "RunState": "progress",
    "StudyProgress": "progress",
    "StudyResult": "job",
    "Table": "table",
    "study": "job",
    "write_evidence": "evidence",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


__all__ = ["StudyConfig"]
