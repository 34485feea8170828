"""Adversarial distillation: a critic scores outputs, WGAN-GP fashion (CoCo DistillNet, BIBM 2021, eq. 8 to 10).

Also the holistic part of SKD (Liu et al., CVPR 2019). Gradient penalty: Gulrajani et al., NeurIPS 2017, eq. 3.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def critic_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""What the critic minimises: :math:`E[D(S)] - E[D(T)]`, from the scores ``[N]`` of both.

    Notes
    -----
    The paper trains D "by" :math:`L_{ad} = E[D(T)] - E[D(S)]` and calls it to be minimised. A critic that tells
    both apart must maximise it, so we take :math:`-L_{ad}`. This agrees with eq. 10, where the student raises
    :math:`E[D(S)]`.
    """
    return student.float().mean() - teacher.float().mean()


def student_loss(student: Tensor) -> Tensor:
    r"""What the student minimises: :math:`-L_g = -E[D(S)]`, from the critic's scores ``[N]`` of its outputs.

    Notes
    -----
    The score of an image is the *mean* of its patch scores, as in the code of SKD, IFVD and CoCo's authors, while the
    penalty below bounds the slope of their *sum*. So the more patches a tile has, the gentler is the critic's pull on
    the student: with ``P`` patches the slope of the score is near ``1 / P``, and a weight chosen on small tiles does
    less on large ones.
    """
    return -student.float().mean()


def gradient_penalty(
    critic: Callable[[Tensor, Tensor | None], Tensor],
    student: Tensor,
    teacher: Tensor,
    image: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Penalty on a critic that is not 1-Lipschitz: mean over images of :math:`(\lVert \nabla_Y D \rVert_2 - 1)^2`.

    Parameters
    ----------
    critic
        ``critic(output, image) -> [N, ...]``, the scores of all patches of each image; :math:`D` is their sum.
    student, teacher
        Outputs ``[N, C, H, W]``; the gradient is taken at a random point between the two of each image.
    image
        ``[N, D, H, W]`` the critic is conditioned on, or ``None``.
    generator
        CPU generator the points are drawn with.

    Returns
    -------
    Tensor
        Scalar, at least 0; its gradient reaches the critic's parameters only.

    Notes
    -----
    - *Sum over patches.* SKD's and IFVD's code differentiates the map of patch scores with a gradient of ones, which is
      the gradient of its sum. The mean would let a critic of P patches be P times as steep.
    - The paper of CoCo names no Lipschitz constraint; its authors' code takes this one. Only the output is
      interpolated, the condition is one image for both.
    """
    share = torch.rand(len(student), 1, 1, 1, generator=generator).to(student)
    between = torch.lerp(student.detach(), teacher.detach(), share).requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(critic(between, image).sum(), between, create_graph=True)
    steepness: Tensor = torch.linalg.vector_norm(slope.flatten(1), dim=1)
    return (steepness - 1.0).square().mean()
