"""What is counted for the Compare dock, in words: who mended how much, and where teacher and student differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_kdseg.widgets.layers import colours

if TYPE_CHECKING:
    from napari_kdseg.masks import MaskPyramid


def count(path: Path) -> dict[str, Any]:
    """Put the stage map and the disagreement of a store into words."""
    from napari_kdseg.comparison import confusion
    from napari_kdseg.masks import open_masks

    masks = open_masks(path)
    result: dict[str, Any] = {"stages": {}, "disagreement": {}, "agreement": ""}
    if "stage" in masks:
        result["stages"] = _stage_lines(masks["stage"].metadata.get("counts"))
    if "teacher" in masks and "student" in masks:
        table = confusion(masks["teacher"], masks["student"], level=_countable(masks["teacher"]))
        counts, total = table.counts, max(int(table.counts.sum()), 1)
        same = int(counts.trace())
        only_teacher, only_student = int(counts[1:, 0].sum()), int(counts[0, 1:].sum())
        pixels = {1: only_teacher, 2: only_student, 3: int(counts.sum()) - same - only_teacher - only_student}
        result["disagreement"] = {
            code: (text, f"{100 * pixels[code] / total:.2f} %")
            for code, (text, _) in colours.DISAGREEMENT.items()
        }
        dice = [value for value in list(table.dice.values())[1:] if value == value]
        if dice:
            result["agreement"] = (
                f"Dice between teacher and student where both looked: {sum(dice) / len(dice):.3f}"
            )
    return result


def _stage_lines(counts: dict[str, Any] | None) -> dict[int, tuple[str, ...]]:
    if not counts or not counts["labelled"]:
        return {}
    mended = [sum(by_class) for by_class in counts["mended"].values()]
    pixels = [counts["labelled"] - counts["wrong"][0], *mended, counts["wrong"][-1]]
    texts = ["right from the start", *(text for text, _ in colours.STAGES.values())]
    return {
        code: (text, f"{number:,} px", f"{100 * number / counts['labelled']:.2f} %")
        for code, (text, number) in enumerate(zip(texts, pixels, strict=True))
    }


def _countable(mask: MaskPyramid, pixels: int = 2**24) -> int:
    """The finest level that can be counted in about a second."""
    return next((i for i, level in enumerate(mask.levels) if level.size <= pixels), len(mask.levels) - 1)
