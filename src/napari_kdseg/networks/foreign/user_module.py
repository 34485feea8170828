"""Anybody's ``nn.Module`` by its import path: ``python:mypackage.models:MyNet``.

It is imported only if a person allowed it (``permission.py``). What it makes of a blank image is looked at when it is
built, so that a network that cannot be used is refused before anything is trained or loaded.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from napari_kdseg.errors import ConfigurationError, is_out_of_memory
from napari_kdseg.networks.foreign.permission import check_allowed
from napari_kdseg.networks.spec import OWN_CODE

# What networks commonly call these two arguments; the first that the class has is given.
_IN_CHANNELS = ("in_channels", "in_chans", "in_ch", "n_channels", "input_channels", "num_channels", "in_dim")
_CLASSES = ("classes", "num_classes", "n_classes", "out_channels", "out_chans", "out_ch", "num_labels")
_OUTPUTS = ("out", "logits", "masks", "segmentation", "pred")
_SIDES = (64, 128, 256)
OUTPUT = "output"
"""Option of this program, not of the class: which entry of a dict or tuple holds the logits."""


class OneOutput(nn.Module):
    """A network that puts out a dict or a tuple, as one that puts out logits.

    Parameters
    ----------
    network
        The network as it is.
    output
        Key, or index, of the logits.
    """

    def __init__(self, network: nn.Module, output: str | int):
        super().__init__()
        self.network = network
        self.output = output

    def forward(self, image: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` -> logits ``[N, C, H, W]``."""
        outputs: Any = self.network(image)
        return outputs[self.output]


def create_own(name: str, in_channels: int, classes: int, options: Mapping[str, Any]) -> nn.Module:
    """Build somebody's own network.

    Parameters
    ----------
    name
        ``"python:package.module:Class"``; a function that returns a network does as well.
    in_channels, classes
        Given to the class under the names that networks commonly use, unless ``options`` has them.
    options
        Keyword arguments of the class. ``output`` is not one of them: it says which entry of a dict or tuple holds the
        logits, where that is neither ``"out"`` nor the first.

    Returns
    -------
    torch.nn.Module
        In training mode. The module itself if it puts out a tensor, otherwise in a :class:`OneOutput`.

    Raises
    ------
    CodeNotAllowedError
        If nobody allowed this code to be run.
    ConfigurationError
        If it cannot be imported or built, or its output is no map of ``classes`` logits as large as the image.
    """
    code = name.removeprefix(OWN_CODE)
    check_allowed(code)
    made_by = _import(code)
    arguments = {key: value for key, value in options.items() if key != OUTPUT}
    arguments = _counts(made_by, in_channels, classes, arguments) | arguments
    try:
        network = made_by(**arguments)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ConfigurationError(
            f"{code} cannot be built with {_listed(arguments)}: {error}. Give it the options it needs."
        ) from error
    if not isinstance(network, nn.Module):
        raise ConfigurationError(
            f"{code} made a {type(network).__name__}, not a torch.nn.Module. Name the class of the network."
        )
    return _with_one_output(network, code, in_channels, classes, options.get(OUTPUT))


def _import(code: str) -> Callable[..., Any]:
    module_name, _, path = code.partition(":")
    if not module_name or not path:
        raise ConfigurationError(
            f"{code!r} does not name a class. Write python:package.module:Class, such as python:mypackage.models:MyNet."
        )
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # anything may go wrong in code that is not ours
        raise ConfigurationError(
            f"The module {module_name} cannot be imported: {error}. Install it beside this program, or add its folder "
            "to PYTHONPATH."
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(
                f"The module {module_name} has no {path}. Check the name after the colon."
            )
        found = getattr(found, part)
    if inspect.isclass(found) and not issubclass(found, nn.Module):
        raise ConfigurationError(
            f"{code} is no torch.nn.Module but another class. Name the class of the network."
        )
    if not callable(found) or isinstance(found, nn.Module):
        raise ConfigurationError(
            f"{code} is a {type(found).__name__}, not a class or function that makes a network. Name the class."
        )
    return found


def _counts(
    made_by: Callable[..., Any], in_channels: int, classes: int, given: Mapping[str, Any]
) -> dict[str, int]:
    known = inspect.signature(made_by).parameters
    counts = {}
    for names, number in ((_IN_CHANNELS, in_channels), (_CLASSES, classes)):
        name = next((name for name in names if name in known), None)
        if name is not None and not set(names) & set(given):
            counts[name] = number
    return counts


def _with_one_output(
    network: nn.Module, code: str, in_channels: int, classes: int, output: str | int | None
) -> nn.Module:
    side, outputs = _try(network, code, in_channels)
    if not isinstance(outputs, Tensor):
        output = _entry(outputs, code) if output is None else output
        try:
            logits = outputs[output]
        except (LookupError, TypeError) as error:
            raise ConfigurationError(
                f"{code} puts out {_kinds(outputs)}, and no {output!r} among them. Set the option output to one."
            ) from error
        network, outputs = OneOutput(network, output), logits
    wanted = (1, classes, side, side)
    if not isinstance(outputs, Tensor) or outputs.shape != wanted:
        shape = list(outputs.shape) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        raise ConfigurationError(
            f"{code} turns an image [1, {in_channels}, {side}, {side}] into {shape}, but a segmentation network "
            f"puts out {list(wanted)}: a logit for each class at each pixel. Change its last layer, or its options."
        )
    return network


def _try(network: nn.Module, code: str, in_channels: int) -> tuple[int, Any]:
    """Pass a blank image through the network, a larger one where it is too small; its weights stay as they are."""
    training = network.training
    reasons = []
    try:
        network.eval()
        for side in _SIDES:
            try:
                with torch.no_grad():
                    return side, network(torch.zeros(1, in_channels, side, side))
            except Exception as error:  # anything may go wrong in code that is not ours
                if is_out_of_memory(error):
                    raise
                reasons.append(f"{error}".splitlines()[0] if f"{error}" else type(error).__name__)
    finally:
        network.train(training)
    sides = ", ".join(map(str, _SIDES))
    raise ConfigurationError(
        f"{code} does not take an image of {in_channels} channels (tried {sides} pixels): {reasons[-1]}. Change its "
        "options, or choose another network."
    )


def _entry(outputs: Any, code: str) -> str | int:
    """Which entry holds the logits: a usual name, else the first."""
    if isinstance(outputs, Mapping) and outputs:
        keys = [str(key) for key in outputs]
        return next((key for key in _OUTPUTS if key in keys), keys[0])
    if isinstance(outputs, list | tuple) and outputs:
        return 0
    raise ConfigurationError(
        f"{code} puts out {_kinds(outputs)}, not a tensor. Let its forward return the logits."
    )


def _kinds(outputs: Any) -> str:
    if isinstance(outputs, Mapping):
        return f"a dict of {', '.join(map(repr, outputs))}" if outputs else "an empty dict"
    if isinstance(outputs, list | tuple):
        return f"{len(outputs)} outputs"
    return f"a {type(outputs).__name__}"


def _listed(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or "no options"
