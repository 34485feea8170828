"""SKD, structured knowledge distillation: pixel-wise, pair-wise and holistic (Liu et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from napari_kdseg.distillation.declarations import IMAGE, LOGITS, Recipe, Term
from napari_kdseg.distillation.distiller import Given, Method
from napari_kdseg.distillation.settings import FeatureSettings
from napari_kdseg.errors import ConfigurationError
from napari_kdseg.settings import setting

if TYPE_CHECKING:
    import torch
    from torch import nn


class SkdSettings(FeatureSettings):
    """Constants of SKD. A weight of 0 leaves that part out.

    The weights and the gradient penalty are those of the authors' code, the rest is ours: losses are means over all
    pixels of a batch at full size, with more nodes, and the critic reads probabilities and steps by Adam.
    ``skd:authors`` is theirs.
    """

    pixel_weight: float = setting(
        10.0, "Pixel-wise weight", "Weight of the cross entropy with the teacher's map.", ge=0, le=10000
    )
    pair_weight: float = setting(
        0.5,
        "Pair-wise weight",
        "Weight of the similarities between nodes of each pair of layers.",
        symbol="λ1",
        ge=0,
        le=10000,
    )
    holistic_weight: float = setting(
        0.1, "Holistic weight", "Weight of the critic's score.", symbol="λ2", ge=0, le=10000
    )
    pixel_reduction: Literal["pixels", "image"] = setting(
        "pixels",
        "Pixel-wise mean over",
        "All pixels of a batch, or those of one image: then the loss grows with the batch, as in the authors' code.",
    )
    output_stride: int = setting(
        1,
        "Outputs averaged over",
        "Side in pixels of the squares over which outputs are averaged before they are compared and scored; the "
        "authors' networks put out an eighth of the image (8).",
        ge=1,
        le=64,
    )
    nodes: int = setting(
        8, "Nodes a side", "A feature is pooled to this many nodes along each side.", ge=1, le=128
    )
    window: float | None = setting(
        None,
        "Window",
        "Side of the windows a feature is pooled over, in place of a number of nodes: below 1 a share of the map, 0.5 "
        "in the authors' code, from 1 whole pixels. Empty: by the number of nodes.",
        gt=0,
        le=1024,
    )
    constant_norm: bool = setting(
        False,
        "Length of vectors is constant",
        "Leave the nodes' length out of the gradient, as the authors' code does.",
    )
    condition_on_image: bool = setting(
        False,
        "Show the critic the image",
        "Let the critic see the image beside the output, as the paper says; the authors' code shows the output only.",
    )
    critic_attention: bool = setting(
        True,
        "Self-attention in the critic",
        "Needs much memory on large tiles; off saves it.",
    )
    critic_reads: Literal["probabilities", "logits"] = setting(
        "probabilities",
        "What the critic reads",
        "The softmax of the outputs, or, as in the authors' code, logits that the critic's batch normalisation scales.",
    )
    gradient_penalty: float = setting(10.0, "Gradient penalty", "Keeps the critic smooth.", ge=0, le=10000)
    critic_optimiser: Literal["adam", "sgd"] = setting(
        "adam", "Critic's optimiser", "Adam, or the authors' SGD with a momentum of 0.9."
    )
    critic_learning_rate: float = setting(
        2e-4, "Critic's learning rate", "Of the critic's optimiser beside the student.", gt=0, le=1
    )
    critic_weight: float = setting(
        1.0,
        "Weight of the critic's own loss",
        "Scales the critic's steps by SGD, and does nothing to those by Adam; the authors take 0.1.",
        ge=0,
        le=1000,
    )


def build(settings: SkdSettings, given: Given) -> Recipe:
    """Build the terms whose weight is not 0. The critic is not trained before the student."""
    terms: list[Term] = []
    if settings.pixel_weight:
        from napari_kdseg.distillation.losses.pixel_wise import pixel_wise

        pixel = partial(pixel_wise, stride=settings.output_stride, reduction=settings.pixel_reduction)
        terms.append(Term("pixel", pixel, weight=settings.pixel_weight))
    if settings.pair_weight:
        terms += _pair_terms(settings)
    if settings.holistic_weight:
        terms.append(_holistic_term(settings, given.input_shape[0]))
    return Recipe(terms)


def _pair_terms(settings: SkdSettings) -> list[Term]:
    from napari_kdseg.distillation.losses.pair_wise import pair_wise

    student = settings.student_layers or ("@feature",)
    teacher = settings.teacher_layers or ("@feature",)
    if len(student) != len(teacher):
        raise ConfigurationError(
            f"SKD compares layers in pairs, but there are {len(student)} of the student ({', '.join(student)}) and "
            f"{len(teacher)} of the teacher ({', '.join(teacher)}). Name as many of both."
        )
    loss = partial(
        pair_wise, nodes=settings.nodes, window=settings.window, constant_norm=settings.constant_norm
    )
    return [
        Term(
            "pair" if number == 1 else f"pair_{number}",
            loss,
            student_taps=(of_student,),
            teacher_taps=(of_teacher,),
            weight=settings.pair_weight,
        )
        for number, (of_student, of_teacher) in enumerate(zip(student, teacher, strict=True), 1)
    ]


def _holistic_term(settings: SkdSettings, image_channels: int) -> Term:
    """Build the critic's term, without the image by default, as in the authors' code."""

    def learned(
        student: Sequence[torch.Size], _: Sequence[torch.Size], generator: torch.Generator
    ) -> nn.Module:
        import torch

        from napari_kdseg.distillation.auxiliary.critic import AdversarialDistillation, new_critic

        critic = new_critic(
            student[0][1],
            image_channels if settings.condition_on_image else 0,
            int(torch.randint(2**31, (), generator=generator)),
            attention=settings.critic_attention,
            normalise=settings.critic_reads == "logits",
        )
        return AdversarialDistillation(
            critic,
            generator,
            penalty=settings.gradient_penalty,
            learning_rate=settings.critic_learning_rate,
            optimiser=settings.critic_optimiser,
            weight=settings.critic_weight,
            reads=settings.critic_reads,
            stride=settings.output_stride,
        )

    return Term(
        "holistic",
        None,
        student_taps=(LOGITS, IMAGE) if settings.condition_on_image else (LOGITS,),
        weight=settings.holistic_weight,
        learned=learned,
    )


SKD = Method(
    name="skd",
    title="SKD",
    sentence="The student matches the teacher's map pixel by pixel, its similarities in pairs, and convinces a critic.",
    reference=(
        "Liu, Chen, Liu, Qin, Luo and Wang: Structured Knowledge Distillation for Semantic Segmentation. CVPR 2019"
    ),
    equation="L = L_seg + 10 mean_px CE(p_T, p_S) + λ1 mean (A_S − A_T)² − λ2 E[D(Y_S)]",
    scale=(
        "cross entropy: sum over classes, mean over pixels; pairs: mean over pairs of nodes, 0 to 4; the "
        "critic's mean score has no bounds"
    ),
    settings_class=SkdSettings,
    build=build,
    needs_features=True,
    presets={
        "pixel": {"pair_weight": 0.0, "holistic_weight": 0.0},
        "pair": {"pixel_weight": 0.0, "holistic_weight": 0.0},
        "holistic": {"pixel_weight": 0.0, "pair_weight": 0.0},
        "pixel-pair": {"holistic_weight": 0.0},
        "authors": {
            "pixel_reduction": "image",
            "output_stride": 8,
            "window": 0.5,
            "constant_norm": True,
            "critic_reads": "logits",
            "critic_optimiser": "sgd",
            "critic_learning_rate": 4e-4,
            "critic_weight": 0.1,
        },
    },
)
