"""Which tiles are safely on disk: an append-only file of JSON lines, and the lock that keeps a second writer out.

A line is appended only after the chunks it speaks of were flushed to disk, so neither a killed program nor a power cut
leaves half a tile that counts as done. A line torn by a crash is no JSON, and its tile is computed again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_kdseg.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt

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


class Journal:
    """The journal of one run of tiles, open for appending by one writer at a time.

    Parameters
    ----------
    path
        The file; its folder must exist. The lock lies beside it and is released by the system if the program dies.

    Raises
    ------
    OutputError
        If another job is writing here.
    """

    def __init__(self, path: Path):
        self._lock = path.with_suffix(".lock").open("ab")
        try:
            _lock(self._lock.fileno())
        except OSError as error:
            self._lock.close()
            raise OutputError(
                "Another job is writing this mask at the moment. Wait until it has ended or stop it first."
            ) from error
        self.done = read_journal(path)
        self._file = path.open("ab", buffering=0)
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            self._file.write(b"\n")

    def append(self, tiles: Mapping[Place, Note]) -> None:
        """Write ``tiles`` down as done, with a note (JSON) each, and wait until that is durable."""
        lines = "".join(json.dumps({"tile": place, **note}) + "\n" for place, note in tiles.items()).encode()
        while lines:  # an unbuffered file may take a part only
            lines = lines[self._file.write(lines) :]
        os.fsync(self._file.fileno())
        self.done.update(tiles)

    def close(self) -> None:
        """Let the next writer in."""
        self._file.close()
        self._lock.close()


def _lock(descriptor: int) -> None:
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
