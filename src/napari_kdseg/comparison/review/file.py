"""The file of a review: a line of JSON that says what it is about, then a line an entry. It only ever grows.

A review belongs to a slide and to what made its two masks. After other masks the last review of the slide is carried
over: each mark to the region that is the same one, see :func:`find_again`; the file it comes from stays as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from napari_kdseg.comparison.regions.table import Compared, RegionTable
from napari_kdseg.comparison.review.marks import Entry, Mark, Marks, Step
from napari_kdseg.errors import OutputError, SlideError, explain
from napari_kdseg.files import write_whole

FORMAT = 1
SUFFIX = ".review.jsonl"
SAME_BOX = 0.5
"""Share of two boxes' union that they must have in common, and more, to hold the same region."""


class Header(BaseModel):
    """What a review is about.

    Attributes
    ----------
    kdseg_review
        Version of the format.
    slide, identity
        Name of the slide, and the hash of its content.
    first, second
        Names of the two masks.
    made_by
        What made them, as in :class:`~napari_kdseg.comparison.regions.table.Compared`.
    carried_from
        Name of the file whose marks this one began with; empty if it began without any.
    """

    model_config = ConfigDict(frozen=True)

    kdseg_review: int = FORMAT
    slide: str
    identity: str
    first: str
    second: str
    made_by: dict[str, Any]
    carried_from: str = ""


class Review:
    """A review and its file.

    Parameters
    ----------
    path
        The file; it need not be there yet.
    header
        What it is about.
    entries
        What the file holds already.
    marks
        What counts of them for the present regions; all of them by default.
    notes
        What a person has to know of how it was opened, a sentence each.
    """

    def __init__(
        self,
        path: Path,
        header: Header,
        entries: Sequence[Entry] = (),
        marks: Marks | None = None,
        notes: Sequence[str] = (),
    ):
        self.path, self.header = path, header
        self.entries = list(entries)
        self.marks = Marks(self.entries) if marks is None else marks
        self.notes = tuple(notes)
        self._kept = len(self.entries)

    def keep(self, *entries: Entry) -> None:
        """Add entries to the file; they are on disk when this returns, also after a kill.

        Raises
        ------
        OutputError
            If they cannot be written. They are written with the next ones.
        """
        self.entries += entries
        try:
            if self.path.exists():
                _append(self.path, _lines(self.entries[self._kept :]))
            else:  # not begun yet, or taken away meanwhile: what was said is still known here
                write_whole(self.path, _lines([self.header, *self.entries]))
        except OSError as error:
            raise OutputError(
                f"The mark could not be kept in {self.path}. {explain(error)} It stays in this window, and is written "
                "with the next mark."
            ) from error
        self._kept = len(self.entries)


def review_path(folder: Path, slide: str, identity: str, about: Compared) -> Path:
    """Return where the review of two masks of a slide is kept in a folder of reviews."""
    made = json.dumps([about.first, about.second, about.classes, about.made_by], sort_keys=True, default=str)
    return (
        _folder(folder, slide, identity)
        / f"{_plain(about.first)}-{_plain(about.second)}-{_hash(made)}{SUFFIX}"
    )


def open_review(folder: Path, slide: str, identity: str, table: RegionTable) -> Review:
    """Open the review of two masks of a slide: begun before, carried over from masks before these, or a new one.

    Parameters
    ----------
    folder
        Folder of all reviews.
    slide, identity
        Name of the slide, and the hash of its content.
    table
        All regions there are now, unfiltered.

    Raises
    ------
    SlideError
        If the file is damaged, from a newer version, or of another slide; it is left as it is.
    OutputError
        If marks that are carried over cannot be written.
    """
    about = table.about
    path = review_path(folder, slide, identity, about)
    if path.exists():
        there = read_review(path, identity)
        marks, lost = _found(there.entries, table)
        return Review(path, there.header, there.entries, marks, (*there.notes, *_not_found(lost, path)))
    header = Header(
        slide=slide, identity=identity, first=about.first, second=about.second, made_by=about.made_by
    )
    before = _latest(path, identity, about)
    if before is None:
        return Review(path, header)
    header = header.model_copy(update={"carried_from": before.path.name})
    return _carried_over(before, path, header, table)


def read_review(path: Path, identity: str | None = None) -> Review:
    """Read a review file; a line that was cut off while it was written is left out, and said in the notes.

    Parameters
    ----------
    path
        The file.
    identity
        Of the slide that it must be about; any slide by default.

    Raises
    ------
    SlideError
        If it is no review, damaged at its beginning, from a newer version, or of another slide.
    """
    try:
        first, *lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise SlideError(f"The review {path.name} cannot be read. {explain(error)}") from error
    header = _header(first, path, identity)
    entries: list[Entry] = []
    unread = 0
    for line in filter(None, lines):
        try:
            entries.append(_entry(line))
        except (ValueError, RecursionError):
            unread += 1
    notes = [f"{_counted(unread, 'line')} of {path.name} cut off or damaged and left out."] if unread else []
    return Review(path, header, entries, notes=notes)


def find_again(mark: Mark, table: RegionTable) -> int | None:
    """Return the index of the region of ``table`` that a mark was made on, whatever its number is now.

    It is the one of the same two classes with the same inside point; else that whose box holds the point and has the
    most in common with the mark's box, more than :data:`SAME_BOX` of the union of the two.
    """
    rows, names = table.rows, table.about.classes
    if not set(mark.classes) <= set(names):
        return None
    first, second = (names.index(name) for name in mark.classes)
    y, x = mark.inside
    holds = (rows["y0"] <= y) & (y < rows["y1"]) & (rows["x0"] <= x) & (x < rows["x1"])
    found = np.flatnonzero(holds & (rows["first_class"] == first) & (rows["second_class"] == second))
    same = found[(rows["inside_y"][found] == y) & (rows["inside_x"][found] == x)]
    if same.size:
        return int(same[0])
    if not found.size:
        return None
    shares = _shares(mark.box, rows[found])
    return int(found[shares.argmax()]) if shares.max() > SAME_BOX else None


def _shares(box: tuple[int, int, int, int], rows: np.ndarray) -> np.ndarray:
    """Intersection over union of a box with those of rows."""
    y, x, height, width = box
    down = np.minimum(rows["y1"], y + height) - np.maximum(rows["y0"], y)
    across = np.minimum(rows["x1"], x + width) - np.maximum(rows["x0"], x)
    common = np.clip(down, 0, None).astype(np.int64) * np.clip(across, 0, None)
    areas = (rows["y1"] - rows["y0"]).astype(np.int64) * (rows["x1"] - rows["x0"])
    return common / (areas + height * width - common)


def _found(entries: Sequence[Entry], table: RegionTable) -> tuple[Marks, int]:
    """The marks on the regions of a table, and how many regions that were marked are not there."""
    here: list[Entry] = []
    elsewhere: list[Entry] = []
    for entry in entries:
        if isinstance(entry, Step):
            here.append(entry)
            elsewhere.append(entry)
            continue
        index = find_again(entry, table)
        if index is None:
            elsewhere.append(entry)
        else:
            here.append(entry.model_copy(update={"region": int(table.rows["region"][index])}))
    return Marks(here), len(Marks(elsewhere).regions())


def _carried_over(before: Review, path: Path, header: Header, table: RegionTable) -> Review:
    """Begin a review with the marks of one before, on the regions that are the same."""
    old, lost = _found(before.entries, table)
    marks = []
    for mark in old.regions().values():
        region = table.at(table.index_of(mark.region) or 0)
        marks.append(mark.model_copy(update={"inside": region.inside, "box": region.box}))
    said = f"{_counted(len(marks), 'mark')} carried over from the review of the masks before these."
    review = Review(path, header, notes=(*before.notes, said, *_not_found(lost, before.path)))
    if marks:
        review.keep(*marks)
        review.marks = Marks(marks)
    return review


def _latest(path: Path, identity: str, about: Compared) -> Review | None:
    """The last review of the same slide and the same pair of names, if one can be read."""
    others = path.parent.glob(f"{_plain(about.first)}-{_plain(about.second)}-*{SUFFIX}")
    for other in sorted(others, key=lambda other: other.stat().st_mtime_ns, reverse=True):
        try:
            review = read_review(other, identity)
        except SlideError:  # it is no loss: it stays where it is, and these are other masks
            continue
        if (review.header.first, review.header.second) == (about.first, about.second):
            return review
    return None


def _not_found(lost: int, path: Path) -> list[str]:
    if not lost:
        return []
    return [
        f"{_counted(lost, 'marked region')} not there any more; what was said of it stays in {path.name}."
    ]


def _counted(number: int, what: str) -> str:
    return f"1 {what} was" if number == 1 else f"{number:,} {what}s were"


def _header(line: bytes, path: Path, identity: str | None) -> Header:
    beginning = f"Move it away to begin anew; it is left as it is ({path})."
    try:
        said = json.loads(line)
        version = int(said["kdseg_review"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SlideError(
            f"{path.name} does not say which slide it is about: it is no review, or its beginning is damaged. "
            f"{beginning}"
        ) from error
    if version > FORMAT:
        raise SlideError(
            f"{path.name} was written by a newer version of napari-kdseg. Update napari-kdseg to go on with it. "
            f"{beginning}"
        )
    try:
        header = Header.model_validate(said)
    except ValueError as error:
        raise SlideError(f"The first line of {path.name} is damaged. {beginning}") from error
    if identity is not None and header.identity != identity:
        raise SlideError(f"{path.name} is a review of another slide, {header.slide}. {beginning}")
    return header


def _entry(line: bytes) -> Entry:
    said = json.loads(line)
    return (
        Step.model_validate(said) if isinstance(said, dict) and "undo" in said else Mark.model_validate(said)
    )


def _lines(entries: Sequence[BaseModel]) -> bytes:
    return b"".join(entry.model_dump_json().encode() + b"\n" for entry in entries)


def _append(path: Path, lines: bytes) -> None:
    """Add whole lines; after one that was cut off they begin on the next."""
    with path.open("r+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            lines = lines if file.read(1) == b"\n" else b"\n" + lines
    with path.open("ab") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def _folder(folder: Path, slide: str, identity: str) -> Path:
    return folder / f"{_plain(Path(slide).stem)[:60]}-{_hash(identity)}"


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() or c in "_" else "-" for c in text) or "slide"


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
