"""Parts of a mask that several programs may write at the same time without touching the same chunk.

A slab is one chunk of a coarser level of the pyramid with everything beneath it: 2^level x 2^level tiles. Levels up to
its own belong to it alone; coarser ones are made from it once all slabs are done.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"-slab-(\d+)-(\d+)-(\d+)$")


@dataclass(frozen=True, order=True)
class Slab:
    """One chunk of a level of the pyramid, and all tiles beneath it.

    Attributes
    ----------
    level
        Of the chunk; 0 is a single tile.
    row, column
        Of the chunk in its level.
    """

    level: int
    row: int
    column: int

    @classmethod
    def around(cls, tile: tuple[int, int], level: int) -> Slab:
        """Return the slab of ``level`` that holds the tile ``(row, column)``."""
        return cls(level, tile[0] >> level, tile[1] >> level)

    def holds(self, tile: tuple[int, int]) -> bool:
        """Tell whether the tile ``(row, column)`` lies in it."""
        return Slab.around(tile, self.level) == self

    def journal(self, path: Path) -> Path:
        """Return where its journal lies, beside ``path``, that of the mask."""
        return path.with_name(f"{path.stem}-slab-{self.level}-{self.row}-{self.column}{path.suffix}")

    @classmethod
    def of_journals(cls, path: Path) -> list[Slab]:
        """Return the slabs whose journals lie beside ``path``, that of the mask."""
        names = (_NAME.search(found.stem) for found in path.parent.glob(f"{path.stem}-slab-*{path.suffix}"))
        return sorted(cls(*map(int, name.groups())) for name in names if name)
