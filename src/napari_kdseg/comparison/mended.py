"""Which step of a correction mended how many pixels, from the counts that are kept with its masks. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def mended_by(counts: Mapping[str, Any]) -> dict[int, int]:
    """Return the labelled pixels by what mended them.

    Parameters
    ----------
    counts
        As :class:`~napari_kdseg.distillation.correction.teacher_team.CorrectionCounts` are kept with the masks:
        ``labelled``; ``wrong`` after each of the steps, first before any; ``mended``, by step and true class.

    Returns
    -------
    dict
        By code (:class:`~napari_kdseg.codes.MendedBy`): 0 right from the start, 1 false-pixel-aware
        assistant, 2 boundary-aware assistant, 3 similarity, 4 fallback, 5 still wrong.
    """
    mended = [sum(by_class) for by_class in counts["mended"].values()]
    return dict(enumerate([counts["labelled"] - counts["wrong"][0], *mended, counts["wrong"][-1]]))
