"""``runs.csv`` and what lies beside it: one finished run is one row, written whole or not at all.

Beside it ``classes.csv`` has the Dice of every class, and ``images/<run>.csv`` the Dice of every test image, which the
paired tests need. A run is done when its row is in ``runs.csv``, which is written last.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from napari_kdseg.errors import DataError, OutputError, explain
from napari_kdseg.files import write_whole
from napari_kdseg.study.plan import Run

RUNS, CLASSES, IMAGES = "runs.csv", "classes.csv", "images"


@dataclass(frozen=True)
class TableRow:
    """A finished run as the table has it.

    Attributes
    ----------
    test_dice, test_miou, val_dice
        Dice is the mean over the foreground classes, pixels of all tiles pooled; the IoU is that of all classes.
    params, macs
        Parameters, and multiply-adds for one tile, of the student.
    train_seconds
        Spent in training steps, those of the stages before the student included.
    device, commit
        What it was trained on, and with which version of this program.
    """

    task: str
    method: str
    teacher: str
    student: str
    label_fraction: float
    seed: int
    test_dice: float
    test_miou: float
    val_dice: float
    params: int
    macs: int
    train_seconds: float
    device: str
    commit: str

    @property
    def run(self) -> Run:
        """Which run it is of."""
        return Run(self.task, self.method, self.teacher, self.student, self.label_fraction, self.seed)


COLUMNS = tuple(TableRow.__dataclass_fields__)
_NUMBERS = {
    **dict.fromkeys(("label_fraction", "test_dice", "test_miou", "val_dice", "train_seconds"), float),
    **dict.fromkeys(("seed", "params", "macs"), int),
}
KEY = COLUMNS[:6]


class Table:
    """The results of a folder.

    Parameters
    ----------
    folder
        Where they lie; it need not exist yet.

    Raises
    ------
    DataError
        If the table there cannot be understood.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows: list[TableRow] = [_row(line, folder / RUNS) for line in _lines(folder / RUNS, COLUMNS)]
        self._classes = _lines(folder / CLASSES, (*KEY, "class", "test_dice"))

    @property
    def done(self) -> set[Run]:
        """Runs that are finished."""
        return {row.run for row in self.rows}

    def append(self, row: TableRow, classes: Mapping[str, float], images: Mapping[str, float]) -> None:
        """Add a finished run; killed at any moment, it is there with all that belongs to it, or not.

        Parameters
        ----------
        row
            The run.
        classes
            Test Dice of every foreground class; NaN where it occurs nowhere.
        images
            Dice of every test tile, the mean over the foreground classes in it.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        key = {name: _text(asdict(row)[name]) for name in KEY}
        kept = [line for line in self._classes if {name: line[name] for name in KEY} != key]
        added = [{**key, "class": name, "test_dice": _text(dice)} for name, dice in classes.items()]
        rows = [other for other in self.rows if other.run != row.run] + [row]
        try:
            pairs = [{"tile": tile, "dice": _text(dice)} for tile, dice in images.items()]
            write_whole(self._images(row.run), _csv(("tile", "dice"), pairs))
            write_whole(self.folder / CLASSES, _csv((*KEY, "class", "test_dice"), kept + added))
            lines = [{name: _text(value) for name, value in asdict(one).items()} for one in rows]
            write_whole(self.folder / RUNS, _csv(COLUMNS, lines))
        except OSError as error:
            raise OutputError(f"The table in {self.folder} cannot be written. {explain(error)}") from error
        self._classes, self.rows = kept + added, rows

    def classes(self, run: Run) -> dict[str, float]:
        """Test Dice of a run by class."""
        key = {name: _text(getattr(run, name)) for name in KEY}
        return {
            line["class"]: _number(line["test_dice"])
            for line in self._classes
            if {name: line[name] for name in KEY} == key
        }

    def images(self, run: Run) -> dict[str, float]:
        """Dice of a run by test tile; NaN where nothing can be said of a tile.

        Raises
        ------
        DataError
            If the file is missing.
        """
        path = self._images(run)
        if not path.is_file():
            raise DataError(
                f"The scores of the single tiles, {path.name}, are missing in {path.parent}. Bring the file back, or "
                f"delete the row of the run in {RUNS} and go on with the study."
            )
        return {line["tile"]: _number(line["dice"]) for line in _lines(path, ("tile", "dice"))}

    def _images(self, run: Run) -> Path:
        return self.folder / IMAGES / f"{run.name}.csv"


def _row(line: Mapping[str, str], path: Path) -> TableRow:
    try:
        values: dict[str, Any] = {
            name: _NUMBERS[name](line[name] or "nan") if name in _NUMBERS else line[name] for name in COLUMNS
        }
        return TableRow(**values)
    except ValueError as error:
        raise DataError(
            f"{path.name} holds a row that cannot be understood ({error}). Correct it."
        ) from error


def _lines(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or [])]
            lines = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}). Bring back a good copy.") from error
    if missing or any(None in line or None in line.values() for line in lines):
        wanted = f"has no column {missing[0]}" if missing else "has lines that are too short or too long"
        raise DataError(f"{path} {wanted}, so it is no table of a study. Bring back a good copy.")
    return lines


def _csv(columns: Sequence[str], lines: Sequence[Mapping[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().encode()


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def _number(text: str) -> float:
    return float(text) if text else math.nan
