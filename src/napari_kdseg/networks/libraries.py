"""Networks of segmentation-models-pytorch on its encoders and those of timm.

Importing the two takes seconds, so this is imported where such a network is asked for.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

import segmentation_models_pytorch as smp
import timm
from torch import nn

from napari_kdseg.errors import ConfigurationError, is_out_of_memory
from napari_kdseg.networks.close_names import close_matches
from napari_kdseg.networks.single_image import allow_single_images

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


def create_smp(
    architecture: str, encoder: str, in_channels: int, classes: int, options: dict[str, Any]
) -> nn.Module:
    """Build a network of segmentation-models-pytorch with random weights; ``encoder`` as :func:`find_encoder` gives it.

    Raises
    ------
    ConfigurationError
        If the two, or the options, do not go together.
    """
    name = f"{architecture}/{encoder}"
    for option in sorted(set(options) & set(_NOT_OPTIONS)):
        raise ConfigurationError(
            f"{option!r} cannot be set for {name}: {_NOT_OPTIONS[option]}. Leave it out."
        )
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
