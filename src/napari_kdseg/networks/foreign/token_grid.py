"""The network of a foundation encoder: tokens of a vision transformer laid out as maps, without class and registers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from napari_kdseg.errors import ConfigurationError, is_out_of_memory
from napari_kdseg.networks.foreign.foundation import Encoder

_LEVELS = 4


class TokenGrid(nn.Module):
    """A vision transformer that puts out a feature map.

    Class and register tokens take part in the attention and are left out of the map. ``levels.0`` to ``levels.3`` are
    the maps after each quarter of the blocks, the last one normalised as the encoder's output is; all have one
    resolution.

    Parameters
    ----------
    vit
        Of timm.

    Attributes
    ----------
    segments
        False: it puts out features, not logits of classes.
    """

    segments = False

    def __init__(self, vit: Any):
        super().__init__()
        self.vit = vit
        self.levels = nn.ModuleList([nn.Identity() for _ in range(_LEVELS)])
        blocks = len(vit.blocks)
        self.ends = [max(0, blocks * (level + 1) // _LEVELS - 1) for level in range(_LEVELS)]

    @property
    def patch(self) -> int:
        """Side of a patch in pixels: height and width of an image are multiples of it."""
        return int(self.vit.patch_embed.patch_size[0])

    @property
    def width(self) -> int:
        """Channels of the map."""
        return int(self.vit.embed_dim)

    def forward(self, image: Tensor) -> Tensor:
        """Normalised ``[N, C, H, W]`` -> ``[N, D, H / patch, W / patch]``."""
        height, width = image.shape[-2] // self.patch, image.shape[-1] // self.patch
        tokens, inner = self.vit.forward_intermediates(
            image, indices=sorted(set(self.ends)), output_fmt="NCHW"
        )
        by_end = dict(zip(sorted(set(self.ends)), inner, strict=True))
        for level, end in zip(self.levels[:-1], self.ends[:-1], strict=True):
            level(by_end[end])
        patches = tokens[:, self.vit.num_prefix_tokens :]
        grid = patches.transpose(1, 2).reshape(len(image), self.width, height, width)
        return self.levels[-1](grid)

    def named_layers(self) -> dict[str, str]:
        """Say which level is which of :data:`napari_kdseg.networks.anatomy.named_layers.NAMED_LAYERS`."""
        first, second, third, last = (f"levels.{number}" for number in range(_LEVELS))
        return {
            "@stem": first,
            "@shallow": first,
            "@middle": second,
            "@deep": third,
            "@bottom": last,
            "@feature": last,
        }


def create_encoder(encoder: Encoder, in_channels: int, options: Mapping[str, Any]) -> TokenGrid:
    """Build a foundation encoder with random weights.

    Parameters
    ----------
    encoder
        Which.
    in_channels
        Channels of the image.
    options
        Further arguments of timm's transformer, such as ``depth``; they go before the encoder's own. ``mlp="swiglu"``
        stands for timm's packed SwiGLU with SiLU.

    Raises
    ------
    ConfigurationError
        If it cannot be built, or is no plain vision transformer.
    """
    import timm  # seconds, which other networks need not wait for
    from timm.layers import SwiGLUPacked

    arguments = {"dynamic_img_size": True, **encoder.arguments, **options}
    if arguments.pop("mlp", None) == "swiglu":
        arguments |= {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    try:
        vit = timm.create_model(
            encoder.model, pretrained=False, in_chans=in_channels, num_classes=0, **arguments
        )
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ConfigurationError(
            f"The encoder {encoder.model} cannot be built: {error}. Choose other options, or another encoder."
        ) from error
    parts = ("blocks", "forward_intermediates", "num_prefix_tokens", "patch_embed")
    if not all(hasattr(vit, part) for part in parts) or isinstance(vit.blocks[0], nn.Sequential):
        raise ConfigurationError(
            f"{encoder.model} is no plain vision transformer. Choose one such as foundation/vit_base_patch16_224."
        )
    return TokenGrid(vit)


def as_timm(state: Mapping[str, Tensor], network: TokenGrid) -> dict[str, Tensor]:
    """Bring an encoder's weights into the names and sizes of timm's transformer.

    Parameters
    ----------
    state
        Weights in the names of timm or of DINOv2.
    network
        What they are meant for. Position embeddings for another grid are resampled.

    Returns
    -------
    dict
        Without what belongs to a classifier or to training (heads, the mask token).
    """
    from timm.models.vision_transformer import checkpoint_filter_fn

    vit = network.vit
    wanted = vit.state_dict()
    if "patch_embed.proj.weight" in state and _is_grid(state, vit):
        state = checkpoint_filter_fn(dict(state), vit)
    # pooling and classifiers: what a map of tokens does not pass through
    beside = ("head.", "head_dist.", "fc_norm.", "attn_pool.", "pooler.")
    return {
        key: value
        for key, value in state.items()
        if key in wanted or not (key.startswith(beside) or key == "mask_token")
    }


def _is_grid(state: Mapping[str, Tensor], vit: Any) -> bool:
    """Whether the position embeddings are those of a square beside as many other tokens as this encoder has."""
    if "pos_embed" not in state:
        return False
    patches = state["pos_embed"].shape[1] - (0 if vit.no_embed_class else vit.num_prefix_tokens)
    return patches > 0 and math.isqrt(patches) ** 2 == patches


def from_transformers(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Rename a ``ViTModel`` of Hugging Face transformers as timm does; query, key and value become one layer.

    Weights that are none stay as they are.
    """
    if not any("attention.attention.query" in key for key in state):
        return state
    before = next((key.partition("embeddings.")[0] for key in state if "embeddings.cls_token" in key), "")
    state = {key.removeprefix(before): value for key, value in state.items()}
    names = {
        "embeddings.cls_token": "cls_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "embeddings.mask_token": "mask_token",
        "encoder.layer.": "blocks.",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "intermediate.dense": "mlp.fc1",
        "attention.output.dense": "attn.proj",
        "output.dense": "mlp.fc2",
        "layernorm.": "norm.",
    }
    renamed = {}
    for key, value in state.items():
        if "attention.attention." in key:
            continue
        for old, new in names.items():
            key = key.replace(old, new)
        renamed[key] = value
    for key in state:
        if "attention.attention.query" in key:
            parts = [state[key.replace("query", part)] for part in ("query", "key", "value")]
            number, kind = key.split(".")[2], key.rsplit(".", 1)[1]
            renamed[f"blocks.{number}.attn.qkv.{kind}"] = torch.cat(parts)
    return renamed
