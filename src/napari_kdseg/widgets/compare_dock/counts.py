"""What is counted for the Compare dock, in words: who mended how much, and where teacher and student differ."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel

from napari_kdseg.widgets.layers import colours
from napari_kdseg.widgets.parts.controls import swatch


def count(path: Path) -> dict[str, Any]:
    """Put into words who mended how much in a store, and where teacher and student differ."""
    from napari_kdseg.comparison import confusion, countable_level
    from napari_kdseg.masks import open_masks

    masks = open_masks(path)
    result: dict[str, Any] = {"mended_by": {}, "disagreement": {}, "agreement": ""}
    if "mended_by" in masks:
        result["mended_by"] = _mended_lines(masks["mended_by"].metadata.get("counts"))
    if "teacher" in masks and "student" in masks:
        table = confusion(masks["teacher"], masks["student"], level=countable_level(masks["teacher"]))
        result["disagreement"] = {
            code: (text, f"{100 * table.shares[code]:.2f} %")
            for code, (text, _) in colours.DISAGREEMENT.items()
        }
        if not math.isnan(table.mean_dice):
            result["agreement"] = f"Dice between teacher and student where both looked: {table.mean_dice:.3f}"
    return result


def _mended_lines(counts: dict[str, Any] | None) -> dict[int, tuple[str, ...]]:
    from napari_kdseg.comparison import mended_by

    if not counts or not counts["labelled"]:
        return {}
    texts = ["right from the start", *(text for text, _ in colours.MENDED_BY.values())]
    return {
        code: (texts[code], f"{pixels:,} px", f"{100 * pixels / counts['labelled']:.2f} %")
        for code, pixels in mended_by(counts).items()
    }


def counts_row(grid: QGridLayout, index: int, colour: str | None, *texts: str) -> None:
    """Put what is counted, and the figures, into a row of ``grid``, with the colour that it has in the picture."""
    if colour is not None:
        grid.addWidget(swatch(colour), index, 0)
    for column, text in enumerate(texts):
        label = QLabel(text)
        label.setWordWrap(not column)  # numbers stay whole, and the dock as narrow as it is
        if column:
            label.setAlignment(Qt.AlignmentFlag.AlignRight)
        grid.addWidget(label, index, column + 1)
