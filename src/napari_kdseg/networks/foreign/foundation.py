"""Pathology foundation encoders as teachers of features: a ViT's tokens as a map ``[N, D, h, w]``.

``foundation/uni`` and the others below are built as their authors describe them; ``foundation/<name>`` is any vision
transformer of timm, with options. Weights come from a file on this computer, nothing is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.networks.close_names import close_matches
from napari_kdseg.networks.spec import ENCODER, IMAGENET_MEAN, IMAGENET_STD

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
_SWIGLU = "swiglu"
"""Stands for timm's packed SwiGLU with SiLU, so that the table needs no torch."""


@dataclass(frozen=True)
class Encoder:
    """A foundation encoder.

    Attributes
    ----------
    model
        Its architecture in timm.
    arguments
        In which it differs from that.
    title
        Who made it, for listings.
    parameters
        With its published depth and width.
    input_size
        Side of the images it was trained on, in pixels.
    mpp
        Micrometres a pixel of these images.
    mean, std
        Statistics it was trained with.
    """

    model: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    parameters: int = 0
    input_size: int = 224
    mpp: float | None = 0.5
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


_GIANT = {"embed_dim": 1536, "num_heads": 24, "mlp_ratio": 2.66667 * 2, "mlp": _SWIGLU, "init_values": 1e-5}
_VIRCHOW = {"mlp_ratio": 5.3375, "mlp": _SWIGLU, "init_values": 1e-5}
ENCODERS: dict[str, Encoder] = {
    "uni": Encoder("vit_large_patch16_224", {"init_values": 1e-5}, "UNI (Chen et al. 2024)", 303_350_784),
    "uni2-h": Encoder(
        "vit_giant_patch14_224",
        {**_GIANT, "depth": 24, "reg_tokens": 8, "no_embed_class": True},
        "UNI 2-h (Mahmood Lab 2025)",
        681_394_176,
    ),
    "virchow": Encoder("vit_huge_patch14_224", _VIRCHOW, "Virchow (Vorontsov et al. 2024)", 631_229_184),
    "virchow2": Encoder(
        "vit_huge_patch14_224",
        {**_VIRCHOW, "reg_tokens": 4},
        "Virchow 2 (Zimmermann et al. 2024)",
        631_239_424,
    ),
    "h-optimus-0": Encoder(
        "vit_giant_patch14_reg4_dinov2",
        {"img_size": 224},
        "H-optimus-0 (Saillard et al. 2024)",
        1_134_774_272,
        mean=(0.707223, 0.578729, 0.703617),
        std=(0.211883, 0.230117, 0.177517),
    ),
    "gigapath": Encoder(
        "vit_giant_patch14_dinov2",
        {"img_size": 224, "patch_size": 16},
        "Tile encoder of Prov-GigaPath (Xu et al. 2024)",
        1_134_953_984,
    ),
    "phikon": Encoder("vit_base_patch16_224", {}, "Phikon (Filiot et al. 2023)", 85_798_656),
    "conch": Encoder(
        "vit_base_patch16_224",
        {"img_size": 448, "init_values": 1.0},
        "Image encoder of CONCH (Lu et al. 2024)",
        86_268_672,
        input_size=448,
        mean=OPENAI_MEAN,
        std=OPENAI_STD,
    ),
}


def encoder_of(name: str) -> Encoder:
    """Find an encoder by its name, with or without ``foundation/``.

    Raises
    ------
    ConfigurationError
        If there is none of that name, here or among the vision transformers of timm.
    """
    short = name.strip().lower().removeprefix(ENCODER)
    if short in ENCODERS:
        return ENCODERS[short]
    import timm

    known = timm.list_models("*vit*")
    if short not in known:
        near = close_matches(short, [*ENCODERS, *known])
        raise ConfigurationError(
            f"There is no foundation encoder called {short!r}. {near}Known are {', '.join(ENCODERS)}, and the vision "
            "transformers of timm, such as foundation/vit_base_patch16_224."
        )
    settings = timm.get_pretrained_cfg(short)
    given = {} if settings is None else {"mean": settings.mean, "std": settings.std}
    side = 224 if settings is None else settings.input_size[-1]
    return Encoder(short, input_size=side, mpp=None, **given)


def patch_size(name: str, options: Mapping[str, Any]) -> int:
    """Side in pixels of the patches of an encoder: what sides of an image must be a multiple of."""
    encoder = encoder_of(name)
    written = re.search(r"patch(\d+)", encoder.model)
    usual = int(written[1]) if written else 16
    return int({**encoder.arguments, **options}.get("patch_size", usual))
