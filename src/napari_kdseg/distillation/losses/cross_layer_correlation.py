"""Cross-layer correlation of channel-mixed spatial similarity: CoCo DistillNet (Zou and Sun, BIBM 2021, eq. 3 to 7).

Computed in a closed form, which never builds the hw x hw similarity maps of the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor

from napari_kdseg.distillation.losses.spatial_similarity import as_layers, pooled_alike, unit_pixels
from napari_kdseg.errors import ConfigurationError

NO_CORRELATION = 1e-12


def cross_layer_correlation(
    student: tuple[Tensor, ...],
    teacher: tuple[Tensor, ...],
    target: Tensor | None = None,  # noqa: ARG001
    *,
    mixed: bool = True,
    ignore_index: int = 255,  # noqa: ARG001
) -> Tensor:
    r"""L_coco: how far the correlation of a shallow and a deep layer differs between student and teacher.

    .. math::
        L_{coco} = \frac{1}{n} \sum_{i=1}^{n} \bigl(\varphi(F^T_i, F^T_{n+i}) - \varphi(F^S_i, F^S_{n+i})\bigr)^2

    Parameters
    ----------
    student, teacher
        ``2 n`` features ``[N, c, h, w]`` each: the n shallow ones, then the n deep ones in the same order. Channels
        may differ everywhere, sizes too: of a pair, the larger is average-pooled to the smaller.
    target
        Not used: the loss needs no labels.
    mixed
        Whether channels are mixed before pixels are compared, as in the paper.
    ignore_index
        Not used.

    Returns
    -------
    Tensor
        Scalar float32 of 0 to 1, and 0 where both correlations agree.

    Raises
    ------
    ConfigurationError
        If the layers do not make pairs, or their numbers or batch sizes differ.

    Notes
    -----
    The paper has no batch index: we take :math:`\varphi` and the square for each image, then the mean over images.
    As :math:`\varphi` is one number in [0, 1] an image, the loss is small beside a cross entropy; raise its weight
    where it does not move.
    """
    students, teachers = as_layers(student, teacher)
    if len(students) % 2 or not students:
        raise ConfigurationError(
            f"Cross-layer correlation compares pairs of layers, a shallow and a deep one, but got {len(students)} "
            "layers. Name an even number: the shallow ones first, then the deep ones."
        )
    pairs = len(students) // 2
    values = []
    for i in range(pairs):
        with torch.no_grad():
            of_teacher = correlation(teachers[i], teachers[pairs + i], mixed)
        of_student = correlation(students[i], students[pairs + i], mixed)
        values.append((of_student - of_teacher).square().mean())
    return torch.stack(values).mean()


def correlation(shallow: Tensor, deep: Tensor, mixed: bool = True) -> Tensor:
    r"""Correlation :math:`\varphi` of the spatial similarity of two layers of one network, for each image.

    With :math:`U` the unit pixels of a layer (:func:`~.spatial_similarity.unit_pixels`), :math:`M = U U^T` and
    :math:`Q = \mathrm{vec}(M)`, eq. 3 is

    .. math::
        \varphi = \frac{\langle Q_1, Q_2 \rangle}{\lVert Q_1 \rVert \, \lVert Q_2 \rVert}
                = \frac{\lVert U_1^T U_2 \rVert_F^2}{\lVert U_1^T U_1 \rVert_F \, \lVert U_2^T U_2 \rVert_F}

    since :math:`\langle U_1 U_1^T, U_2 U_2^T \rangle_F = \lVert U_1^T U_2 \rVert_F^2`. The right side needs memory
    for ``c * c`` numbers instead of ``(hw)^2``; it is linear CKA, uncentred.

    Parameters
    ----------
    shallow, deep
        ``[N, c1, h, w]`` and ``[N, c2, h, w]``; where sizes differ, the larger is average-pooled.
    mixed
        Whether channels are mixed first.

    Returns
    -------
    Tensor
        ``[N]`` in [0, 1], as both M are positive semi-definite; 0 for an image with a feature that is 0 everywhere.
    """
    shallow, deep = pooled_alike(shallow, deep)
    with torch.autocast(shallow.device.type, enabled=False):
        first, second = unit_pixels(shallow, mixed), unit_pixels(deep, mixed)
        norms = _norm(first @ first.mT) * _norm(second @ second.mT)
        return (first @ second.mT).square().sum(dim=(1, 2)) / norms.clamp(min=NO_CORRELATION)


def _norm(matrix: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.matrix_norm(matrix)
    return norm
