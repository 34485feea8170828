"""CIRKD: relations of pixels across images (Yang et al., CVPR 2022).

Plain distillation, pixel relations within the batch, and relations to the teacher's remembered pixels and regions.
The authors' present code has relations of channels besides, of a later paper.
The variants have plain distillation and one of the three, as rows of the paper's ablation do.
"""

from __future__ import annotations

from functools import partial

from napari_kdseg.distillation.declarations import LOGITS, Recipe, Term
from napari_kdseg.distillation.distiller import Given, Method
from napari_kdseg.distillation.settings import FeatureSettings
from napari_kdseg.errors import ConfigurationError
from napari_kdseg.settings import setting


class CirkdSettings(FeatureSettings):
    """Constants of CIRKD, as the authors' code has them for Cityscapes. A weight of 0 leaves that part out."""

    kd_weight: float = setting(
        1.0,
        "Weight of plain distillation",
        "Weight of the loss on the output maps.",
        symbol="λ",
        ge=0,
        le=10000,
    )
    kd_temperature: float = setting(
        1.0,
        "Temperature of plain distillation",
        "Softens both output maps before they are compared; 1 leaves them as they are.",
        symbol="T",
        gt=0,
        le=100,
    )
    mini_batch_weight: float = setting(
        1.0,
        "Weight of relations in the batch",
        "Weight of the loss on how alike the pixels of the batch's images are.",
        symbol="α",
        ge=0,
        le=10000,
    )
    memory_pixel_weight: float = setting(
        0.1,
        "Weight of remembered pixels",
        "Weight of the loss on how alike pixels are to remembered ones; 0.01 suits some data better.",
        symbol="β",
        ge=0,
        le=10000,
    )
    memory_region_weight: float = setting(
        0.1,
        "Weight of remembered regions",
        "Weight of the loss on how alike pixels are to remembered regions; 0.01 suits some data better.",
        symbol="γ",
        ge=0,
        le=10000,
    )
    similarity_temperature: float = setting(
        0.1,
        "Temperature of similarities",
        "Divides cosine similarities before they become a distribution; smaller looks at the most similar only.",
        symbol="τ",
        gt=0,
        le=100,
    )
    nodes: int = setting(
        1024,
        "Nodes of an image",
        "How many embeddings of an image are related in the batch; larger maps are averaged. Bounds the memory. The "
        "default is ours.",
        ge=1,
        le=2**16,
    )
    anchors: int = setting(
        1024,
        "Pixels of an image compared with the memory",
        "How many pixels of an image are compared with remembered ones; more are drawn from. The default is ours.",
        ge=1,
        le=2**20,
    )
    pixel_queue_length: int = setting(
        20000,
        "Remembered pixels",
        "How many pixels are remembered for each class.",
        symbol="N_p",
        ge=1,
        le=2**20,
    )
    region_queue_length: int = setting(
        2000,
        "Remembered regions",
        "How many regions are remembered for each class.",
        symbol="N_r",
        ge=1,
        le=2**20,
    )
    pixels_per_image: int = setting(
        16,
        "Pixels remembered of an image",
        "How many pixels of each class are remembered from one image.",
        symbol="V",
        ge=1,
        le=2**20,
    )
    sampled_pixels: int = setting(
        4096,
        "Remembered pixels compared with",
        "How many remembered pixels, of all classes together, each step compares with.",
        symbol="K_p",
        ge=1,
        le=2**20,
    )
    sampled_regions: int = setting(
        1024,
        "Remembered regions compared with",
        "How many remembered regions, of all classes together, each step compares with.",
        symbol="K_r",
        ge=1,
        le=2**20,
    )


def build(settings: CirkdSettings, _: Given) -> Recipe:
    """Build a term for each of the four parts that has a weight."""
    from napari_kdseg.distillation.losses.cirkd_memory import MemoryContrast
    from napari_kdseg.distillation.losses.cirkd_mini_batch import cirkd_mini_batch
    from napari_kdseg.distillation.losses.knowledge_distillation import kd

    student, teacher = settings.student_layers or ("@feature",), settings.teacher_layers or ("@feature",)
    if len(student) != 1 or len(teacher) != 1:
        raise ConfigurationError(
            f"CIRKD compares one layer of each network, but there are {len(student)} of the student and "
            f"{len(teacher)} of the teacher. Name one of each, or none."
        )
    mini_batch = partial(cirkd_mini_batch, temperature=settings.similarity_temperature, nodes=settings.nodes)
    memory = partial(
        MemoryContrast,
        pixels_per_image=settings.pixels_per_image,
        anchors=settings.anchors,
        temperature=settings.similarity_temperature,
    )
    pixels = partial(
        memory, kind="pixel", queue_length=settings.pixel_queue_length, samples=settings.sampled_pixels
    )
    regions = partial(
        memory, kind="region", queue_length=settings.region_queue_length, samples=settings.sampled_regions
    )
    remembered = (*teacher, LOGITS)  # the logits tell the number of classes
    terms = (
        Term("kd", partial(kd, temperature=settings.kd_temperature), weight=settings.kd_weight),
        Term("mini_batch", mini_batch, student, teacher, weight=settings.mini_batch_weight),
        Term("memory_pixel", None, student, remembered, settings.memory_pixel_weight, learned=pixels),
        Term("memory_region", None, student, remembered, settings.memory_region_weight, learned=regions),
    )
    return Recipe([term for term in terms if term.weight])


def caution(classes: int, batch_size: int) -> list[str]:  # noqa: ARG001
    """Say what one image a batch cannot teach."""
    if batch_size > 1:
        return []
    return [
        "With one image a batch, CIRKD's relations in the batch are those within one image: nothing is compared "
        "across images but with the memory. Use a batch of two or more."
    ]


def _only(part: str) -> dict[str, float]:
    parts = ("mini_batch_weight", "memory_pixel_weight", "memory_region_weight")
    return {weight: 0.0 for weight in parts if weight != part}


CIRKD = Method(
    name="cirkd",
    title="CIRKD",
    sentence="The student learns how the teacher relates pixels to those of other images, past ones included.",
    reference=(
        "Yang, Zhou, An, Jiang, Xu and Zhang: Cross-Image Relational Knowledge Distillation for Semantic "
        "Segmentation. CVPR 2022"
    ),
    equation="λ KL(p_T ‖ p_S) + α/N² Σ_ij KL(rel_T(i,j) ‖ rel_S(i,j)) + β KL to remembered pixels + γ KL to "
    "remembered regions,  rel = softmax(U_i U_jᵀ/τ)",
    scale="KL: sum over what a pixel is compared with, mean over pixels and over pairs of images",
    settings_class=CirkdSettings,
    build=build,
    presets={
        "mini-batch": _only("mini_batch_weight"),
        "memory-pixel": _only("memory_pixel_weight"),
        "memory-region": _only("memory_region_weight"),
    },
    needs_labels=True,
    needs_features=True,
    caution=caution,
)
