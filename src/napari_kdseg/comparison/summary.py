"""Teacher and student on one slide in a few figures, for the report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from napari_kdseg.comparison.agreement import DISAGREEMENTS, confusion
from napari_kdseg.masks.pyramid import MaskPyramid


@dataclass(frozen=True)
class ComparisonSummary:
    """What two masks of a slide have in common.

    Attributes
    ----------
    teacher, student
        What made the masks: name and SHA-256 of the checkpoints.
    classes
        Names.
    confusion
        ``[C][C]`` pixel counts, rows by the teacher.
    agreement
        Share of pixels with the same class.
    disagreement
        Shares of pixels that only the teacher, that only the student called something, and that they called different
        classes; 0 without pixels.
    dice
        For every class; ``None`` for a class that neither saw.
    mean_dice
        Over the classes but background that either saw; ``None`` if there is none.
    compared_px, compared_mm2
        Pixels that both computed, and their area if the slide has a scale.
    """

    teacher: dict[str, Any]
    student: dict[str, Any]
    classes: tuple[str, ...]
    confusion: list[list[int]]
    agreement: float | None
    disagreement: dict[str, float]
    dice: dict[str, float | None]
    mean_dice: float | None
    compared_px: int
    compared_mm2: float | None

    def as_json(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings."""
        return {**asdict(self), "classes": list(self.classes)}


def summarise(
    teacher: MaskPyramid,
    student: MaskPyramid,
    region: tuple[int, int, int, int] | None = None,
    level: int = 0,
) -> ComparisonSummary:
    """Compare two masks of a slide.

    Parameters
    ----------
    teacher, student
        Masks of the same slide.
    region
        ``(y, x, height, width)`` in level-0 pixels; ``None`` is the whole slide.
    level
        Of the finer mask: 0 is exact, higher ones are faster.
    """
    table = confusion(teacher, student, region=region, level=level)
    pixels = int(table.counts.sum())
    return ComparisonSummary(
        teacher=_origin(teacher),
        student=_origin(student),
        classes=table.classes,
        confusion=table.counts.tolist(),
        agreement=_number(table.agreement),
        disagreement={name: table.shares[code] for code, name in DISAGREEMENTS.items()},
        dice={name: _number(value) for name, value in table.dice.items()},
        mean_dice=_number(table.mean_dice),
        compared_px=pixels,
        compared_mm2=None if table.pixel_um2 is None else pixels * table.pixel_um2 / 1e6,
    )


def _origin(mask: MaskPyramid) -> dict[str, Any]:
    return {"label": mask.name, **mask.metadata.get("made_by", {}).get("checkpoint", {})}


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if value != value else value
