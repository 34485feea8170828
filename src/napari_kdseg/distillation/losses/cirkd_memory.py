"""CIRKD, part two: how alike each pixel is to the teacher's remembered pixels or regions of every class.

Yang et al., Cross-Image Relational Knowledge Distillation for Semantic Segmentation, CVPR 2022: the memory-based
pixel-to-pixel and pixel-to-region distillation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_kdseg.distillation.losses.common import EPSILON, at_least_float32, labels_on_grid, same_size
from napari_kdseg.errors import ConfigurationError


def memory_contrast(student: Tensor, teacher: Tensor, memory: Tensor, *, temperature: float = 0.1) -> Tensor:
    r"""Divergence of the relations between the batch's pixels and remembered embeddings.

    .. math::
        L = \operatorname{mean}_a \mathrm{KL}\bigl(\mathrm{softmax}(u^T_a V^T / \tau) \,\|\,
            \mathrm{softmax}(u^S_a V^T / \tau)\bigr)

    Parameters
    ----------
    student, teacher
        ``[A, c]`` embeddings :math:`u` of the same pixels; normalised here. No gradient flows into the teacher's.
    memory
        ``[K, c]`` unit embeddings :math:`V`.
    temperature
        :math:`\tau > 0`.

    Returns
    -------
    Tensor
        Scalar float32, at least 0, and 0 where both agree; 0 with a graph if there is no pixel or no memory.
    """
    if not len(student) or not len(memory):
        return 0.0 * at_least_float32(student).sum()
    with torch.autocast(student.device.type, enabled=False):
        of_student = F.normalize(at_least_float32(student), dim=1, eps=EPSILON)
        of_teacher = F.normalize(at_least_float32(teacher.detach()), dim=1, eps=EPSILON)
        relation_s = F.log_softmax(of_student @ memory.T / temperature, dim=1)
        relation_t = F.log_softmax(of_teacher @ memory.T / temperature, dim=1)
        return F.kl_div(relation_s, relation_t, reduction="batchmean", log_target=True)


class ClassQueues(nn.Module):
    """One first-in-first-out queue of embeddings for each class.

    Parameters
    ----------
    classes
        Number of classes, background included.
    length
        Embeddings remembered for each class.
    channels
        Length ``c`` of an embedding.
    """

    values: Tensor

    def __init__(self, classes: int, length: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.zeros(classes, length, channels))
        self._sizes = [0] * classes
        self._next = [0] * classes

    @property
    def sizes(self) -> tuple[int, ...]:
        """Embeddings held for each class."""
        return tuple(self._sizes)

    def push(self, c: int, embeddings: Tensor) -> None:
        """Append ``embeddings [count, c]`` to the queue of class ``c``; the oldest make room."""
        length = self.values.shape[1]
        embeddings = embeddings[-length:].to(self.values)
        slots = (self._next[c] + torch.arange(len(embeddings), device=self.values.device)) % length
        self.values[c, slots] = embeddings
        self._next[c] = (self._next[c] + len(embeddings)) % length
        self._sizes[c] = min(self._sizes[c] + len(embeddings), length)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw ``count // classes`` (at least one) different embeddings of each class, all where there are fewer."""
        each = max(count // len(self._sizes), 1)
        drawn = [distinct(size, each, generator).to(self.values.device) for size in self._sizes]
        return torch.cat([self.values[c, slots] for c, slots in enumerate(drawn)])

    def get_extra_state(self) -> dict[str, list[int]]:
        """Return how full each queue is, and where its next embedding goes."""
        return {"sizes": list(self._sizes), "next": list(self._next)}

    def set_extra_state(self, state: dict[str, list[int]]) -> None:
        """Take back what :meth:`get_extra_state` returned."""
        self._sizes = [int(size) for size in state["sizes"]]
        self._next = [int(slot) for slot in state["next"]]


class MemoryContrast(nn.Module):
    r"""The loss :func:`memory_contrast` with what it learns and remembers.

    The student's feature is projected to the teacher's channels (1x1 convolution, batch normalisation, ReLU, 1x1
    convolution). The teacher's feature fills one queue a class with embeddings of pixels, or of regions (the mean
    embedding of a class in an image). Each step first remembers, then compares.

    Parameters
    ----------
    student_shapes, teacher_shapes
        Shapes ``[1, c, h, w]`` of the student's feature, and of the teacher's feature and its logits. The logits
        only tell the number of classes.
    generator
        CPU generator of the first weights and of every draw; its state is kept in :meth:`state_dict`.
    kind
        What is remembered: ``"pixel"`` or ``"region"``.
    queue_length
        Embeddings remembered for each class; the paper's are 20000 pixels and 2000 regions.
    samples
        Embeddings compared with in each step, all classes together; the paper's are 4096 and 1024.
    pixels_per_image
        Pixels of each class remembered from one image.
    anchors
        Most pixels compared in each step, for each image of the batch.
    temperature
        :math:`\tau > 0`.

    Raises
    ------
    ConfigurationError
        If there is no such kind, the temperature is not positive, or a number is below one.

    Notes
    -----
    - *Right class.* The released code means to remember random pixels of a class, but takes the first of a
      permutation as positions in the image, so its queues hold pixels of any class. Here they are of the class.
    - *Empty memory.* Its queues start full of random vectors; ours start empty, and only what is in them is
      compared with. A class without an embedding is left out; its share of the samples is not given to others.
    - *Projector.* Its two losses share one projector; here each has its own, so that each can be used alone.
    - *Anchors.* It compares every labelled pixel of a map at 1/8 resolution. At full resolution that is out of
      reach, so where there are more than ``anchors`` an image, that many are drawn at random.
    - *Grids.* Pixels are compared on the student's grid, the teacher's feature resized (bilinear) to it. What is
      remembered is read on the teacher's own grid, so that no embedding is a mixture of two pixels.
    - *Processes.* All remember the same: the images of the whole batch.
    """

    def __init__(
        self,
        student_shapes: Sequence[Sequence[int]],
        teacher_shapes: Sequence[Sequence[int]],
        generator: torch.Generator,
        *,
        kind: Literal["pixel", "region"],
        queue_length: int,
        samples: int,
        pixels_per_image: int = 16,
        anchors: int = 1024,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        if kind not in ("pixel", "region") or temperature <= 0:
            raise ConfigurationError(
                f"CIRKD remembers 'pixel' or 'region' at a temperature above zero, not '{kind}' at {temperature}."
            )
        if min(queue_length, samples, pixels_per_image, anchors) < 1:
            raise ConfigurationError(
                "CIRKD's queue length, samples, pixels an image and anchors must be at least one."
            )
        channels = teacher_shapes[0][1]
        self.kind, self.samples, self.anchors = kind, samples, anchors
        self.pixels_per_image, self.temperature = pixels_per_image, temperature
        first = nn.Conv2d(student_shapes[0][1], channels, kernel_size=1, bias=False)
        last = nn.Conv2d(channels, channels, kernel_size=1, bias=False)
        self.projector = nn.Sequential(first, nn.BatchNorm2d(channels), nn.ReLU(inplace=True), last)
        self.queues = ClassQueues(teacher_shapes[1][1], queue_length, channels)
        self._generator = generator
        for layer in (first, last):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)

    def forward(
        self,
        student: Tensor,
        teacher: tuple[Tensor, Tensor],
        target: Tensor | None = None,
        ignore_index: int = 255,
    ) -> Tensor:
        """Remember the teacher's feature (in training only), and compare the student's with the memory.

        Parameters
        ----------
        student
            Feature ``[N, c, h, w]``.
        teacher
            Feature ``[N, c, h, w]``, and logits, which are not read. No gradient flows into them.
        target
            ``[N, H, W]`` labels. Must be given.
        ignore_index
            Label of pixels that are neither remembered nor compared.

        Returns
        -------
        Tensor
            Scalar float32, at least 0; 0 with a graph if no pixel counts or nothing is remembered.

        Raises
        ------
        ConfigurationError
            If there are no labels.
        """
        if target is None:
            raise ConfigurationError(
                "CIRKD remembers pixels by their class, so it needs the ground truth of every image. Give the labels, "
                "or use its variant 'mini-batch'."
            )
        feature = at_least_float32(teacher[0].detach())
        if self.training:
            self._remember(feature, target, ignore_index)
        with torch.autocast(student.device.type, enabled=False):
            projected, feature = same_size(self.projector(at_least_float32(student)), feature)
        pixels = self._draw_anchors(target, projected, ignore_index)
        anchors_s, anchors_t = (f.movedim(1, -1).flatten(0, 2)[pixels] for f in (projected, feature))
        memory = self.queues.sample(self.samples, self._generator)
        return memory_contrast(anchors_s, anchors_t, memory, temperature=self.temperature)

    @torch.no_grad()
    def _remember(self, feature: Tensor, target: Tensor, ignore_index: int) -> None:
        """Append embeddings of each class in each image to the class's queue."""
        embeddings = F.normalize(feature, dim=1, eps=EPSILON).flatten(2).transpose(1, 2)
        for of_image, labels in zip(
            embeddings, labels_on_grid(target, feature.shape[-2:]).flatten(1), strict=True
        ):
            for c in labels.unique().tolist():
                if c == ignore_index or not 0 <= c < len(self.queues.sizes):
                    continue
                of_class = of_image[labels == c]
                if self.kind == "region":
                    self.queues.push(c, F.normalize(of_class.mean(dim=0, keepdim=True), dim=1, eps=EPSILON))
                else:
                    chosen = distinct(len(of_class), self.pixels_per_image, self._generator)
                    self.queues.push(c, of_class[chosen.to(of_class.device)])

    def _draw_anchors(self, target: Tensor, feature: Tensor, ignore_index: int) -> Tensor:
        """Return pixels by their index in the flattened batch: all that are labelled, or as many as there may be."""
        labelled = (labels_on_grid(target, feature.shape[-2:]) != ignore_index).flatten().nonzero().squeeze(1)
        chosen = distinct(len(labelled), self.anchors * len(feature), self._generator)
        return labelled[chosen.to(labelled.device)]

    def get_extra_state(self) -> dict[str, Any]:
        """Return the state of the generator, so that a resumed run draws what it would have drawn."""
        return {"generator": self._generator.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`get_extra_state` returned."""
        self._generator.set_state(state["generator"].cpu())


def distinct(count: int, wanted: int, generator: torch.Generator) -> Tensor:
    """Draw ``wanted`` different numbers below ``count``, every set as likely; all of them where there are fewer.

    Floyd's algorithm: takes time for what is wanted, not for a permutation of a whole map.
    """
    if count <= wanted:
        return torch.arange(count)
    last = torch.arange(count - wanted, count)
    draws = (torch.rand(wanted, dtype=torch.float64, generator=generator) * (last + 1)).long()
    chosen: dict[int, None] = {}
    for draw, otherwise in zip(draws.tolist(), last.tolist(), strict=True):
        chosen[otherwise if draw in chosen else draw] = None
    return torch.tensor(list(chosen))
