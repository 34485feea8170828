"""Small things that the window remembers from one day to the next: last folders, recent slides, colours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QSettings

if TYPE_CHECKING:
    from napari_kdseg.slides.views.colour import Colours

RECENT = 8


def _settings() -> QSettings:
    return QSettings("napari-kdseg", "napari-kdseg")


def last_folder(name: str) -> str:
    """The folder last used for ``name``, or the home folder."""
    return str(_settings().value(f"folders/{name}", str(Path.home())))


def remember_folder(name: str, path: str) -> None:
    """Remember the folder of ``path`` for ``name``."""
    _settings().setValue(f"folders/{name}", str(Path(path).parent))


def recent_slides() -> list[str]:
    """Paths of the slides opened last, the latest first."""
    paths = _settings().value("recent", []) or []
    return [paths] if isinstance(paths, str) else list(paths)


def remember_slide(path: str) -> None:
    """Put ``path`` at the head of the recent slides."""
    _settings().setValue("recent", [path, *(other for other in recent_slides() if other != path)][:RECENT])


def remembered_colours() -> Colours:
    """The colours that were chosen last: ``"stored"`` or ``"srgb"``."""
    return "srgb" if _settings().value("colours") == "srgb" else "stored"


def remember_colours(colours: Colours) -> None:
    """Open slides in these colours from now on."""
    _settings().setValue("colours", colours)


def recall(key: str) -> str:
    """Text that was remembered under ``key``, or none."""
    return str(_settings().value(key) or "")


def remember(key: str, text: str) -> None:
    """Remember ``text`` under ``key``."""
    _settings().setValue(key, text)
