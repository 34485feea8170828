"""False-pixel Image Generation (FIG): queues of the pixels a teacher gets wrong, and images made of them.

PLC-KD, Wang et al., MICCAI 2024, sect. 2.2. The paper is binary: false negatives go to a queue Q+, false
positives to Q-. With one queue for each TRUE class that is Q_1 and Q_0, and the same words hold for any
number of classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from napari_kdseg.errors import ConfigurationError


class FalsePixelQueues:
    """One first-in-first-out queue of false pixels for each true class.

    ``Q_c`` holds the values of pixels whose true class is ``c`` and which the teacher took for another. For
    two classes ``Q_1`` is the paper's Q+ (length M) and ``Q_0`` its Q- (length N); both have the same length
    here.

    Values are kept in the network's input space, after augmentation and normalisation: with fixed
    normalisation that is the paper's raw RGB, and with normalisation of each image it is the only space
    shared by all images.

    Parameters
    ----------
    classes
        Number of classes, background included.
    channels
        Channels of the image: the paper's D = 3.
    length
        Pixels remembered for each class.
    """

    def __init__(self, classes: int, channels: int, length: int) -> None:
        self.values = torch.zeros(classes, length, channels)
        self._sizes = [0] * classes
        self._next = [0] * classes

    @property
    def classes(self) -> int:
        """Number of queues."""
        return self.values.shape[0]

    @property
    def length(self) -> int:
        """Most pixels a queue can hold."""
        return self.values.shape[1]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Pixels held for each class."""
        return tuple(self._sizes)

    @property
    def full(self) -> bool:
        """Whether every queue holds as many pixels as it can."""
        return all(size == self.length for size in self._sizes)

    def to(self, device: torch.device | str) -> FalsePixelQueues:
        """Move the values to ``device``, in place."""
        self.values = self.values.to(device)
        return self

    def push(
        self,
        image: Tensor,
        target: Tensor,
        prediction: Tensor,
        k: int,
        generator: torch.Generator | None = None,
    ) -> None:
        """Append up to ``k`` false pixels of each class from each image, chosen at random without replacement.

        Parameters
        ----------
        image
            ``[N, D, H, W]`` network input.
        target, prediction
            ``[N, H, W]`` true classes and the teacher's. Pixels whose label is no class (255) are never
            taken.
        k
            Pixels from one image and class; all of them where there are fewer. The paper speaks of "an input
            image", so ``k`` is read as a number for each image, not for each batch.
        generator
            CPU random generator.
        """
        for one_image, labels, predicted in zip(image, target, prediction, strict=True):
            pixels = one_image.detach().flatten(1).T
            labels, predicted = labels.flatten(), predicted.flatten()
            for c in range(self.classes):
                false = ((labels == c) & (predicted != c)).nonzero().squeeze(1)
                self._append(c, pixels[_choose(false, k, generator)])

    def seed_least_confident(
        self, image: Tensor, target: Tensor, probabilities: Tensor, k: int
    ) -> tuple[int, ...]:
        """Fill each EMPTY queue with the ``k`` least confident right pixels of its class in each image.

        A teacher that has fitted its training images may make no mistake in some class. Ours: the paper is
        silent.

        Parameters
        ----------
        image, target
            As in :meth:`push`.
        probabilities
            ``[N, C, H, W]`` softmax output of the teacher.
        k
            Pixels from one image and class.

        Returns
        -------
        tuple of int
            The classes that were empty and now are not.
        """
        empty = [c for c in range(self.classes) if self._sizes[c] == 0]
        right = probabilities.argmax(dim=1) == target
        for c in empty:
            for n in range(len(image)):
                candidates = (right[n] & (target[n] == c)).flatten().nonzero().squeeze(1)
                confidence = probabilities[n, c].flatten()[candidates]
                least = confidence.argsort(stable=True)[:k]
                self._append(c, image[n].detach().flatten(1).T[candidates[least]])
        return tuple(c for c in empty if self._sizes[c])

    def _append(self, c: int, pixels: Tensor) -> None:
        pixels = pixels[-self.length :].to(self.values)
        count = len(pixels)
        slots = (self._next[c] + torch.arange(count, device=self.values.device)) % self.length
        self.values[c, slots] = pixels
        self._next[c] = (self._next[c] + count) % self.length
        self._sizes[c] = min(self._sizes[c] + count, self.length)

    def state_dict(self) -> dict[str, Any]:
        """Return values and positions; loads with ``torch.load(weights_only=True)``."""
        return {"values": self.values.clone(), "sizes": list(self._sizes), "next": list(self._next)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned.

        Raises
        ------
        ConfigurationError
            If it was made for other classes, channels or another length.
        """
        if state["values"].shape != self.values.shape:
            raise ConfigurationError(
                f"The saved queues of false pixels have the form {tuple(state['values'].shape)} (classes, length, "
                f"channels) but these settings ask for {tuple(self.values.shape)}. Resume with the settings of the run."
            )
        self.values = state["values"].to(self.values).clone()
        self._sizes = [int(size) for size in state["sizes"]]
        self._next = [int(slot) for slot in state["next"]]


def false_pixel_images(
    queues: FalsePixelQueues,
    masks: Tensor,
    generator: torch.Generator | None = None,
    *,
    ignore_index: int = 255,
) -> tuple[Tensor, Tensor]:
    """Make the synthetic images X^r and their targets Y^r: every pixel a random false pixel of its own class.

    ``x^r(p)`` is drawn uniformly with replacement from ``Q_{y^r(p)}``, the whole D-vector at once,
    independently for each pixel ("initialize a blank image ... pixel values obtained randomly from Q").

    Parameters
    ----------
    queues
        At least one of them must hold something.
    masks
        ``[N, H, W]`` integer ground-truth masks.
    generator
        CPU random generator.
    ignore_index
        Label of pixels that are not annotated.

    Returns
    -------
    image : Tensor
        ``[N, D, H, W]`` on the device of the queues.
    target : Tensor
        ``[N, H, W]`` int64: ``masks``, with the pixels of a class whose queue is empty set to
        ``ignore_index``.

    Raises
    ------
    ConfigurationError
        If every queue is empty.

    Notes
    -----
    A synthetic image has no hole, but neither an ignored pixel nor a class without false pixels has a queue
    to draw from. Such pixels are filled from the background's queue (or, if that is empty, the first queue
    that is not) and are ignored in the target: what they show is not what they would be.
    """
    filled = [c for c, size in enumerate(queues.sizes) if size]
    if not filled:
        raise ConfigurationError(
            "There is no false pixel to make an image of: the teacher has made no mistake yet. Train the assistant "
            "longer, or switch the false-pixel-aware assistant off."
        )
    device = queues.values.device
    masks = masks.to(device).long()
    sizes = torch.tensor(queues.sizes, device=device)
    known = (masks >= 0) & (masks < queues.classes)
    drawable = known & (sizes[torch.where(known, masks, 0)] > 0)
    source = torch.where(drawable, masks, filled[0])
    uniform = torch.rand(masks.shape, generator=generator).to(device)
    available = sizes[source]
    draw = (uniform * available).long().clamp(max=available - 1)
    image = queues.values[source, draw].permute(0, 3, 1, 2).contiguous()
    return image, torch.where(drawable, masks, ignore_index)


def _choose(candidates: Tensor, k: int, generator: torch.Generator | None) -> Tensor:
    """Choose ``k`` of ``candidates`` at random without replacement, or all of them, in random order."""
    order = torch.randperm(len(candidates), generator=generator)[:k]
    return candidates[order.to(candidates.device)]
