"""Similarity-based Correction (SC): a pixel that is still wrong takes the soft label of the most similar right pixel.

PLC-KD, Wang et al., MICCAI 2024, sect. 2.1, stage 2: "the value of the most similar and correct pixel from
Y^B is assigned to the corresponding false pixel", similarity being the cosine. The result is the
"all-correct" map P^U.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SIMILAR, FALLBACK = 3, 4
MARGIN = 1e-3
CPU_TILE, GPU_TILE = (256, 1024), (4096, 2**14)
"""Wrong and right pixels compared at once: a CPU wants products that stay in its cache, a GPU few large ones."""


class ClassMeans:
    """Running mean of the right soft labels of each class: what a pixel gets when no right pixel is there to copy.

    Parameters
    ----------
    classes
        Number of classes C.
    momentum
        Share of the old mean kept at each update.
    """

    def __init__(self, classes: int, momentum: float) -> None:
        self.momentum = momentum
        self.mean = torch.zeros(classes, classes)
        self.seen = torch.zeros(classes, dtype=torch.bool)

    def update(self, probabilities: Tensor, target: Tensor, right: Tensor) -> None:
        """Move towards the mean of the right pixels of this batch; classes without one stay.

        Each right pixel has its largest entry at its class, and so has every mean of them.
        """
        self.mean, self.seen = self.mean.to(probabilities), self.seen.to(probabilities.device)
        vectors = probabilities.detach().movedim(1, -1)[right]
        labels = target[right]
        for c in labels.unique().tolist():
            mean = vectors[labels == c].mean(dim=0)
            self.mean[c] = torch.lerp(mean, self.mean[c], self.momentum) if self.seen[c] else mean
            self.seen[c] = True

    def state_dict(self) -> dict[str, Any]:
        """Return the means; loads with ``torch.load(weights_only=True)``."""
        return {"mean": self.mean.clone(), "seen": self.seen.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        self.mean, self.seen = state["mean"].clone(), state["seen"].clone()


def similarity_correction(
    probabilities: Tensor,
    target: Tensor,
    similarity_vectors: Tensor,
    *,
    chunk: int = 4096,
    class_means: ClassMeans | None = None,
    ignore_index: int = 255,
) -> tuple[Tensor, Tensor]:
    """Mend every wrong pixel, so that the arg max equals the target at every labelled pixel.

    A wrong pixel of true class c takes the first of these that there is:

    1. the soft label of the most similar right pixel of class c in its own image;
    2. the same, from the whole batch;
    3. the running mean soft label of class c (``class_means``);
    4. its own soft label with the largest entry and the entry of c exchanged.

    Parameters
    ----------
    probabilities
        ``[N, C, H, W]`` soft labels P^B; not changed.
    target
        ``[N, H, W]`` integer classes.
    similarity_vectors
        ``[N, d, h, w]``, what pixels are compared by; resized (bilinear, ``align_corners=False``) to ``H x
        W``.
    chunk
        Most right pixels compared at once; the search is exact for every value. The memory needed is one
        image's resized vectors and ``256 x min(chunk, 1024)`` similarities, on a GPU ``4096 x min(chunk, 16384)``.
    class_means
        Updated with this batch first; ``None`` leaves step 3 out.
    ignore_index
        Label of pixels that are left alone and never copied from.

    Returns
    -------
    corrected : Tensor
        ``[N, C, H, W]`` P^U; bit-identical to ``probabilities`` at right and ignored pixels.
    codes : Tensor
        ``[N, H, W]`` uint8: 3 where a similar right pixel was copied, 4 where steps 3 or 4 were needed, else
        0.

    Notes
    -----
    The paper does not restrict where a pixel may be copied from; a right pixel of ANOTHER class would bring
    another wrong label, so candidates must share the true class. If the entry of c is not strictly the
    largest (a tie), it is put a margin of 1e-3 above the others and the vector is scaled back to sum 1.

    Every candidate is compared, in float32 (float64 vectors in float64); of equally similar pixels the first
    is taken. A vector that is zero or not finite is equally unlike all others.
    """
    target = target.long()
    labelled = target != ignore_index
    predicted = probabilities.max(dim=1).indices  # as argmax, but many times faster on a CPU
    right = labelled & (predicted == target)
    wrong = labelled & ~right
    codes = torch.zeros(target.shape, dtype=torch.uint8, device=target.device)
    if class_means is not None:
        class_means.update(probabilities, target, right)
    if not wrong.any():
        return probabilities.clone(), codes
    with torch.autocast(probabilities.device.type, enabled=False):
        source = _most_similar_right_pixels(target, right, wrong, similarity_vectors.detach(), chunk)

    vectors = probabilities.movedim(1, -1).reshape(-1, probabilities.shape[1])
    mended = wrong.flatten().nonzero().squeeze(1)
    source, classes = source[mended], target.flatten()[mended]
    found = source >= 0
    new = torch.where(
        found[:, None], vectors[source.clamp(min=0)], _fallback(vectors[mended], classes, class_means)
    )
    codes.view(-1)[mended] = torch.where(found, SIMILAR, FALLBACK).to(torch.uint8)
    corrected = probabilities.clone()
    corrected.movedim(1, -1)[wrong] = _put_on_top(new, classes)
    return corrected, codes


def _most_similar_right_pixels(
    target: Tensor, right: Tensor, wrong: Tensor, maps: Tensor, chunk: int
) -> Tensor:
    """Return for each pixel of the batch the flat index ``[N * H * W]`` of the right pixel to copy, -1 for none."""
    size = target.shape[-2:]
    pixels = size[0] * size[1]
    source = torch.full((target.numel(),), -1, dtype=torch.long, device=target.device)
    orphans: dict[int, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for n in wrong.flatten(1).any(dim=1).nonzero().squeeze(1).tolist():
        units = _unit_vectors(maps[n], size)
        for c, queries in _pixels_by_class(target[n], wrong[n]):
            bank = (right[n] & (target[n] == c)).flatten().nonzero().squeeze(1)
            query_units = units.index_select(1, queries).T.contiguous()
            if len(bank):
                _, nearest = _nearest(query_units, units, bank, chunk)
                source[n * pixels + queries] = n * pixels + bank[nearest]
            else:
                orphans[c].append((n * pixels + queries, query_units))
    for c, parts in orphans.items():
        queries, query_units = (torch.cat(part) for part in zip(*parts, strict=True))
        best = torch.full((len(queries),), -torch.inf, dtype=query_units.dtype, device=target.device)
        for n in (right & (target == c)).flatten(1).any(dim=1).nonzero().squeeze(1).tolist():
            bank = (right[n] & (target[n] == c)).flatten().nonzero().squeeze(1)
            similarity, nearest = _nearest(query_units, _unit_vectors(maps[n], size), bank, chunk)
            better = similarity > best
            best = torch.where(better, similarity, best)
            source[queries[better]] = n * pixels + bank[nearest[better]]
    return source


def _nearest(queries: Tensor, units: Tensor, bank: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Largest cosine of each of ``queries [q, d]`` to ``units [d, p]`` at ``bank``, and its (first) index in ``bank``.

    On a CPU the largest value is found some twenty times faster than where it is. So each part of the bank gives
    its largest value only, and the index is looked for afterwards in the one part that won.
    """
    height, width = CPU_TILE if queries.device.type == "cpu" else GPU_TILE
    parts = bank.split(min(width, chunk))
    room = queries.new_empty(min(height, len(queries)) * len(parts[0]))
    best = queries.new_full((len(queries),), -torch.inf)
    part_of_best = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    for number, part in enumerate(parts):
        candidates = units.index_select(1, part)
        for start in range(0, len(queries), height):
            rows = slice(start, start + height)
            some = queries[rows]
            product = room[: len(some) * len(part)].view(len(some), len(part))
            largest = torch.mm(some, candidates, out=product).amax(dim=1)
            part_of_best[rows].masked_fill_(largest > best[rows], number)
            torch.maximum(best[rows], largest, out=best[rows])
    index = torch.empty_like(part_of_best)
    for number in part_of_best.unique().tolist():
        candidates = units.index_select(1, parts[number])
        for rows in (part_of_best == number).nonzero().squeeze(1).split(height):
            index[rows] = number * len(parts[0]) + (queries[rows] @ candidates).argmax(dim=1)
    return best, index


def _unit_vectors(one_map: Tensor, size: torch.Size) -> Tensor:
    """Resize ``[d, h, w]`` to ``size`` and return unit vectors ``[d, H * W]``; zero and broken vectors are zero."""
    one_map = one_map if one_map.dtype == torch.float64 else one_map.float()
    if one_map.shape[-2:] != size:
        one_map = F.interpolate(one_map[None], size=size, mode="bilinear", align_corners=False)[0]
    return F.normalize(one_map.flatten(1), dim=0).nan_to_num_(nan=0.0)


def _pixels_by_class(labels: Tensor, chosen: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield each class among the chosen pixels with their flat indices."""
    labels, chosen = labels.flatten(), chosen.flatten()
    for c in labels[chosen].unique().tolist():
        yield c, (chosen & (labels == c)).nonzero().squeeze(1)


def _fallback(vectors: Tensor, classes: Tensor, means: ClassMeans | None) -> Tensor:
    """Class mean where one is known, else the pixel's own vector with two entries exchanged: keeps its shape."""
    top = vectors.argmax(dim=1, keepdim=True)
    own = classes[:, None]
    swapped = vectors.scatter(1, own, vectors.gather(1, top)).scatter(1, top, vectors.gather(1, own))
    if means is None:
        return swapped
    return torch.where(means.seen[classes][:, None], means.mean[classes], swapped)


def _put_on_top(vectors: Tensor, classes: Tensor) -> Tensor:
    """Make the entry of its class strictly the largest of each vector; most vectors already are so and stay."""
    own = classes[:, None]
    others = vectors.scatter(1, own, -torch.inf).amax(dim=1, keepdim=True)
    raised = vectors.scatter(1, own, others + MARGIN)
    raised = raised / raised.sum(dim=1, keepdim=True)
    return torch.where(vectors.gather(1, own) > others, vectors, raised)
