"""What a mask is called that had another name once: the only place that knows.

The map of who mended a pixel is ``labels/mended_by`` and was ``labels/stage``. A store that has it under the old name
keeps that folder, and a correction goes on in it; whoever opens, shows, compares or exports it knows the new name
only. What a folder holds decides, not its name: a segmentation that somebody calls ``stage`` is just that. Should a
store have both folders, each goes by its own name.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

from napari_kdseg.masks.metadata import read_attributes

MENDED_BY = "mended_by"
STEP_THAT_MENDED = "step that mended the pixel"
"""The quantity of that map."""

_FORMERLY = {f"labels/{MENDED_BY}": ("labels/stage", STEP_THAT_MENDED)}
"""By the name of now: that of then, and the quantity by which such a mask is known."""


def folder_of(store: Path, name: str) -> Path:
    """Return where the mask ``"labels/<name>"`` of a store lies, or will."""
    former, quantity = _FORMERLY.get(name, (name, None))
    if (store / name).exists() or _quantity(store / former) != quantity:
        return store / name
    return store / former


def name_of(folder: Path) -> str:
    """Return the name, ``"labels/<name>"``, of the mask in ``folder``."""
    store = folder.parent.parent
    own = f"{folder.parent.name}/{folder.name}"
    return next((name for name in _FORMERLY if folder_of(store, name) == folder), own)


def renamed(store: Path, made_by: dict[str, Any]) -> dict[str, Any]:
    """Return what made a mask of ``store``, with the masks that were written together under their names of now."""
    now = {
        former: name
        for name, (former, quantity) in _FORMERLY.items()
        if _quantity(store / former) in (None, quantity)
    }
    if not now.keys() & set(made_by.get("masks", ())):
        return made_by
    return {**made_by, "masks": [now.get(name, name) for name in made_by["masks"]]}


def meant(name: str, known: Container[str]) -> str:
    """Return which of ``known`` is meant by a name that may come from an old script or setting."""
    former = {Path(then).name: Path(now).name for now, (then, _) in _FORMERLY.items()}
    return name if name in known else former.get(name, name)


def _quantity(folder: Path) -> str | None:
    """What the mask in ``folder`` holds; ``None`` without a mask, or where that is not recorded."""
    try:
        return str(read_attributes(folder)["kdseg"]["quantity"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
