"""Marks on regions: who is right there. Each is an entry that is only ever added; undo and redo are entries too."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from napari_kdseg.comparison.regions.table import Compared, Region


class Verdict(StrEnum):
    """Who is right in a region."""

    NONE = ""
    FIRST = "first"
    SECOND = "second"
    BOTH = "both"
    NEITHER = "neither"
    UNCLEAR = "unclear"


def in_words(verdict: Verdict, about: Compared) -> str:
    """Return a verdict as people read it, with the names of the two masks; nothing for none."""
    return {
        Verdict.NONE: "",
        Verdict.FIRST: f"{about.first} right",
        Verdict.SECOND: f"{about.second} right",
        Verdict.BOTH: "both right enough",
        Verdict.NEITHER: "both wrong",
        Verdict.UNCLEAR: "unclear",
    }[verdict]


def _token() -> str:
    return secrets.token_hex(6)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Mark(BaseModel):
    """What was said of one region.

    Attributes
    ----------
    region
        Its number in the table at that time; by itself it names no region once the masks are others.
    inside, box, classes
        By which it is found again: ``(y, x)``, ``(y, x, height, width)`` in level-0 pixels, names of the two classes.
    mark
        Who is right.
    comment, by, at
        Free words, the reader, and when (ISO 8601).
    id
        By which it is undone.
    """

    model_config = ConfigDict(frozen=True)

    region: int
    inside: tuple[int, int]
    box: tuple[int, int, int, int]
    classes: tuple[str, str]
    mark: Verdict
    comment: str = ""
    by: str = ""
    at: str = Field(default_factory=_now)
    id: str = Field(default_factory=_token)

    @classmethod
    def on(cls, region: Region, verdict: Verdict, comment: str = "", by: str = "") -> Mark:
        """Return a new mark on a region."""
        return cls(
            region=region.number,
            inside=region.inside,
            box=region.box,
            classes=(region.first_class, region.second_class),
            mark=verdict,
            comment=comment,
            by=by,
        )


class Step(BaseModel):
    """That a mark was taken back, or given again.

    Attributes
    ----------
    undo
        ``True`` if it was taken back, ``False`` if it was given again.
    id
        Of the mark.
    at
        When.
    """

    model_config = ConfigDict(frozen=True)

    undo: bool
    id: str
    at: str = Field(default_factory=_now)


Entry = Mark | Step


class Marks:
    """What counts now, after all entries.

    Parameters
    ----------
    entries
        In the order in which they were made.
    """

    def __init__(self, entries: Iterable[Entry] = ()):
        self._all: dict[str, Mark] = {}
        self._counting: dict[int, list[str]] = {}
        self._given: list[str] = []
        self._taken_back: list[str] = []
        for entry in entries:
            self.take(entry)

    def of(self, region: int) -> Mark | None:
        """Return the mark on the region of this number; ``None`` without one."""
        ids = self._counting.get(region)
        return self._all[ids[-1]] if ids else None

    def regions(self) -> dict[int, Mark]:
        """Return the mark of every region that has one, comments without a verdict too."""
        return {region: self._all[ids[-1]] for region, ids in self._counting.items() if ids}

    def take(self, entry: Entry) -> None:
        """Let an entry count; a step of a mark that is not here, or that changes nothing, is left out."""
        if isinstance(entry, Mark):
            if entry.id not in self._all:
                self._all[entry.id] = entry
                self._give(entry.id)
                self._taken_back.clear()
        elif entry.undo and entry.id in self._given:
            self._given.remove(entry.id)
            self._counting[self._all[entry.id].region].remove(entry.id)
            self._taken_back.append(entry.id)
        elif not entry.undo and entry.id in self._taken_back:
            self._taken_back.remove(entry.id)
            self._give(entry.id)

    def undone(self) -> tuple[Step, Mark] | None:
        """Return the step that takes the last mark back, and that mark; ``None`` if there is none."""
        return (Step(undo=True, id=self._given[-1]), self._all[self._given[-1]]) if self._given else None

    def redone(self) -> tuple[Step, Mark] | None:
        """Return the step that gives the mark again that was taken back last; ``None`` after a new mark."""
        if not self._taken_back:
            return None
        return Step(undo=False, id=self._taken_back[-1]), self._all[self._taken_back[-1]]

    def _give(self, mark: str) -> None:
        self._given.append(mark)
        self._counting.setdefault(self._all[mark].region, []).append(mark)
