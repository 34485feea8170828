"""Which tiles are safely on disk: an append-only file of JSON lines.

A line is appended only after the chunks it speaks of were flushed to disk, so neither a killed program nor a power cut
leaves half a tile that counts as done. A line torn by a crash is no JSON, and its tile is computed again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_kdseg.masks.disk import flush_to_disk

Place = tuple[int, int]
Note = dict[str, Any]


def read_journal(path: Path) -> dict[Place, Note]:
    """Return ``(row, column)`` of every finished tile with what was noted about it; no file is an empty journal."""
    done: dict[Place, Note] = {}
    if not path.exists():
        return done
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            row, column = entry.pop("tile")
            done[int(row), int(column)] = entry
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # torn by a crash
    return done


def journal_lines(tiles: Mapping[Place, Note]) -> bytes:
    """Return the lines of a journal that say ``tiles`` are done, in the order they come in."""
    return "".join(json.dumps({"tile": place, **note}) + "\n" for place, note in tiles.items()).encode()


class Journal:
    """The journal of one run of tiles, open for appending; a :class:`~disk.WriteLock` keeps a second writer out.

    Parameters
    ----------
    path
        The file; its folder must exist.
    """

    def __init__(self, path: Path):
        self.done = read_journal(path)
        self._file = path.open("ab", buffering=0)
        flush_to_disk([path])  # its name, before any line counts on it
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            self._file.write(b"\n")

    def append(self, tiles: Mapping[Place, Note]) -> None:
        """Write ``tiles`` down as done, with a note (JSON) each, and wait until that is durable."""
        lines = journal_lines(tiles)
        while lines:  # an unbuffered file may take a part only
            lines = lines[self._file.write(lines) :]
        os.fsync(self._file.fileno())
        self.done.update(tiles)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
