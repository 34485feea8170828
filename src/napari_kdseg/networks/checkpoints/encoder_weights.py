"""Pretrained weights of an encoder alone, from a file on this computer, into the encoder of a segmentation network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from napari_kdseg.errors import CheckpointError, ConfigurationError
from napari_kdseg.networks.anatomy.describe import unwrap
from napari_kdseg.networks.checkpoints.formats import resolve
from napari_kdseg.networks.checkpoints.keys import fitting_names
from napari_kdseg.networks.checkpoints.misfit import refuse_not_finite
from napari_kdseg.networks.checkpoints.weights import read_weights

_SHOWN = 3


def load_encoder(module: nn.Module, path: str | Path) -> nn.Module:
    """Give the encoder of a network the weights of a file, all of them or none.

    Parameters
    ----------
    module
        Network with an ``encoder``, as those of segmentation-models-pytorch have one; changed in place.
    path
        Weights of torchvision, timm or segmentation-models-pytorch for this encoder (.pth, .safetensors), or a
        checkpoint of a whole network that has this encoder. What the encoder has no place for, such as the classifier
        of ImageNet, is left out.

    Returns
    -------
    torch.nn.Module
        ``module``.

    Raises
    ------
    ConfigurationError
        If the network has no encoder.
    CheckpointError
        If the file cannot be read, or its weights are not those of this encoder.
    """
    network = unwrap(module)
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise ConfigurationError(
            f"A {type(network).__name__} has no encoder of its own that weights could be given to. Leave the encoder "
            "weights out, or choose a network such as unet/resnet34."
        )
    file = resolve(path)
    given = read_weights(file)
    wanted = encoder.state_dict()
    found = _by_names(given, encoder, f"This file ({file.name})")
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    missing = [key for key in wanted if key not in found and key not in counters]
    other = [key for key in found if found[key].shape != wanted[key].shape]
    if missing or other:
        raise CheckpointError(_misfit(file, type(encoder).__name__, wanted, missing, other, found))
    refuse_not_finite(found, f"This file ({file.name})")
    encoder.load_state_dict({key: found.get(key, tensor) for key, tensor in wanted.items()}, strict=True)
    return module


def _by_names(given: Mapping[str, Tensor], encoder: nn.Module, subject: str) -> dict[str, Tensor]:
    """Find each wanted weight under its name behind one common prefix; dots and underscores count alike.

    Timm writes ``stages.0`` for a classifier and ``stages_0`` for the same layers as an encoder.
    """
    wanted = encoder.state_dict()
    names = {_dotted(key.removeprefix("model.")): key for key in wanted}
    parameters = {key for key, _ in encoder.named_parameters()}
    found = fitting_names(
        {_dotted(key): tensor for key, tensor in given.items()},
        {name: wanted[key].shape for name, key in names.items()},
        subject,
        [name for name, key in names.items() if key not in parameters],
    ).tensors
    return {names[name]: tensor for name, tensor in found.items() if name in names}


def _dotted(key: str) -> str:
    return key.replace("_", ".")


def _misfit(
    path: Path,
    encoder: str,
    wanted: Mapping[str, Tensor],
    missing: list[str],
    other: list[str],
    found: Mapping[str, Tensor],
) -> str:
    if other and not missing:
        first = other[0]
        sizes = f"{list(found[first].shape)} there, {list(wanted[first].shape)} here"
        channels = found[first].ndim == 4 and found[first].shape[0] == wanted[first].shape[0]
        why = "It was made for another number of channels. " if channels and len(other) == 1 else ""
        return (
            f"{path.name} has the layers of this encoder ({encoder}) in other sizes ({first}: {sizes}). {why}"
            "Choose the weights of the same encoder; nothing was loaded."
        )
    shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
    return (
        f"{path.name} does not hold the weights of this encoder ({encoder}): {len(missing)} of {len(wanted)} are "
        f"missing ({shown}). Choose the weights of the same encoder; nothing was loaded."
    )
