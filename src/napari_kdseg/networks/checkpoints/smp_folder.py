"""Folders written by ``save_pretrained`` of segmentation-models-pytorch (config.json beside model.safetensors).

Two things differ from networks made here and are put right: a network with one sigmoid output is given a background
output so that it says the same, and an extra head that classifies whole images is left out.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from napari_kdseg.errors import CheckpointError
from napari_kdseg.networks.spec import NetworkSpec

_NOT_OPTIONS = {"encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params"}


def spec_from_config(folder: Path, config: dict[str, Any]) -> NetworkSpec:
    """Describe the network of a ``save_pretrained`` folder.

    Parameters
    ----------
    folder
        Named in messages.
    config
        What its config.json holds.

    Returns
    -------
    NetworkSpec
        Classes are called ``background``, ``class 1`` ...: such a folder does not name them. Neither does it say how
        images were normalised; the spec's defaults are those of smp for encoders trained on ImageNet.

    Raises
    ------
    CheckpointError
        If the class of the network or its settings are not known.
    """
    import segmentation_models_pytorch as smp  # seconds

    architecture = str(config["_model_class"]).lower()
    model_class = smp.MODEL_ARCHITECTURES_MAPPING.get(architecture)
    if model_class is None:
        raise CheckpointError(
            f"The folder {folder} holds a {config['_model_class']}, no network of segmentation-models-pytorch. "
            f"Known are {', '.join(m.__name__ for m in smp.MODEL_ARCHITECTURES_MAPPING.values())}."
        )
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(model_class).parameters.items()
        if parameter.default is not parameter.empty
    }
    settings = _as_json(defaults) | config
    options = {
        key: value
        for key, value in settings.items()
        if key not in _NOT_OPTIONS
        and not key.startswith("_")
        and (key not in defaults or value != _as_json(defaults)[key])
    }
    try:
        outputs = max(2, int(settings["classes"]))
        return NetworkSpec(
            architecture=f"{architecture}/{settings['encoder_name']}",
            in_channels=settings["in_channels"],
            classes=("background", *(f"class {index}" for index in range(1, outputs))),
            options=options,
        )
    except (TypeError, ValueError, ValidationError) as error:
        raise CheckpointError(
            f"The config.json in {folder} cannot be understood: {error}. Write the folder again."
        ) from error


def without_image_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the auxiliary head that classifies whole images: it takes no part in segmentation."""
    return {key: tensor for key, tensor in state.items() if not key.startswith("classification_head.")}


def with_background(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Give weights of one sigmoid output a background output of constant 0, where ``module`` has two.

    The softmax of ``(0, z)`` is ``(1 - sigmoid(z), sigmoid(z))``, so predictions stay what they were.

    Parameters
    ----------
    state
        Weights by name.
    module
        The network they are meant for.

    Returns
    -------
    dict
        ``state`` itself if it has no such output.
    """
    head = [key for key in module.state_dict() if key.startswith("segmentation_head.")][-2:]
    shapes = {key: tensor.shape for key, tensor in module.state_dict().items() if key in head}
    if not head or not all(key in state and state[key].shape == (1, *shapes[key][1:]) for key in head):
        return state
    if any(shapes[key][0] != 2 for key in head):
        return state
    return state | {key: torch.cat([torch.zeros_like(state[key]), state[key]]) for key in head}


def _as_json(settings: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(settings, default=str))
