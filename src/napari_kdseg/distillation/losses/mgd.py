"""Masked generative distillation: from a part of its feature, the student must generate the teacher's whole.

Yang et al.: Masked Generative Distillation. ECCV 2022 (arXiv 2205.01529).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from napari_kdseg.distillation.losses.common import at_least_float32, labelled_mean, same_shape
from napari_kdseg.distillation.losses.pairs import as_tuple, layer_pairs
from napari_kdseg.errors import ConfigurationError


class MaskedGenerativeDistillation(nn.Module):
    r"""The loss of MGD, with the layers that generate.

    With :math:`A` a 1x1 convolution to the teacher's channels (left out where they agree), :math:`M` a mask drawn
    anew each time that is 0 at a pixel with probability :math:`\lambda`, and :math:`\mathcal{G}` two 3x3
    convolutions with a ReLU between,

    .. math::
        L = \operatorname{mean}_{n, c, hw} \bigl(\mathcal{G}(A f_S \cdot M) - f_T\bigr)^2

    Parameters
    ----------
    student_shapes, teacher_shapes
        Shapes ``[1, c, h, w]`` of the features, in pairs whose losses are summed; only the channels are used.
    generator
        CPU generator of the first weights and of every mask; its state is kept in :meth:`state_dict`.
    masked_share
        :math:`\lambda`, probability at which a pixel of the student's feature is masked, from 0 to below 1.
    reduction
        ``"mean"`` over images, channels and pixels, or ``"sum"``, which divides by the images only as the
        released code does (to be weighted by about 2e-5).

    Raises
    ------
    ConfigurationError
        If the masked share is not in [0, 1), or there are not as many student as teacher layers.

    Notes
    -----
    - *Scale.* The paper's sum over channels and pixels grows with the feature: its weight 2e-5 equals
      ``2e-5 * c * h * w`` on our mean. We take the mean, whose weight does not depend on the feature's size.
    - *Share.* The released configuration says 0.75 and its code masks a pixel where a uniform draw exceeds
      ``1 - 0.75``: three quarters are masked, a quarter is kept. The mask is one for all channels.
    - *Beside it.* The released code for segmentation reads the last stage of a backbone at 1/8, and adds channel-wise
      distillation of the logits at a temperature of 4, with a weight of 3.
    - *Sizes.* The paper's features have one size; here the teacher's is resized (bilinear) to the student's.
    - *Ignored pixels* are left out of the mean, though the student's feature there may help to generate others;
      ``"sum"`` counts them as if they had the mean of the others.
    """

    def __init__(
        self,
        student_shapes: Sequence[Sequence[int]],
        teacher_shapes: Sequence[Sequence[int]],
        generator: torch.Generator,
        *,
        masked_share: float = 0.75,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__()
        if not 0 <= masked_share < 1:
            raise ConfigurationError(f"The masked share must be at least 0 and below 1, not {masked_share}.")
        self.masked_share = masked_share
        self.reduction = reduction
        pairs = layer_pairs(student_shapes, teacher_shapes)
        self.align = nn.ModuleList(_align(student[1], teacher[1]) for student, teacher in pairs)
        self.generation = nn.ModuleList(_generation(teacher[1]) for _, teacher in pairs)
        self._generator = generator
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
                nn.init.zeros_(cast(Tensor, module.bias))

    def forward(
        self,
        student: Tensor | tuple[Tensor, ...],
        teacher: Tensor | tuple[Tensor, ...],
        target: Tensor | None = None,
        ignore_index: int = 255,
    ) -> Tensor:
        """Mask the student's feature, generate, and compare with the teacher's.

        Parameters
        ----------
        student, teacher
            Features ``[N, c, h, w]`` with the channels told to the constructor, or a tuple of as many as there
            are pairs. No gradient flows into the teacher.
        target
            ``[N, H, W]`` labels, read only to leave out ignored pixels. ``None`` counts every pixel.
        ignore_index
            Label of pixels that count for nothing.

        Returns
        -------
        Tensor
            Scalar float32, at least 0; 0 with a graph if no pixel counts.
        """
        parts = zip(self.align, self.generation, as_tuple(student), as_tuple(teacher), strict=True)
        values = []
        for align, generate, feature_s, feature_t in parts:
            aligned = align(at_least_float32(feature_s))
            generated = generate(aligned * self.draw_mask(aligned))
            generated, feature_t = same_shape(generated, feature_t, "feature")
            value = labelled_mean((generated - feature_t).square().mean(dim=1), target, ignore_index)
            values.append(value if self.reduction == "mean" else value * generated[0].numel())
        return torch.stack(values).sum()

    def draw_mask(self, feature: Tensor) -> Tensor:
        """Draw ``[N, 1, h, w]``, 0 where a pixel is masked and 1 where it is kept, on the feature's device."""
        draws = torch.rand(feature.shape[0], 1, *feature.shape[2:], generator=self._generator)
        return (draws >= self.masked_share).to(feature)

    def get_extra_state(self) -> dict[str, Any]:
        """Return the state of the generator, so that a resumed run draws the masks it would have drawn."""
        return {"generator": self._generator.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`get_extra_state` returned."""
        self._generator.set_state(state["generator"].cpu())


def _align(student_channels: int, teacher_channels: int) -> nn.Module:
    if student_channels == teacher_channels:
        return nn.Identity()
    return nn.Conv2d(student_channels, teacher_channels, kernel_size=1)


def _generation(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, kernel_size=3, padding=1),
    )
