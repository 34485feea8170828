"""Features from inside a network, by dotted path: no network has to be rewritten to return them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.networks.catalogue import close_matches
from napari_kdseg.networks.describe import unwrap


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
        several tensors, the last (deepest) is taken.

    Yields
    ------
    Features
        Filled by every forward pass, ``features["decoder"]`` being ``[N, c, h, w]`` with its gradient. Each is a
        copy, because an in-place activation behind the layer would overwrite it.

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
            if path not in layers or not path:
                raise ConfigurationError(
                    f"This {type(unwrap(module)).__name__} has no layer {path!r}. {close_matches(path, layers)}"
                    f"Its main parts are {', '.join(name for name, _ in unwrap(module).named_children())}."
                )

            def keep(_layer: nn.Module, _inputs: Any, output: Any, path: str = path) -> None:
                features[path] = _last_tensor(output, path).clone()

            handle = layers[path].register_forward_hook(keep)
            hooks.callback(handle.remove)
        yield features


def _last_tensor(output: Any, path: str) -> Tensor:
    while isinstance(output, list | tuple) and output:
        output = output[-1]
    if not isinstance(output, Tensor):
        raise ConfigurationError(
            f"The layer {path!r} puts out no tensor but a {type(output).__name__}. Tap another layer."
        )
    return output
