"""Which names there are, and what each stands for: plain tables that need no torch.

A name alone, such as ``"unet"``, is a network written here after its paper; ``"<architecture>/<encoder>"`` is one of
segmentation-models-pytorch, as in ``"unet/resnet34"``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.networks.close_names import close_matches
from napari_kdseg.networks.foreign.onnx_file import FOREIGN
from napari_kdseg.networks.spec import REVISION, NetworkSpec, is_encoder, is_own_code


@dataclass(frozen=True)
class PaperEntry:
    """A network of :mod:`napari_kdseg.networks.papers`.

    Attributes
    ----------
    module, class_name
        Where it is: the module inside ``papers``, and its class, which takes ``in_channels``, ``classes`` and, by
        name, options that are true or false.
    multiple
        The number that image height and width must be a multiple of.
    first
        Options that make it what it was in revision 1.
    """

    module: str
    class_name: str
    multiple: int
    first: dict[str, bool] = field(default_factory=dict)


PAPERS = {
    "enet": PaperEntry("enet", "ENet", 8, first={"upsampling_activation": True}),
    "enet-emkd": PaperEntry("enet_emkd", "ENetEMKD", 8),
    "erfnet": PaperEntry("erfnet", "ERFNet", 8),
    "espnet": PaperEntry("espnet", "ESPNet", 8),
    "fanet": PaperEntry("fanet", "FANet", 8, first={"smooth_grids": True}),
    "mobile-unet": PaperEntry("mobile_unet", "MobileUNet", 32),
    "mobilenetv2": PaperEntry("mobilenetv2", "MobileNetV2", 8),
    "raunet": PaperEntry("raunet", "RAUNet", 32),
    "resnet18": PaperEntry("resnet18", "ResNet18", 32),
    "transunet": PaperEntry("transunet", "TransUNet", 16),
    "unet": PaperEntry("unet", "UNet", 16),
    "unetplusplus": PaperEntry("unetplusplus", "UNetPlusPlus", 16),
}
# Architecture of segmentation-models-pytorch -> the same multiple, with its options as they come.
LIBRARY = {
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
# The sides of the smallest image, where that is more than the multiple: PAN halves its deepest map three times.
SMALLEST = {"pan": 128}
_ALIASES = {"unetpp": "unetplusplus", "deeplabv3p": "deeplabv3plus"}


def split_name(name: str) -> tuple[str, str | None]:
    """Split a name into architecture and encoder, forgiving case, hyphens and plus signs.

    Parameters
    ----------
    name
        ``"enet"``, ``"unet/resnet34"``, ``"U-Net++ / ResNet34"``.

    Returns
    -------
    architecture, encoder
        A key of ``PAPERS`` and None; or a key of ``LIBRARY`` and the encoder in lower case.

    Raises
    ------
    ConfigurationError
        If there is no such architecture, or an encoder is missing or too many.
    """
    head, slash, encoder = name.strip().lower().partition("/")
    squashed = re.sub(r"[^a-z0-9]", "", head.replace("+", "p"))
    squashed = _ALIASES.get(squashed, squashed)
    encoder = encoder.strip()
    paper = {key.replace("-", ""): key for key in PAPERS}.get(squashed)
    if paper and not slash:
        return paper, None
    if squashed in LIBRARY:
        if not encoder:
            raise ConfigurationError(
                f"{name!r} names no encoder. Write architecture/encoder, for example {squashed}/resnet18."
            )
        return squashed, encoder
    if paper:
        raise ConfigurationError(
            f"{paper} has no choice of encoder, but {name!r} names one. Write {paper} alone."
        )
    raise ConfigurationError(
        f"There is no network called {name!r}. {close_matches(squashed, [*PAPERS, *LIBRARY])}Known by themselves are "
        f"{', '.join(PAPERS)}; with an encoder, as in unet/resnet18, are {', '.join(LIBRARY)}. "
        "A network of your own is python:package.module:Class, an encoder foundation/uni."
    )


def arguments(spec: NetworkSpec) -> dict[str, Any]:
    """Options that the network of ``spec`` is built with: those named, and those that its revision stands for."""
    name = spec.architecture
    if spec.revision == REVISION or is_own_code(name) or is_encoder(name):
        return spec.options
    known, encoder = split_name(name)
    return {**PAPERS[known].first, **spec.options} if encoder is None else spec.options


def input_multiple(architecture: str | NetworkSpec) -> int:
    """Give the number of pixels that height and width of an input must be a multiple of.

    Parameters
    ----------
    architecture
        A name, or a spec, whose options are then taken into account.

    Returns
    -------
    int
        Pixels.

    Notes
    -----
    A network of somebody's own that does not say is taken to want 32, which suits all that halve five times or less.

    Raises
    ------
    ConfigurationError
        If there is no such architecture.
    """
    spec = architecture if isinstance(architecture, NetworkSpec) else None
    name = spec.architecture if spec else str(architecture)
    if spec and spec.multiple:
        return spec.multiple
    if spec and name == FOREIGN:
        return int(spec.options.get("multiple", _COARSEST))
    if is_own_code(name):
        return _COARSEST
    if is_encoder(name):
        from napari_kdseg.networks.foreign.foundation import patch_size

        return patch_size(name, spec.options if spec else {})
    known, encoder = split_name(name)
    if encoder is None:
        return PAPERS[known].multiple
    multiple = LIBRARY[known]
    if spec and {"encoder_depth", "encoder_output_stride"} & set(spec.options):
        return max(multiple, _COARSEST)
    return multiple


def smallest_input(spec: NetworkSpec) -> int:
    """Side in pixels of the smallest image that a network takes."""
    architecture = spec.architecture.partition("/")[0]
    return max(input_multiple(spec), SMALLEST.get(architecture, 1))
