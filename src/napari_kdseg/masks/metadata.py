"""The metadata of one mask on disk: which arrays are its levels, and what is known of it.

The file is replaced as a whole and is durable before anything counts on it, so a reader sees either the old levels or
the new ones.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

from napari_kdseg.files import write_whole

META = "zarr.json"


def read_attributes(folder: Path) -> dict[str, Any]:
    """Return the attributes of the mask in ``folder``.

    Raises
    ------
    OSError, ValueError, KeyError
        If there is no mask, or it is damaged.
    """
    return json.loads((folder / META).read_text(encoding="utf-8"))["attributes"]


def write_attributes(folder: Path, attributes: dict[str, Any]) -> None:
    """Replace the attributes of the mask in ``folder``, durably and in one step."""
    content = json.loads((folder / META).read_text(encoding="utf-8"))
    content["attributes"] = attributes
    write_whole(folder / META, json.dumps(content, indent=2).encode())


def level_paths(attributes: dict[str, Any]) -> list[str]:
    """Return the names of the arrays that are the levels, from fine to coarse."""
    return [item["path"] for item in attributes["ome"]["multiscales"][0]["datasets"]]


def journal_path(folder: Path) -> Path:
    """Return where the journal of the mask in ``folder`` lies, if it is one that holds a journal."""
    return folder / level_paths(read_attributes(folder))[0] / "journal.jsonl"


def with_level_paths(attributes: dict[str, Any], paths: list[str]) -> dict[str, Any]:
    """Return ``attributes`` with other arrays as levels."""
    (image,) = attributes["ome"]["multiscales"]
    datasets = [{**item, "path": path} for item, path in zip(image["datasets"], paths, strict=True)]
    return {**attributes, "ome": {**attributes["ome"], "multiscales": [{**image, "datasets": datasets}]}}


def remove_leftovers(folder: Path) -> None:
    """Remove the arrays in ``folder`` that are no levels: what packing replaced, or was killed while writing.

    A reader that still holds such an array finds its metadata gone before any of its chunks is, and so never takes a
    missing chunk for *not computed*.
    """
    levels = level_paths(read_attributes(folder))
    for item in folder.iterdir():
        if item.is_dir() and item.name not in levels:
            with contextlib.suppress(OSError):  # what cannot go now goes the next time
                (item / META).unlink(missing_ok=True)
            shutil.rmtree(item, ignore_errors=True)
        elif item.name.startswith(f".{META}."):
            with contextlib.suppress(OSError):
                item.unlink()
