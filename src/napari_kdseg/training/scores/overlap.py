"""How much two masks overlap, from counts of pixels alone: no torch here."""

from __future__ import annotations

import numpy as np


def overlap_scores(both: np.ndarray, predicted: np.ndarray, annotated: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores of classes from counts of pixels.

    Parameters
    ----------
    both, predicted, annotated
        Pixels of each class in prediction P and annotation G, in P, and in G; of one shape.

    Returns
    -------
    dict
        float64 arrays of that shape; NaN where a class is in neither.

        - ``dice``: ``2 |P and G| / (|P| + |G|)``
        - ``iou``: ``|P and G| / |P or G|``
        - ``voe``: the volumetric overlap error ``1 - iou = 1 - dice / (2 - dice)``
        - ``voe_emkd``: ``2 (|P| - |P and G|) / (|P| + |G|)``
        - ``rvd``: the relative volume difference ``(|P| - |G|) / |G|``, signed; NaN also where G alone is empty

    Notes
    -----
    EMKD (Qin et al., IEEE TMI 2021) prints VOE as ``1 - |P and G| / (|P| + |G|)``, which is wrong (a perfect prediction
    has 0.5), and tabulates what its code computes, our ``voe_emkd``: it counts false positives only, and is 2 where the
    class is predicted but not annotated.
    """
    both, predicted, annotated = (counts.astype(np.float64) for counts in (both, predicted, annotated))
    with np.errstate(divide="ignore", invalid="ignore"):
        total = predicted + annotated
        iou = both / (total - both)
        rvd = np.where(annotated > 0, (predicted - annotated) / annotated, np.nan)
        return {
            "dice": 2 * both / total,
            "iou": iou,
            "voe": 1 - iou,
            "voe_emkd": 2 * (predicted - both) / total,
            "rvd": rvd,
        }
