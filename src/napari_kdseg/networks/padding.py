"""Images of any size through networks that want multiples of 8, 16 or 32 pixels."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from napari_kdseg.errors import ConfigurationError


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pad right and below until height and width are multiples, so that the origin stays where it is.

    Parameters
    ----------
    image
        Float ``[N, C, H, W]``.
    multiple
        Pixels.

    Returns
    -------
    Tensor
        ``[N, C, H', W']``; the image is mirrored at its edge, or its edge repeated where it is too small to mirror.
    """
    height, width = image.shape[-2:]
    if min(height, width) < 1:
        raise ConfigurationError(
            f"An image of {height} x {width} pixels has nothing to segment. Choose a larger region."
        )
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return image
    mode = "reflect" if below < height and right < width else "replicate"
    return functional.pad(image, (0, right, 0, below), mode=mode)


def predict_logits(module: nn.Module, image: Tensor, multiple: int) -> Tensor:
    """Run a network on an image of any size.

    Parameters
    ----------
    module
        Network as :func:`napari_kdseg.networks.create` builds it; its mode and gradients are left to the caller.
    image
        Normalised float ``[N, C_in, H, W]``.
    multiple
        See :func:`napari_kdseg.networks.input_multiple`.

    Returns
    -------
    Tensor
        Logits ``[N, C, H, W]``.
    """
    height, width = image.shape[-2:]
    return module(pad_to_multiple(image, multiple))[..., :height, :width]
