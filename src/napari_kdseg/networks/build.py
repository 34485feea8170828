"""Names -> torch modules that map an image [N, C_in, H, W] to logits [N, C, H, W]. Nothing is ever downloaded."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import segmentation_models_pytorch as smp
import timm
from torch import nn

from napari_kdseg.errors import ConfigurationError, is_out_of_memory
from napari_kdseg.networks.catalogue import PAPERS, close_matches, split_name
from napari_kdseg.networks.foundation import encoder_of
from napari_kdseg.networks.single_image import allow_single_images
from napari_kdseg.networks.spec import ENCODER, IGNORE_INDEX, OWN_CODE, NetworkSpec
from napari_kdseg.networks.token_grid import create_encoder
from napari_kdseg.networks.user_module import create_own

# The first four would change what the network returns or what it is; the others make timm fetch or open files.
_NOT_OPTIONS = {
    "activation": "networks return logits",
    "aux_params": "networks return one map of logits",
    "in_channels": "it is its own argument",
    "classes": "it is its own argument",
    "encoder_name": "it is part of the name",
    "encoder_weights": "weights come from checkpoints only, nothing is downloaded",
    "pretrained": "weights come from checkpoints only, nothing is downloaded",
    "pretrained_cfg": "weights come from checkpoints only, nothing is downloaded",
    "pretrained_cfg_overlay": "weights come from checkpoints only, nothing is downloaded",
    "checkpoint_path": "weights come from checkpoints only",
    "cache_dir": "weights come from checkpoints only",
}


def create(name: str, in_channels: int = 3, classes: int = 2, **options: Any) -> nn.Module:
    """Build a network with random weights.

    Parameters
    ----------
    name
        A network of the papers, such as ``"enet"``, ``"unet"`` or ``"transunet"``; or
        ``"<architecture>/<encoder>"`` in the names of segmentation-models-pytorch, such as
        ``"unet/resnet34"``, ``"segformer/mit_b0"`` or ``"unet/tu-convnext_tiny"`` (``tu-`` is any encoder of timm).
        Case and hyphens do not matter. ``"python:mypackage.models:MyNet"`` is somebody's own network
        (:func:`~napari_kdseg.networks.user_module.create_own`), once :func:`napari_kdseg.networks.allow_code` was
        called for it. ``"foundation/uni"`` is an encoder: it puts out features ``[N, D, h, w]``, whatever the classes.
    in_channels
        Channels of the image.
    classes
        Number of classes, background included.
    **options
        Further settings of the architecture, for example ``decoder_channels=(128, 64, 32, 16, 8)``.

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
    if name.lower().startswith(ENCODER):
        return create_encoder(encoder_of(name), in_channels, options)
    own = name.startswith(OWN_CODE)
    architecture, encoder = (name, None) if own else split_name(name)
    if in_channels < 1 or not 2 <= classes <= IGNORE_INDEX:
        raise ConfigurationError(
            f"A network needs at least 1 channel and 2 to {IGNORE_INDEX} classes (background is one of them), "
            f"but {in_channels} and {classes} were asked for."
        )
    if own:
        return create_own(name, in_channels, classes, options)
    for option in sorted(set(options) & set(_NOT_OPTIONS)):
        raise ConfigurationError(
            f"{option!r} cannot be set for {name}: {_NOT_OPTIONS[option]}. Leave it out."
        )
    if encoder is None:
        return _create_paper(architecture, in_channels, classes, options)
    return _create_smp(architecture, find_encoder(encoder), in_channels, classes, options)


def _create_paper(name: str, in_channels: int, classes: int, options: dict[str, Any]) -> nn.Module:
    if options:
        raise ConfigurationError(
            f"{name} has no options, but {', '.join(sorted(options))} was given. Leave it out."
        )
    entry = PAPERS[name]
    network = getattr(import_module(f"napari_kdseg.networks.papers.{entry.module}"), entry.class_name)
    return network(in_channels, classes)


def canonical_name(name: str) -> str:
    """Spell a name as the libraries do, ``"U-Net / ResNet-18"`` as ``"unet/resnet18"``; errors as :func:`create`."""
    if name.strip().startswith(OWN_CODE):
        return name.strip()
    if name.strip().lower().startswith(ENCODER):
        encoder_of(name)
        return name.strip().lower()
    architecture, encoder = split_name(name)
    return architecture if encoder is None else f"{architecture}/{find_encoder(encoder)}"


def create_from(spec: NetworkSpec) -> nn.Module:
    """Build the network that ``spec`` describes, with random weights; see :func:`create`."""
    return create(spec.architecture, spec.in_channels, len(spec.classes), **spec.options)


def find_encoder(name: str) -> str:
    """Find an encoder of segmentation-models-pytorch or, behind ``tu-``, of timm.

    Parameters
    ----------
    name
        Its name; case, hyphens and underscores do not matter.

    Returns
    -------
    str
        The name as the library spells it.

    Raises
    ------
    ConfigurationError
        If neither library has it. Names that timm would look up on the internet are not known either.
    """
    known = smp.encoders.get_encoder_names()
    if name.startswith("tu-"):
        known = [f"tu-{encoder}" for encoder in timm.list_models()]
        if timm.is_model(name.removeprefix("tu-")) and ":" not in name:
            return name
    elif name.startswith("timm-"):  # older spelling that the library still translates
        known = [*known, *(f"timm-{encoder.removeprefix('tf_')}" for encoder in timm.list_models())]
    spelling = {_squash(encoder): encoder for encoder in reversed(known)}
    if name in known or _squash(name) in spelling:
        return name if name in known else spelling[_squash(name)]
    raise ConfigurationError(
        f"There is no encoder called {name!r}. {close_matches(name, known)}"
        "Examples are resnet18, resnet50, mobilenet_v2, mit_b0 and, from timm, tu-convnext_tiny."
    )


def _squash(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _create_smp(
    architecture: str, encoder: str, in_channels: int, classes: int, options: dict[str, Any]
) -> nn.Module:
    name = f"{architecture}/{encoder}"
    model_class = smp.MODEL_ARCHITECTURES_MAPPING[architecture]
    # Encoders of smp swallow options they do not know; those of timm refuse them, and may have more than smp names.
    if not encoder.startswith("tu-"):
        _check_options(name, options, inspect.signature(model_class).parameters)
    options = _any_size(architecture, encoder) | options
    try:
        module = smp.create_model(
            architecture, encoder, encoder_weights=None, in_channels=in_channels, classes=classes, **options
        )
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ConfigurationError(f"{name} cannot be built: {_reason(architecture, error)}") from error
    if architecture == "dpt" and module.encoder.output_stride != 16:
        raise ConfigurationError(f"{name} cannot be used: DPT needs a transformer with patches of 16 pixels.")
    allow_single_images(module.decoder)
    return module


def _any_size(architecture: str, encoder: str) -> dict[str, bool]:
    """Options with which a transformer takes images of any size, not only of the one it was made for."""
    if architecture == "dpt":
        return {"dynamic_img_size": True}
    if encoder.startswith("tu-"):
        home = inspect.getmodule(timm.model_entrypoint(encoder.removeprefix("tu-")))
        made = [part for part in vars(home).values() if inspect.isclass(part) and issubclass(part, nn.Module)]
        if any("strict_img_size" in inspect.signature(part).parameters for part in made):
            return {"strict_img_size": False}
    return {}


def _reason(architecture: str, error: Exception) -> str:
    """Say why the libraries did not build it, and what would do."""
    text = str(error).strip().rstrip(".!")
    if architecture == "dpt" and ("tu-" in text or "dynamic_img_size" in text):
        return "DPT takes vision transformers of timm with patches of 16 pixels. Write dpt/tu-vit_small_patch16_224."
    if "downsampling pattern" in text:
        return "the encoder's features have one resolution, which only DPT takes. Write dpt/tu-vit_small_patch16_224."
    if "dilated mode" in text or "output_stride" in text:
        return (
            f"{architecture} widens the view of the last stages (dilation), which this encoder cannot. Choose another, "
            f"such as {architecture}/resnet50."
        )
    return f"{text}. Choose another encoder or other options."


def _check_options(name: str, options: dict[str, Any], known: Iterable[str]) -> None:
    allowed = sorted(set(known) - set(_NOT_OPTIONS) - {"kwargs"})
    for option in options:
        if option not in allowed:
            raise ConfigurationError(
                f"{name} has no option {option!r}. {close_matches(option, allowed)}It takes {', '.join(allowed)}."
            )
