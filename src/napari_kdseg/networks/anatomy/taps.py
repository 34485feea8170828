"""Features from inside a network, by dotted path: no network has to be rewritten to return them.

A path may end in an index where a layer puts out several maps: ``"encoder[2]"``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.networks.anatomy.describe import unwrap
from napari_kdseg.networks.close_names import close_matches
from napari_kdseg.networks.parallel.sharing import shares


class Features(dict[str, Tensor]):
    """Dotted path -> feature map of the latest forward pass."""

    def __missing__(self, path: str) -> Tensor:
        raise ConfigurationError(
            f"The layer {path!r} put out nothing: the network did not run it. Tap another layer."
        )


@contextmanager
def capture(module: nn.Module, paths: Sequence[str]) -> Iterator[Features]:
    """Collect what layers put out while the block runs.

    Parameters
    ----------
    module
        The network; wrappers of DDP, lightning-fabric and ``torch.compile`` are looked through.
    paths
        Dotted paths as in ``module.named_modules()``: ``"decoder"``, ``"encoder.layer2"``. Of a layer that puts out
        several tensors, the last (deepest) is taken, or the one of the index given: ``"encoder[2]"``.

    Yields
    ------
    Features
        Filled by every forward pass, ``features["decoder"]`` being ``[N, c, h, w]`` with its gradient. Each is a
        copy, because an in-place activation behind the layer would overwrite it; of the whole batch, where several
        processes share it.

    Raises
    ------
    ConfigurationError
        If there is no layer of that path, or what it puts out is not a tensor.

    Examples
    --------
    >>> with capture(network, ["decoder"]) as features:
    ...     logits = network(image)
    >>> features["decoder"]
    """
    layers = dict(unwrap(module).named_modules())
    features = Features()
    with ExitStack() as hooks:
        for path in paths:
            name, index = _split(path)
            if name not in layers or not name:
                raise ConfigurationError(
                    f"This {type(unwrap(module)).__name__} has no layer {name!r}. {close_matches(name, layers)}"
                    f"Its main parts are {', '.join(name for name, _ in unwrap(module).named_children())}."
                )

            def keep(
                _layer: nn.Module, _inputs: Any, output: Any, path: str = path, index: int | None = index
            ) -> None:
                features[path] = shares().output(_tensor(output, path, index).clone())

            handle = layers[name].register_forward_hook(keep)
            hooks.callback(handle.remove)
        yield features


def _split(path: str) -> tuple[str, int | None]:
    """Take the index off a path: ``"encoder[2]"`` is the third map of ``"encoder"``."""
    match = re.fullmatch(r"(.+)\[(-?\d+)\]", path)
    return (match[1], int(match[2])) if match else (path, None)


def _tensor(output: Any, path: str, index: int | None) -> Tensor:
    if index is not None:
        if not isinstance(output, list | tuple) or not -len(output) <= index < len(output):
            held = f"{len(output)} maps" if isinstance(output, list | tuple) else "one map"
            raise ConfigurationError(f"There is no {path!r}: this layer puts out {held}. Tap another layer.")
        output = output[index]
    while isinstance(output, list | tuple) and output:
        output = output[-1]
    if not isinstance(output, Tensor):
        raise ConfigurationError(
            f"The layer {path!r} puts out no tensor but a {type(output).__name__}. Tap another layer."
        )
    return output
