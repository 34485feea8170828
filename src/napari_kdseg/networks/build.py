"""Names -> torch modules that map an image [N, C_in, H, W] to logits [N, C, H, W]. Nothing is ever downloaded."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from typing import Any

from torch import nn

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.networks.catalogue import PAPERS, arguments, split_name
from napari_kdseg.networks.foreign.foundation import encoder_of
from napari_kdseg.networks.foreign.token_grid import create_encoder
from napari_kdseg.networks.foreign.user_module import create_own
from napari_kdseg.networks.spec import IGNORE_INDEX, NetworkSpec, is_encoder, is_own_code


def create(name: str, in_channels: int = 3, classes: int = 2, **options: Any) -> nn.Module:
    """Build a network with random weights.

    Parameters
    ----------
    name
        A network of the papers, such as ``"enet"``, ``"unet"`` or ``"transunet"``; or
        ``"<architecture>/<encoder>"`` in the names of segmentation-models-pytorch, such as
        ``"unet/resnet34"``, ``"segformer/mit_b0"`` or ``"unet/tu-convnext_tiny"`` (``tu-`` is any encoder of timm).
        Case and hyphens do not matter. ``"python:mypackage.models:MyNet"`` is somebody's own network
        (:func:`~napari_kdseg.networks.foreign.user_module.create_own`), once :func:`~napari_kdseg.networks.allow_code`
        was called for it. ``"foundation/uni"`` is an encoder: it puts out features ``[N, D, h, w]``, whatever the
        classes.
    in_channels
        Channels of the image.
    classes
        Number of classes, background included.
    **options
        Further settings of the architecture, for example ``decoder_channels=(128, 64, 32, 16, 8)`` or, of
        ``"resnet18"``, ``align_corners=True``.

    Returns
    -------
    torch.nn.Module
        In training mode, on the CPU. Forward: float ``[N, in_channels, H, W]`` -> logits ``[N, classes, H, W]``;
        H and W are multiples of :func:`napari_kdseg.networks.input_multiple`.

    Raises
    ------
    ConfigurationError
        If the name or an option is unknown, or they do not go together.
    """
    name = name.strip()
    if is_encoder(name):
        return create_encoder(encoder_of(name), in_channels, options)
    own = is_own_code(name)
    architecture, encoder = (name, None) if own else split_name(name)
    if in_channels < 1 or not 2 <= classes <= IGNORE_INDEX:
        raise ConfigurationError(
            f"A network needs at least 1 channel and 2 to {IGNORE_INDEX} classes (background is one of them), "
            f"but {in_channels} and {classes} were asked for."
        )
    if own:
        return create_own(name, in_channels, classes, options)
    if encoder is None:
        return _create_paper(architecture, in_channels, classes, options)
    from napari_kdseg.networks.libraries import create_smp, find_encoder  # seconds

    return create_smp(architecture, find_encoder(encoder), in_channels, classes, options)


def _create_paper(name: str, in_channels: int, classes: int, options: dict[str, Any]) -> nn.Module:
    entry = PAPERS[name]
    network = getattr(import_module(f"napari_kdseg.networks.papers.{entry.module}"), entry.class_name)
    _, _, *known = signature(network).parameters
    for option, value in options.items():
        if option not in known:
            has = f"only {' and '.join(known)}" if known else "no options"
            raise ConfigurationError(f"{name} has {has}, but {option} was given. Leave it out.")
        if not isinstance(value, bool):
            raise ConfigurationError(f"{option} of {name} is true or false, not {value!r}.")
    return network(in_channels, classes, **options)


def canonical_name(name: str) -> str:
    """Spell a name as the libraries do, ``"U-Net / ResNet-18"`` as ``"unet/resnet18"``; errors as :func:`create`."""
    if is_own_code(name):
        return name.strip()
    if is_encoder(name):
        encoder_of(name)
        return name.strip().lower()
    architecture, encoder = split_name(name)
    if encoder is None:
        return architecture
    from napari_kdseg.networks.libraries import find_encoder

    return f"{architecture}/{find_encoder(encoder)}"


def create_from(spec: NetworkSpec) -> nn.Module:
    """Build the network that ``spec`` describes, with random weights; see :func:`create`."""
    return create(spec.architecture, spec.in_channels, len(spec.classes), **arguments(spec))
