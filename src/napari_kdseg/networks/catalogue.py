"""Which networks there are, for listings and name checks: a plain table that needs no torch.

``"enet"`` is written here after its paper; every other name is ``"<architecture>/<encoder>"`` of
segmentation-models-pytorch, whose sizes differ from those printed in papers for PSPNet and DeepLabV3+.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.networks.onnx_file import FOREIGN
from napari_kdseg.networks.spec import NetworkSpec

# Architecture -> the number that image height and width must be a multiple of, with its options as they come.
ARCHITECTURES = {
    "enet": 8,
    "unet": 32,
    "unetplusplus": 32,
    "manet": 32,
    "linknet": 32,
    "fpn": 32,
    "pspnet": 8,
    "deeplabv3": 8,
    "deeplabv3plus": 16,
    "pan": 16,
    "upernet": 32,
    "segformer": 32,
    "dpt": 32,
}
_COARSEST = 32
_ALIASES = {"unetpp": "unetplusplus", "deeplabv3p": "deeplabv3plus"}


@dataclass(frozen=True)
class NetworkChoice:
    """One recommended network.

    Attributes
    ----------
    name
        As :func:`napari_kdseg.networks.create` takes it.
    role
        What its size suits it for.
    parameters
        With three channels and two classes.
    description
        A short sentence for the choice in the window.
    """

    name: str
    role: Literal["teacher", "student"]
    parameters: int
    description: str


_CHOICES = (
    NetworkChoice(
        "enet", "student", 349_212, "Very small and fast; the student of CoCo DistillNet and EMKD."
    ),
    NetworkChoice("segformer/mit_b0", "student", 3_714_658, "Small transformer that sees wide context."),
    NetworkChoice(
        "deeplabv3plus/mobilenet_v2", "student", 4_378_770, "Small, with context from dilated convolutions."
    ),
    NetworkChoice("unet/mobilenet_v2", "student", 6_629_090, "U-Net on an encoder made for phones."),
    NetworkChoice("unet/resnet18", "student", 14_328_354, "Plain U-Net, the largest of the students."),
    NetworkChoice(
        "pspnet/resnet50", "teacher", 24_305_602, "Context from pooling; half the size of EMKD's PSPNet."
    ),
    NetworkChoice("unet/resnet34", "teacher", 24_436_514, "Plain U-Net, a safe first choice."),
    NetworkChoice("segformer/mit_b2", "teacher", 24_722_626, "Transformer that sees wide context."),
    NetworkChoice("unetplusplus/resnet34", "teacher", 26_078_754, "Nested U-Net for fine contours; slow."),
    NetworkChoice(
        "deeplabv3plus/resnet50", "teacher", 26_677_842, "Wide context; half the size of EMKD's DeepLabV3+."
    ),
    NetworkChoice(
        "upernet/tu-convnext_tiny", "teacher", 37_044_130, "Modern convolutions, the largest listed here."
    ),
)


def names() -> tuple[NetworkChoice, ...]:
    """List the recommended networks, students first, each kind from small to large.

    Any other pair of an architecture and an encoder of segmentation-models-pytorch may be named as well.

    Returns
    -------
    tuple of NetworkChoice
    """
    return _CHOICES


def split_name(name: str) -> tuple[str, str | None]:
    """Split a name into architecture and encoder, forgiving case, hyphens and plus signs.

    Parameters
    ----------
    name
        ``"enet"``, ``"unet/resnet34"``, ``"U-Net++ / ResNet34"``.

    Returns
    -------
    architecture, encoder
        A key of ``ARCHITECTURES`` and the encoder in lower case, None for a network that has no choice of encoder.

    Raises
    ------
    ConfigurationError
        If there is no such architecture, or an encoder is missing or too many.
    """
    head, slash, encoder = name.strip().lower().partition("/")
    squashed = re.sub(r"[^a-z0-9]", "", head.replace("+", "p"))
    architecture = _ALIASES.get(squashed, squashed)
    encoder = encoder.strip()
    if architecture not in ARCHITECTURES:
        close = close_matches(architecture, ARCHITECTURES)
        raise ConfigurationError(
            f"There is no network called {name!r}. {close}Known are {', '.join(ARCHITECTURES)}; "
            "all but enet take an encoder, for example unet/resnet18."
        )
    if architecture == "enet":
        if slash:
            raise ConfigurationError(
                f"ENet has no choice of encoder, but {name!r} names one. Write enet alone."
            )
        return architecture, None
    if not encoder:
        raise ConfigurationError(
            f"{name!r} names no encoder. Write architecture/encoder, for example {architecture}/resnet18."
        )
    return architecture, encoder


def close_matches(word: str, known: Iterable[str]) -> str:
    """Offer up to three names that ``word`` may have meant, as a sentence ending in a space; empty if none is near."""
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(near)}? " if near else ""


def input_multiple(architecture: str | NetworkSpec) -> int:
    """Give the number of pixels that height and width of an input must be a multiple of.

    Parameters
    ----------
    architecture
        A name, or a spec, whose options are then taken into account.

    Returns
    -------
    int
        Pixels. Use :func:`napari_kdseg.networks.predict_logits` for images of any size.

    Raises
    ------
    ConfigurationError
        If there is no such architecture.
    """
    spec = architecture if isinstance(architecture, NetworkSpec) else None
    if spec and spec.architecture == FOREIGN:
        return int(spec.options.get("multiple", _COARSEST))
    multiple = ARCHITECTURES[split_name(spec.architecture if spec else str(architecture))[0]]
    if spec and {"encoder_depth", "encoder_output_stride"} & set(spec.options):
        return max(multiple, _COARSEST)
    return multiple
