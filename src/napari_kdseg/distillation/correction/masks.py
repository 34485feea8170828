"""Where the shapes of false-pixel images come from: "randomly select a ground-truth lesion mask", PLC-KD 2.2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from napari_kdseg.distillation.declarations import SampleMasks

REMEMBERED = 64
DRAWS = 8


class TrainingMasks:
    """Random ground-truth masks of the training set that hold more than one class.

    A mask of one class only would make an image without a lesion, so such masks are drawn again, and after some draws
    replaced by a mask of one of the last batches.

    Parameters
    ----------
    sample_masks
        ``sample_masks(count, generator)`` -> ``[count, h, w]``; ``None`` takes all from the last batches.
    ignore_index
        Label that is no class.
    """

    def __init__(self, sample_masks: SampleMasks | None = None, *, ignore_index: int = 255) -> None:
        self.remembered: list[Tensor] = []
        self._sample_masks = sample_masks
        self._ignore_index = ignore_index

    def remember(self, target: Tensor) -> None:
        """Keep the last usable masks of ``target [N, H, W]``, as bytes."""
        usable = [mask.to("cpu", torch.uint8) for mask in target if self._usable(mask)]
        self.remembered = (self.remembered + usable)[-REMEMBERED:]

    def draw(self, count: int, size: torch.Size, generator: torch.Generator) -> Tensor | None:
        """Draw ``[count, H, W]`` int64 masks, resized (nearest) to ``size``; ``None`` if none was ever seen."""
        drawn: list[Tensor] = []
        if self._sample_masks is not None:
            for _ in range(DRAWS):
                if len(drawn) == count:
                    break
                candidates = self._sample_masks(count - len(drawn), generator)
                drawn += [mask.cpu() for mask in candidates if self._usable(mask)]
        if self.remembered:
            choice = torch.randint(len(self.remembered), (count - len(drawn),), generator=generator)
            drawn += [self.remembered[i] for i in choice.tolist()]
        return torch.stack([_resize_nearest(mask, size) for mask in drawn]) if drawn else None

    def _usable(self, mask: Tensor) -> bool:
        labels = mask[mask != self._ignore_index]
        return labels.numel() > 0 and bool((labels != labels[0]).any())


def _resize_nearest(mask: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(mask[None, None].float(), size=size, mode="nearest-exact")[0, 0].long()
