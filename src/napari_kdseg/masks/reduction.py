"""How four pixels of a mask become one of the next coarser level: the mode for classes, the mean for probabilities.

Averaging class numbers would invent classes; pixels that were not computed (255) never outvote those that were.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

NOT_COMPUTED = 255
Reduce = Callable[[np.ndarray], np.ndarray]


def _padded(block: np.ndarray) -> np.ndarray:
    """Give a block even sides."""
    pad = [(0, size % 2) for size in block.shape]
    return np.pad(block, pad, constant_values=NOT_COMPUTED) if any(after for _, after in pad) else block


def _children(block: np.ndarray) -> np.ndarray:
    """Stack the 2 x 2 children of each pixel: ``[h, w]`` -> ``[4, ceil(h/2), ceil(w/2)]``, odd edges padded."""
    block = _padded(block)
    return np.stack([block[0::2, 0::2], block[0::2, 1::2], block[1::2, 0::2], block[1::2, 1::2]])


def reduce_classes(block: np.ndarray) -> np.ndarray:
    """Halve a class mask by the most frequent computed child; ties go to the first in reading order.

    Parameters
    ----------
    block
        uint8 ``[h, w]``, 255 = not computed.

    Returns
    -------
    numpy.ndarray
        uint8 ``[ceil(h/2), ceil(w/2)]``, 255 only where no child was computed.
    """
    # Nearly everywhere all four are the same, and two neighbours in a row are one number of sixteen bits.
    block = np.ascontiguousarray(_padded(block))
    pairs = block.view(np.uint16)
    upper, lower = pairs[0::2], pairs[1::2]
    best = (upper & 255).astype(np.uint8)
    mixed = (upper != lower) | (upper != best * np.uint16(257))
    best[mixed] = _mode(*(block[y::2, x::2][mixed] for y in (0, 1) for x in (0, 1)))
    return best


def _mode(first: np.ndarray, second: np.ndarray, third: np.ndarray, fourth: np.ndarray) -> np.ndarray:
    # Of four children the most frequent one is the first that has a twin, or, if none has, the first computed one.
    best = np.where(third == fourth, third, first)
    best = np.where((second == third) | (second == fourth), second, best)
    best = np.where((first == second) | (first == third) | (first == fourth), first, best)
    unknown = best == NOT_COMPUTED
    if unknown.any():
        best[unknown] = _most_frequent_computed(*(child[unknown] for child in (first, second, third, fourth)))
    return best


def _most_frequent_computed(*children: np.ndarray) -> np.ndarray:
    stacked = np.stack(children)
    votes = (stacked[:, None] == stacked[None]).sum(axis=1, dtype=np.uint8)
    votes[stacked == NOT_COMPUTED] = 0
    return np.take_along_axis(stacked, votes.argmax(axis=0)[None], axis=0)[0]


def reduce_probabilities(block: np.ndarray) -> np.ndarray:
    """Halve a quantised probability map by the mean of the children that have a value.

    Parameters
    ----------
    block
        uint8 ``[h, w]``, 0..254 for 0..1, 255 = none.

    Returns
    -------
    numpy.ndarray
        uint8 ``[ceil(h/2), ceil(w/2)]``.
    """
    children = _children(block)
    valid = children != NOT_COMPUTED
    count = valid.sum(axis=0, dtype=np.uint16)
    total = np.where(valid, children, 0).sum(axis=0, dtype=np.uint16)
    mean = (2 * total + count) // np.maximum(2 * count, 1)
    return np.where(count > 0, mean, NOT_COMPUTED).astype(np.uint8)


def quantise(probability: np.ndarray) -> np.ndarray:
    """Map probabilities 0..1 to uint8 0..254, and NaN to 255 (none)."""
    steps = np.rint(np.clip(probability, 0.0, 1.0) * 254.0)
    return np.where(np.isnan(steps), NOT_COMPUTED, steps).astype(np.uint8)


def dequantise(stored: np.ndarray) -> np.ndarray:
    """Map uint8 0..254 to float32 probabilities 0..1, and 255 to NaN."""
    return np.where(stored == NOT_COMPUTED, np.float32(np.nan), stored.astype(np.float32) / np.float32(254))
