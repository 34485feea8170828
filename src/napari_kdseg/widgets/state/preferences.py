"""Settings people change once, kept by napari under Preferences > Plugins > KD Seg.

The environment variable ``KDSEG_HOME`` overrides the results folder, for shared machines and tests.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari.settings import get_plugin_settings
from napari.utils.notifications import show_warning

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.networks import allow_code
from napari_kdseg.slides.pixels.cache import default_cache

if TYPE_CHECKING:
    from napari.utils.events import Event


@dataclass(frozen=True)
class Preferences:
    """Where results are kept, and how jobs run."""

    folder: Path
    jobs_in_process: bool
    keep_memory: bool

    @property
    def masks_folder(self) -> Path:
        """Folder of the mask pyramids, one a slide."""
        return self.folder / "masks"

    @property
    def networks_folder(self) -> Path:
        """Folder of networks made of other programs' weights."""
        return self.folder / "networks"

    @property
    def runs_folder(self) -> Path:
        """Folder of the distillation runs."""
        return self.folder / "runs"


def follow_cache_size() -> None:
    """Give the tile cache the size that is set now, and every size that is set later. Safe to repeat."""
    tiles = get_plugin_settings("napari-kdseg").tiles
    _resize(tiles.cache_mb)
    tiles.events.cache_mb.connect(_on_cache_size)  # napari connects a function only once


def _on_cache_size(event: Event) -> None:
    _resize(event.value)


def _resize(megabytes: int) -> None:
    default_cache().resize(int(megabytes) * 2**20)


def allow_preferred_code() -> None:
    """Allow the code that the preferences name; a name that is none is left alone."""
    named = str(get_plugin_settings("napari-kdseg").networks.allow_code)
    for name in filter(None, (name.strip() for name in named.split(","))):
        try:
            allow_code(name)
        except ConfigurationError as error:
            show_warning(f"Preferences, code that may be run: {error}")


def preferences() -> Preferences:
    """Read the settings as they are now."""
    stored = get_plugin_settings("napari-kdseg").results
    chosen = os.environ.get("KDSEG_HOME") or stored.folder
    folder = Path(chosen).expanduser() if chosen else Path.home() / "napari-kdseg"
    return Preferences(
        folder=folder,
        jobs_in_process=bool(stored.jobs_in_process),
        keep_memory=bool(stored.keep_memory),
    )
