"""The regions of a comparison as one table: a row a region, as numbers, so that a slide with a million stays quick.

A region is a connected set of pixels at which both masks say the same two different things: the first mask one class,
the second mask another. Pixels that touch at a corner are connected (8-connectivity). So each region lies in one cell
of the confusion table, and its pixels in the cell are the sum of its regions.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_kdseg.codes import DIFFERENCES, Difference
from napari_kdseg.errors import OutputError, SlideError, explain
from napari_kdseg.files import file_aside, write_whole

Pair = tuple[float, float]
Range = tuple[float | None, float | None]
FORMAT = 1

COLUMNS = np.dtype(
    [
        ("region", np.int64),
        ("kind", np.uint8),
        ("first_class", np.uint8),
        ("second_class", np.uint8),
        ("area_px", np.int64),
        ("area_mm2", np.float64),
        ("y0", np.int32),
        ("x0", np.int32),
        ("y1", np.int32),
        ("x1", np.int32),
        ("centre_y", np.float64),
        ("centre_x", np.float64),
        ("inside_y", np.int32),
        ("inside_x", np.int32),
        ("gap", np.float32),
        ("depth_px", np.float32),
        ("depth_um", np.float32),
    ]
)
"""
region
    Its number, from 0 in the order of the regions' first pixels, row by row from the top: the same for the same masks,
    whatever the tiles, and kept by filters and sorting.
kind
    :class:`~napari_kdseg.codes.Difference`: only the first mask sees a class, only the second, or different classes.
first_class, second_class
    What the two masks say, by the number of the common class.
area_px, area_mm2
    Pixels of the grid that was compared on, and square millimetres; NaN without a scale.
y0, x0, y1, x1
    Smallest box in level-0 pixels, ``y0 <= y < y1``.
centre_y, centre_x
    Mean position of its pixels, in level-0 pixels; 0 is the centre of the slide's first pixel. It may lie outside.
inside_y, inside_x
    A level-0 pixel inside it: the middle of its longest row.
gap
    Mean of ``|p_first - p_second|``, each mask's probability of the class that it predicted; NaN where one kept none.
depth_px, depth_um
    The largest distance from one of its pixels to the nearest pixel that is no disagreement, in level-0 pixels and
    micrometres (NaN without a scale): half the width of a rim, the radius of a disc. Exact up to
    :attr:`Compared.deepest_px`, which stands for all that is deeper.
"""

RANKED_BY = ("area_mm2", "gap", "depth_um", "region")
"""What people rank by; any other column works too."""


@dataclass(frozen=True)
class Compared:
    """What the rows of a table are about.

    Attributes
    ----------
    first, second
        Names of the two masks, such as ``"teacher"`` and ``"student"``.
    classes
        Names of the common classes; class 0 is background.
    downsample
        ``(y, x)`` of the grid that was compared on, against level 0 of the slide.
    mpp
        Micrometres a level-0 pixel ``(y, x)``; ``None`` without a scale.
    deepest_px
        Depths are exact up to this, in level-0 pixels.
    made_by
        What the two masks and the comparison were made by, as in the metadata of the disagreement map.
    """

    first: str
    second: str
    classes: tuple[str, ...]
    downsample: Pair
    mpp: Pair | None = None
    deepest_px: float = float("inf")
    made_by: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Region:
    """One row in words and plain numbers; see :data:`COLUMNS` for what is not said here.

    Attributes
    ----------
    number
        The column ``region``.
    kind
        Only the first, only the second, or different classes.
    first_class, second_class
        Names of the classes.
    area_mm2, gap, depth_um
        ``None`` where it is not known.
    box
        ``(y, x, height, width)`` in level-0 pixels.
    centre, inside
        ``(y, x)`` in level-0 pixels.
    """

    number: int
    kind: Difference
    first_class: str
    second_class: str
    area_px: int
    area_mm2: float | None
    box: tuple[int, int, int, int]
    centre: Pair
    inside: tuple[int, int]
    gap: float | None
    depth_px: float
    depth_um: float | None


class RegionTable:
    """Regions, one a row.

    Parameters
    ----------
    rows
        Structured array of :data:`COLUMNS`; it is not changed.
    about
        What they are about.
    """

    def __init__(self, rows: np.ndarray, about: Compared):
        self.rows = rows
        self.about = about

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"RegionTable({len(self)} regions of {self.about.first} against {self.about.second})"

    def __iter__(self) -> Iterator[Region]:
        return (self.at(index) for index in range(len(self)))

    def column(self, name: str) -> np.ndarray:
        """Return a column, one value a row."""
        return self.rows[name]

    def at(self, index: int) -> Region:
        """Return the row at ``index`` of this table, as it is filtered and sorted."""
        row = self.rows[index]
        y0, x0, y1, x1 = (int(row[side]) for side in ("y0", "x0", "y1", "x1"))
        return Region(
            number=int(row["region"]),
            kind=Difference(int(row["kind"])),
            first_class=self.class_name(int(row["first_class"])),
            second_class=self.class_name(int(row["second_class"])),
            area_px=int(row["area_px"]),
            area_mm2=_known(row["area_mm2"]),
            box=(y0, x0, y1 - y0, x1 - x0),
            centre=(float(row["centre_y"]), float(row["centre_x"])),
            inside=(int(row["inside_y"]), int(row["inside_x"])),
            gap=_known(row["gap"]),
            depth_px=float(row["depth_px"]),
            depth_um=_known(row["depth_um"]),
        )

    def index_of(self, region: int) -> int | None:
        """Return where the region of this number stands in this table; ``None`` if a filter left it out."""
        found = np.flatnonzero(self.rows["region"] == region)
        return int(found[0]) if found.size else None

    def class_name(self, value: int) -> str:
        """Return the name of a class, also of one without a name."""
        return self.about.classes[value] if value < len(self.about.classes) else f"class {value}"

    def kind_name(self, kind: Difference) -> str:
        """Return a kind in words, with the names of these two masks."""
        only = {Difference.ONLY_TEACHER: self.about.first, Difference.ONLY_STUDENT: self.about.second}
        return f"only {only[kind]}" if kind in only else DIFFERENCES[kind].name

    def where(self, kept: np.ndarray) -> RegionTable:
        """Return the rows that ``kept``, bool or indices, names."""
        return RegionTable(self.rows[kept], self.about)

    def filtered(
        self,
        *,
        kinds: Collection[Difference] | None = None,
        pairs: Collection[tuple[int, int]] | None = None,
        box: tuple[float, float, float, float] | None = None,
        **ranges: Range,
    ) -> RegionTable:
        """Return the rows that fulfil all of what is asked; ``None`` asks nothing.

        Parameters
        ----------
        kinds
            Kinds of disagreement.
        pairs
            Cells ``(first_class, second_class)`` of the confusion table.
        box
            ``(y, x, height, width)`` in level-0 pixels that a region's inside point must lie in.
        **ranges
            Lowest and highest value of a column, both included, such as ``area_mm2=(0.01, None)``. A value that is
            not known lies in no range.

        Raises
        ------
        KeyError
            If there is no such column.
        """
        rows = self.rows
        kept = np.ones(len(rows), dtype=bool)
        if kinds is not None:
            kept &= np.isin(rows["kind"], [int(kind) for kind in kinds])
        if pairs is not None:
            wanted = np.array([first * 256 + second for first, second in pairs], dtype=np.int64)
            kept &= np.isin(rows["first_class"].astype(np.int64) * 256 + rows["second_class"], wanted)
        if box is not None:
            y, x, height, width = box
            kept &= (rows["inside_y"] >= y) & (rows["inside_y"] < y + height)
            kept &= (rows["inside_x"] >= x) & (rows["inside_x"] < x + width)
        for name, (low, high) in ranges.items():
            if name not in COLUMNS.names:  # type: ignore[operator]
                raise KeyError(f"there is no column {name!r}")
            if low is not None:
                kept &= rows[name] >= low
            if high is not None:
                kept &= rows[name] <= high
        return self.where(kept)

    def ranked(self, by: str = "area_mm2", *, largest_first: bool = True) -> RegionTable:
        """Return the rows sorted by a column, what is not known last, equal ones by their number.

        Without a scale the areas are ranked in pixels, and depths too, in the same order.
        """
        if self.about.mpp is None:
            by = {"area_mm2": "area_px", "depth_um": "depth_px"}.get(by, by)
        values = self.rows[by].astype(np.float64)
        keys = -values if largest_first else values
        return self.where(np.lexsort((self.rows["region"], keys)))  # NaN sorts last

    def save(self, path: Path) -> None:
        """Write the rows to ``path`` (``*.npy``) and what they are about beside it (``*.json``).

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        try:
            path.with_suffix(".json").unlink(missing_ok=True)  # rows without it are no table
            with file_aside(path) as part, part.open("wb") as file:
                np.save(file, self.rows)
            about = {"format": FORMAT, "regions": len(self), **asdict(self.about)}
            write_whole(path.with_suffix(".json"), json.dumps(_strict(about), indent=2).encode())
        except OSError as error:
            raise OutputError(f"The regions could not be written to {path}. {explain(error)}") from error

    @classmethod
    def load(cls, path: Path) -> RegionTable:
        """Open a table; its rows stay on disk until they are used.

        Raises
        ------
        SlideError
            If there is no such table, or it is damaged or unfinished.
        """
        try:
            about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            rows = np.load(path, mmap_mode="r") if about["regions"] else np.empty(0, COLUMNS)
            if about.pop("format") != FORMAT or rows.dtype != COLUMNS or len(rows) != about.pop("regions"):
                raise ValueError("not a table of this version")
            deepest = float("inf") if about["deepest_px"] is None else about["deepest_px"]
            mpp = None if about["mpp"] is None else tuple(about["mpp"])
            downsample = tuple(about["downsample"])
            lists = {"classes": tuple(about["classes"]), "downsample": downsample, "mpp": mpp}
            return cls(rows, Compared(**{**about, **lists, "deepest_px": deepest}))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SlideError(
                f"{path.name} holds no regions, or is damaged ({error}). Compare the masks again."
            ) from error

    def write_csv(self, path: Path) -> None:
        """Write the rows as a table for other programs, with classes and kinds in words; what is not known is empty."""
        assert COLUMNS.names is not None
        with file_aside(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS.names)
            for row in self.rows:
                writer.writerow(self._in_words(row.tolist()))

    def _in_words(self, row: tuple[Any, ...]) -> list[Any]:
        number, kind, first, second, *others = row
        words = [number, self.kind_name(Difference(kind)), self.class_name(first), self.class_name(second)]
        return words + [
            f"{v:.6g}" if isinstance(v, float) and v == v else "" if v != v else v for v in others
        ]


def _known(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def _strict(about: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no infinity."""
    return {**about, "deepest_px": None if np.isinf(about["deepest_px"]) else about["deepest_px"]}
