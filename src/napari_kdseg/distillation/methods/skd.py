"""SKD, structured knowledge distillation: pixel-wise, pair-wise and holistic (Liu et al., CVPR 2019)."""

from __future__ import annotations

from functools import partial
from typing import Any

from napari_kdseg.distillation.distiller import IMAGE, LOGITS, Method, Recipe, Term
from napari_kdseg.distillation.settings import FeatureSettings, constant
from napari_kdseg.errors import ConfigurationError


class SkdSettings(FeatureSettings):
    """Constants of SKD, as in its authors' code. A weight of 0 leaves that part out."""

    pixel_weight: float = constant(
        10.0, "Pixel-wise weight", "Weight of the cross entropy with the teacher's map.", ge=0, le=10000
    )
    pair_weight: float = constant(
        0.5,
        "Pair-wise weight",
        "Weight of the similarities between nodes of each pair of layers.",
        symbol="λ1",
        ge=0,
        le=10000,
    )
    holistic_weight: float = constant(
        0.1, "Holistic weight", "Weight of the critic's score.", symbol="λ2", ge=0, le=10000
    )
    nodes: int = constant(
        8, "Nodes a side", "A feature is pooled to this many nodes along each side.", ge=1, le=128
    )
    condition_on_image: bool = constant(
        False,
        "Show the critic the image",
        "Let the critic see the image beside the output, as the paper says; the authors' code shows the output only.",
    )
    critic_attention: bool = constant(
        True,
        "Self-attention in the critic",
        "Needs much memory on large tiles; off saves it.",
    )
    gradient_penalty: float = constant(10.0, "Gradient penalty", "Keeps the critic smooth.", ge=0, le=10000)
    critic_learning_rate: float = constant(
        2e-4, "Critic's learning rate", "Of the critic's own Adam beside the student.", gt=0, le=1
    )


def build(settings: SkdSettings, *, input_shape: tuple[int, int, int] = (3, 64, 64), **_: Any) -> Recipe:
    """Build the terms whose weight is not 0. The critic is not trained before the student."""
    terms: list[Term] = []
    if settings.pixel_weight:
        from napari_kdseg.distillation.losses.pixel_wise import pixel_wise

        terms.append(Term("pixel", pixel_wise, weight=settings.pixel_weight))
    if settings.pair_weight:
        terms += _pair_terms(settings)
    if settings.holistic_weight:
        terms.append(_holistic_term(settings, input_shape[0]))
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
    loss = partial(pair_wise, nodes=settings.nodes)
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
    """Build the critic's term: of probabilities, without the image by default, as the authors' code reads them."""

    def learned(student: Any, teacher: Any, generator: Any) -> Any:  # noqa: ARG001
        import torch

        from napari_kdseg.distillation.critic import AdversarialDistillation, new_critic

        critic = new_critic(
            student[0][1],
            image_channels if settings.condition_on_image else 0,
            int(torch.randint(2**31, (), generator=generator)),
            attention=settings.critic_attention,
        )
        return AdversarialDistillation(
            critic,
            generator,
            penalty=settings.gradient_penalty,
            learning_rate=settings.critic_learning_rate,
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
    settings_class=SkdSettings,
    build=build,
    needs_features=True,
    presets={
        "pixel": {"pair_weight": 0.0, "holistic_weight": 0.0},
        "pair": {"pixel_weight": 0.0, "holistic_weight": 0.0},
        "holistic": {"pixel_weight": 0.0, "pair_weight": 0.0},
        "pixel-pair": {"holistic_weight": 0.0},
    },
)
