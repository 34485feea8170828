"""Which tiles are safely on disk: an append-only file of JSON lines.

The line of a tile is appended only after its chunks were flushed to disk, so neither a killed program nor a power cut
leaves half a tile that counts as done. A line torn by a crash is no JSON, and its tile is computed again. The coarser
levels follow about once a second; the line ``{"pyramid": true}`` says that they hold all tiles above it.

Several programs may fill one mask at the same time if each keeps to a
:class:`~napari_kdseg.masks.writing.slabs.Slab` of its own: a slab has a journal beside that of the mask, and what is
done is the union of all of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_kdseg.masks.disk import flush_to_disk
from napari_kdseg.masks.tiling import GridIndex
from napari_kdseg.masks.writing.slabs import Slab

Note = dict[str, Any]


@dataclass
class Record:
    """What a journal says.

    Attributes
    ----------
    done
        ``(row, column)`` of every finished tile with what was noted about it.
    uncarried
        Those of them that the coarser levels may not hold yet.
    unreadable
        ``(level, row, column)`` of tiles of the slide that could not be decoded.
    """

    done: dict[GridIndex, Note] = field(default_factory=dict)
    uncarried: set[GridIndex] = field(default_factory=set)
    unreadable: set[tuple[int, int, int]] = field(default_factory=set)

    def add(self, other: Record) -> None:
        """Take in what another journal of the same mask says."""
        self.done.update(other.done)
        self.uncarried |= other.uncarried
        self.unreadable |= other.unreadable

    def read(self, line: str) -> None:
        """Take in one line; a line torn by a crash says nothing."""
        try:
            entry = json.loads(line)
            if entry.get("pyramid") is True:
                self.uncarried.clear()
            elif "unreadable" in entry:
                level, row, column = entry["unreadable"]
                self.unreadable.add((int(level), int(row), int(column)))
            else:
                row, column = entry.pop("tile")
                self.done[int(row), int(column)] = entry
                self.uncarried.add((int(row), int(column)))
        except (ValueError, KeyError, TypeError, AttributeError):
            return


def read_journal(path: Path) -> Record:
    """Return what a journal says; no file is an empty journal."""
    record = Record()
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            record.read(line)
    return record


class Journal:
    """The journal of one run of tiles, open for appending; a :class:`~disk.WriteLock` keeps a second writer out.

    Parameters
    ----------
    path
        The file of the mask; its folder must exist.
    slab
        What of the mask is written; its journal lies beside ``path``. ``None`` is all of it.
    """

    def __init__(self, path: Path, slab: Slab | None = None):
        self._path = path if slab is None else slab.journal(path)
        self.record = read_journal(self._path)
        self._whole = read_journal(path) if slab is not None else Record()
        self._file = self._path.open("ab", buffering=0)
        flush_to_disk([self._path])  # its name, before any line counts on it
        if self._path.stat().st_size and not self._path.read_bytes().endswith(b"\n"):
            self._file.write(b"\n")

    @property
    def done(self) -> dict[GridIndex, Note]:
        """``(row, column)`` of the tiles that are safely on disk, and what was noted about each."""
        return {**self._whole.done, **self.record.done}

    def append(self, tiles: Mapping[GridIndex, Note]) -> None:
        """Write ``tiles`` down as done, with a note (JSON) each, and wait until that is durable."""
        self._append([{"tile": index, **note} for index, note in tiles.items()])
        self.record.done.update(tiles)
        self.record.uncarried.update(tiles)

    def append_pyramid(self) -> None:
        """Write down that the coarser levels hold all tiles that are done."""
        if self.record.uncarried:
            self._append([{"pyramid": True}])
            self.record.uncarried.clear()

    def append_unreadable(self, level: int, row: int, column: int) -> None:
        """Write down that a tile of the slide could not be decoded."""
        if (level, row, column) not in self.record.unreadable:
            self._append([{"unreadable": [level, row, column]}])
            self.record.unreadable.add((level, row, column))

    def slabs(self) -> dict[Slab, Record]:
        """Return what the journals of slabs say that were written beside this one, which is that of the mask."""
        return {slab: read_journal(slab.journal(self._path)) for slab in Slab.of_journals(self._path)}

    def take_over(self, slabs: Mapping[Slab, Record]) -> None:
        """Write down here what the journals of slabs say, then remove them; all levels hold their tiles by now."""
        entries: list[dict[str, Any]] = []
        for record in slabs.values():
            entries += [{"tile": index, **note} for index, note in record.done.items()]
            entries += [{"unreadable": index} for index in sorted(record.unreadable - self.record.unreadable)]
        self._append([*entries, {"pyramid": True}])
        for slab, record in slabs.items():
            self.record.add(record)
            journal = slab.journal(self._path)
            journal.unlink(missing_ok=True)
        self.record.uncarried.clear()

    def lines(self) -> bytes:
        """Return a journal that says the same, in the order of the tiles, and that all levels hold them."""
        entries: list[dict[str, Any]] = [
            {"tile": index, **note} for index, note in sorted(self.record.done.items())
        ]
        entries += [{"unreadable": index} for index in sorted(self.record.unreadable)]
        return _as_lines([*entries, {"pyramid": True}])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, entries: list[dict[str, Any]]) -> None:
        lines = _as_lines(entries)
        while lines:  # an unbuffered file may take less
            lines = lines[self._file.write(lines) :]
        os.fsync(self._file.fileno())


def _as_lines(entries: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(entry) + "\n" for entry in entries).encode()
