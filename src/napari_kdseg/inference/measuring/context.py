"""How much context tiles need on this slide, measured on its tissue: the halo, or the seam that blending leaves.

A halo of the receptive-field radius gives the result of the whole image and is expensive, because most of what far
pixels contribute is far below what decides a class. The default is therefore the smallest halo that gives the same
classes as the exact one on sample tiles, wherever these are decided at all; the largest difference in probability that
was seen is kept with the mask.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from napari_kdseg.inference.measuring.samples import Centre, Read
from napari_kdseg.inference.network.engine import Engine
from napari_kdseg.inference.tiles.blending import gaussian_weights
from napari_kdseg.memory import give_back

#: Classes whose probabilities are nearer than this are a tie, which rounding decides.
MARGIN = 1e-4
#: Side of the part of a sample that is compared.
CORE = 256
HALOS = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768)


class Context(BaseModel):
    """What was measured of the context of tiles.

    Attributes
    ----------
    halo
        Pixels around a tile.
    radius
        Receptive-field radius; ``None`` for a network that sees the whole image.
    blended
        Whether neighbouring windows are blended by a Gaussian.
    error
        Largest difference in probability that was seen on the samples: from the exact halo, or, where tiles are
        blended, from a window with the seam in its middle.
    undecided
        Pixels of the samples whose class differed because two classes tie (nearer than 1e-4).
    samples
        Number of sample tiles.
    """

    model_config = ConfigDict(frozen=True)

    halo: int
    radius: int | None
    blended: bool = False
    error: float = 0.0
    undecided: int = 0
    samples: int = 0

    def describe(self) -> str:
        """Say it in a sentence."""
        if self.blended:
            return (
                f"The network sees the whole image, so neighbouring tiles are blended; the seams between them were "
                f"at most {self.error:.1e} in probability on {self.samples} sample tiles."
            )
        if self.radius is not None and self.halo >= self.radius:
            return f"Exact: the halo of {self.halo} px is as far as the network looks."
        if not self.samples:
            return f"A halo of {self.halo} px, as asked for; what it leaves out was not measured."
        return (
            f"A halo of {self.halo} px gives the classes of the exact one ({self.radius} px) on {self.samples} sample "
            f"tiles; probabilities differed by at most {self.error:.1e}."
        )


def measure_halo(engine: Engine, read: Read, centres: list[Centre], radius: int, multiple: int) -> Context:
    """Find the smallest halo whose classes are those of the exact one on all samples.

    Parameters
    ----------
    engine
        In float32: rounding is not what is looked for.
    read
        Reads the slide at the resolution of the mask.
    centres
        ``(y, x)`` of the samples, in pixels of the mask.
    radius
        Receptive-field radius of the network.
    multiple
        Total downsampling of the network.
    """
    core = _align(CORE, multiple)
    side = core + 2 * radius
    samples = []
    for centre in centres:
        y, x = (_align(position - core / 2, multiple) for position in centre)
        window = read(y - radius, x - radius, side, side)
        samples.append((window, _probabilities(engine, window, radius, core)))
    for halo in sorted({_up(halo, multiple) for halo in HALOS}):
        if halo >= radius:
            break
        give_back()
        inside = slice(radius - halo, side - radius + halo)
        error, undecided, agree = 0.0, 0, True
        for window, exact in samples:
            got = _probabilities(engine, window[inside, inside], halo, core)
            differ = got.argmax(1) != exact.argmax(1)
            top = exact.topk(2, dim=1).values
            agree = agree and not bool((differ & (top[:, 0] - top[:, 1] > MARGIN)).any())
            error, undecided = max(error, float((got - exact).abs().max())), undecided + int(differ.sum())
        if agree:
            return Context(halo=halo, radius=radius, error=error, undecided=undecided, samples=len(samples))
    return Context(halo=radius, radius=radius, samples=len(samples))


def measure_seams(engine: Engine, read: Read, centres: list[Centre], tile: int, halo: int) -> Context:
    """Measure the seams that blending leaves: two neighbouring tiles against a window with their seam in its middle."""
    side, worst = tile + 2 * halo, 0.0
    weights = torch.from_numpy(gaussian_weights(side)).to(engine.device)
    for centre in centres:
        y, x = (round(position) for position in centre)
        left, right, middle = (
            engine.probabilities(engine.collate([read(y - side // 2, x + shift - side // 2, side, side)]))[0]
            for shift in (-tile // 2, tile // 2, 0)
        )
        # In the strip where both windows see: columns of the left window from ``tile`` on, of the right from 0 on.
        overlap = side - tile
        w_left, w_right = weights[:, tile:], weights[:, :overlap]
        blended = (left[..., tile:] * w_left + right[..., :overlap] * w_right) / (w_left + w_right)
        start = (side - overlap) // 2
        inner = slice(halo, side - halo)
        worst = max(worst, float((blended - middle[..., start : start + overlap])[:, inner].abs().max()))
    return Context(halo=halo, radius=None, blended=True, error=worst, samples=len(centres))


def _probabilities(engine: Engine, window: np.ndarray, halo: int, core: int) -> Tensor:
    inside = slice(halo, halo + core)
    return engine.probabilities(engine.collate([window]), (inside, inside))


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _align(value: float, multiple: int) -> int:
    return round(value / multiple) * multiple
