"""What other rooms ask of a network that is built: its size, its depth, and which layer feeds the classifier."""

from __future__ import annotations

from torch import nn

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.networks.anatomy.classifier_input import feature_before_classifier
from napari_kdseg.networks.papers.blocks import PaperNetwork

# Where torch.compile, lightning-fabric and data-parallel wrappers keep the network they wrap.
_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "_FabricModule": "_original_module",
    "DistributedDataParallel": "module",
    "DataParallel": "module",
}


def unwrap(module: nn.Module) -> nn.Module:
    """Take off the wrappers of ``torch.compile``, lightning-fabric and DistributedDataParallel, if there are any."""
    while (inside := _WRAPPERS.get(type(module).__name__)) is not None:
        module = getattr(module, inside)
    return module


def count_parameters(module: nn.Module) -> int:
    """Count the parameters, batch normalisation included and buffers not; shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def output_stride(module: nn.Module) -> int:
    """Give how many input pixels one pixel of the deepest feature map spans along each side.

    Raises
    ------
    ConfigurationError
        If the network is none of those that :func:`napari_kdseg.networks.create` builds.
    """
    module = unwrap(module)
    if isinstance(module, PaperNetwork):
        return module.output_stride
    stride = getattr(getattr(module, "encoder", None), "output_stride", None)
    if stride is None:
        raise ConfigurationError(f"The depth of a network of type {type(module).__name__} is not known.")
    return int(stride)


def last_feature(module: nn.Module) -> str:
    """Name the layer whose output feeds the classifier.

    Returns
    -------
    str
        Dotted path for :func:`napari_kdseg.networks.capture`: ``"decoder"`` for those of
        segmentation-models-pytorch, for those of papers what they say. Of any other network it is found by passing a
        blank image through it.

    Raises
    ------
    ConfigurationError
        If it cannot be found.
    """
    module = unwrap(module)
    if isinstance(module, PaperNetwork):
        return module.last_feature
    if hasattr(module, "decoder") and hasattr(module, "segmentation_head"):
        return "decoder"
    return feature_before_classifier(module)


def sees_everything(module: nn.Module) -> bool:
    """Whether a network says that each output pixel depends on the whole image; if not, that is to be measured."""
    module = unwrap(module)
    return isinstance(module, PaperNetwork) and module.sees_everything
