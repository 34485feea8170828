"""Areas of classes as tables (CSV): one line a class, empty where there is no scale or no probability."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from napari_kdseg.masks.export.pieces import Measured
from napari_kdseg.masks.pyramid import MaskPyramid
from napari_kdseg.masks.reduction import NOT_COMPUTED

COLUMNS = (
    "class",
    "area_mm2",
    "area_px",
    "share_of_predicted",
    "share_of_tissue",
    "pieces",
    "mean_piece_um2",
    "mean_probability",
)
Row = dict[str, str]


def class_rows(measured: Measured, mask: MaskPyramid, tissue_px: float | None = None) -> list[Row]:
    """Return a line for every class but background.

    Parameters
    ----------
    measured, mask
        The mask, and its areas.
    tissue_px
        Area of the tissue of the slide in level-0 pixels, if it is known.
    """
    um2 = None if mask.mpp is None else mask.mpp[0] * mask.mpp[1]
    predicted = int(measured.pixels[:NOT_COMPUTED].sum())
    rows = []
    for value, name in list(enumerate(mask.classes))[1:]:
        own = [piece for piece in measured.pieces if piece.value == value]
        area = sum(piece.area for piece in own)
        known = [piece for piece in own if not math.isnan(piece.probability)]
        weight = sum(piece.area for piece in known)
        cells = (
            name,
            "" if um2 is None else f"{area * um2 / 1e6:.6g}",
            f"{area:.0f}",
            f"{measured.pixels[value] / predicted:.6f}" if predicted else "",
            f"{area / tissue_px:.6f}" if tissue_px else "",
            f"{len(own)}",
            "" if um2 is None or not own else f"{area * um2 / len(own):.6g}",
            f"{sum(piece.area * piece.probability for piece in known) / weight:.4f}" if weight else "",
        )
        rows.append(dict(zip(COLUMNS, cells, strict=True)))
    return rows


def as_csv(rows: Sequence[Row], columns: Sequence[str] = COLUMNS) -> bytes:
    """Return rows as a CSV file with a head."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
