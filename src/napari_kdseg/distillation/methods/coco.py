"""CoCo DistillNet: cross-layer correlation, a paraphraser and adversarial distillation (Zou and Sun, BIBM 2021).

Three steps of training: the paraphraser, the critic, then the student with the critic beside it. The variants ``ss``,
``cmss``, ``cocod`` and ``cocod-advd`` are the rows of the paper's Table I.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

from napari_kdseg.distillation.declarations import IMAGE, LOGITS, Recipe, Stage, Term
from napari_kdseg.distillation.distiller import Given, Method
from napari_kdseg.distillation.settings import FeatureSettings
from napari_kdseg.errors import ConfigurationError
from napari_kdseg.settings import setting

LAYERS = ("@shallow", "@deep")
CRITIC_RATE_FACTOR = 0.2
"""The paper trains D with 2e-4; the student's rate of 1e-3 is ours, as the printed 0.03 does not suit Adam."""


class CocoSettings(FeatureSettings):
    """Constants of CoCo DistillNet. Layers: the shallow ones first, then the deep ones in the same order."""

    transfer: Literal["correlation", "cmss", "ss"] = setting(
        "correlation",
        "What is transferred",
        "The correlation of a shallow and a deep layer, or each layer's spatial similarity with channels mixed (cmss) "
        "or not (ss).",
    )
    weight: float = setting(
        1.0,
        "Transfer weight",
        "Weight of the correlation, or of the spatial similarity in its place; the loss is below 1, so raise this "
        "where it does not move.",
        symbol="λ",
        ge=0,
        le=100000,
    )
    adversarial_weight: float = setting(
        0.1,
        "Adversarial weight",
        "Weight of the critic's score in the student's loss; 0 leaves the critic out. At the paper's 0.1 the critic "
        "pulled about a quarter as hard as the labels on tiles of 96 pixels; on larger ones, which have more patches, "
        "it pulls less.",
        symbol="β",
        ge=0,
        le=10000,
    )
    use_paraphraser: bool = setting(
        True,
        "Use the paraphraser",
        "Compare the student with a learned code of the teacher's features; only with the correlation.",
        symbol="P",
    )
    final_activation: bool = setting(
        False,
        "Activation after the paraphraser's last layer",
        "As in the authors' code, which cannot reconstruct negative values well; off makes the last layer linear.",
    )
    condition_on_image: bool = setting(
        True,
        "Show the critic the image",
        "Let the critic see the image beside the output, as the paper says; the authors' code shows the output only.",
    )
    critic_attention: bool = setting(
        True,
        "Self-attention in the critic",
        "Needs much memory on large tiles; off saves it.",
    )
    gradient_penalty: float = setting(
        10.0,
        "Gradient penalty",
        "Keeps the critic smooth; the value is that of the authors' code.",
        ge=0,
        le=10000,
    )
    critic_learning_rate: float = setting(
        2e-4,
        "Critic's learning rate",
        "Of the critic's own Adam beside the student.",
        gt=0,
        le=1,
    )
    paraphraser_epochs_factor: float = setting(
        0.5,
        "Paraphraser's epochs factor",
        "Epochs of the paraphraser relative to the student's. The paper trains all networks equally long (1).",
        gt=0,
        le=100,
    )
    critic_epochs_factor: float = setting(
        0.25,
        "Critic's epochs factor",
        "Epochs of the critic before the student's, relative to them. The paper trains all networks equally long (1).",
        gt=0,
        le=100,
    )
    similarity_side: int = setting(
        32,
        "Side of the similarity map",
        "Features are pooled to this many pixels a side before their spatial similarity is matched; for ss and cmss.",
        ge=1,
        le=128,
    )


def build(settings: CocoSettings, given: Given) -> Recipe:
    """Build the stages of paraphraser and critic, where they are used, and the terms that read them."""
    return _transfer(settings, given) + _adversarial(settings, replace(given, seed=given.seed + 1))


def _transfer(settings: CocoSettings, given: Given) -> Recipe:
    """Build the term on features, and the paraphraser's stage if it reads one."""
    student_taps, teacher_taps = settings.student_layers or LAYERS, settings.teacher_layers or LAYERS
    _check(student_taps, teacher_taps, pairs=settings.transfer == "correlation")
    if not settings.weight:
        return Recipe()
    term = partial(Term, student_taps=student_taps, teacher_taps=teacher_taps, weight=settings.weight)
    if settings.transfer != "correlation":
        from napari_kdseg.distillation.losses.spatial_similarity import spatial_similarity

        mixed = settings.transfer == "cmss"
        similarity = partial(spatial_similarity, mixed=mixed, side=settings.similarity_side)
        return Recipe([term(settings.transfer, similarity)])

    from napari_kdseg.distillation.losses.cross_layer_correlation import cross_layer_correlation

    if not settings.use_paraphraser:
        return Recipe([term("correlation", cross_layer_correlation)])

    from napari_kdseg.distillation.auxiliary.paraphraser import (
        ParaphrasedTeacher,
        ParaphraserStage,
        layers_and_shapes,
        new_paraphrasers,
    )

    layers, features = layers_and_shapes(given.teacher, teacher_taps, given.input_shape)
    _, codes = layers_and_shapes(given.student, student_taps, given.input_shape)
    paraphrasers = new_paraphrasers(
        [shape[1] for shape in features],
        [shape[1] for shape in codes],
        given.seed,
        final_activation=settings.final_activation,
    )
    stage = ParaphraserStage(
        given.teacher, layers, paraphrasers, settings, epochs_factor=settings.paraphraser_epochs_factor
    )
    learned = term(
        "correlation", None, learned=lambda *_: ParaphrasedTeacher(cross_layer_correlation, paraphrasers)
    )
    return Recipe([learned], [stage])


def _check(student: tuple[str, ...], teacher: tuple[str, ...], *, pairs: bool) -> None:
    from napari_kdseg.distillation.losses.pairs import layer_pairs

    layer_pairs(student, teacher)
    if pairs and len(student) % 2:
        raise ConfigurationError(
            f"Cross-layer correlation compares pairs of layers, but there are {len(student)} ({', '.join(student)}). "
            "Name an even number: the shallow ones first, then the deep ones."
        )


def _adversarial(settings: CocoSettings, given: Given) -> Recipe:
    """Build the critic's stage, and the term in which it goes on learning beside the student."""
    if not settings.adversarial_weight:
        return Recipe()
    from napari_kdseg.distillation.auxiliary.critic import AdversarialDistillation, CriticStage, new_critic
    from napari_kdseg.distillation.auxiliary.paraphraser import layers_and_shapes

    _, ((_, classes, *_),) = layers_and_shapes(given.student, (LOGITS,), given.input_shape)
    channels = given.input_shape[0] if settings.condition_on_image else 0
    critic = new_critic(classes, channels, given.seed, attention=settings.critic_attention)
    stages: list[Stage] = [
        CriticStage(
            critic,
            given.teacher,
            given.student,
            settings,
            view=given.view,
            student_view=given.student_view,
            penalty=settings.gradient_penalty,
            seed=given.seed,
            epochs_factor=settings.critic_epochs_factor,
            learning_rate_factor=CRITIC_RATE_FACTOR,
        )
    ]
    term = Term(
        "adversarial",
        None,
        student_taps=(LOGITS, IMAGE) if settings.condition_on_image else (LOGITS,),
        weight=settings.adversarial_weight,
        learned=lambda _student, _teacher, generator: AdversarialDistillation(
            critic,
            generator,
            penalty=settings.gradient_penalty,
            learning_rate=settings.critic_learning_rate,
        ),
    )
    return Recipe([term], stages)


COCO = Method(
    name="coco",
    title="CoCo DistillNet",
    sentence="The student learns how the teacher's shallow and deep layers correlate, and to convince a critic.",
    reference=(
        "Zou and Sun: CoCo DistillNet: a Cross-layer Correlation Distillation Network for Pathological Gastric Cancer "
        "Segmentation. BIBM 2021"
    ),
    equation="L = L_seg + λ (φ(P(F_T¹), P(F_T²)) − φ(F_S¹, F_S²))² − β E[D([Y_S, X])] (eq. 7-10)",
    scale="squared difference of one number in [0, 1], mean over images; the critic's mean score has no bounds",
    settings_class=CocoSettings,
    build=build,
    needs_features=True,
    presets={
        "ss": {"transfer": "ss", "adversarial_weight": 0.0},
        "cmss": {"transfer": "cmss", "adversarial_weight": 0.0},
        "cocod": {"adversarial_weight": 0.0},
        "cocod-advd": {},
        "no-paraphraser": {"use_paraphraser": False},
        "paper": {
            "adversarial_weight": 0.1,
            "dice_weight": 0.0,
            "paraphraser_epochs_factor": 1.0,
            "critic_epochs_factor": 1.0,
        },
    },
)
