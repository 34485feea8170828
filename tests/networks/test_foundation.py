"""Foundation encoders: their published sizes, tokens as maps, and weights in the names of those who publish them."""

from __future__ import annotations

import pytest
import torch

from napari_kdseg.errors import CheckpointError, ConfigurationError
from napari_kdseg.networks import NetworkSpec, capture, create, find_taps, input_multiple, load
from napari_kdseg.networks.foreign.foundation import ENCODERS, encoder_of

TINY = {"depth": 4, "embed_dim": 24, "num_heads": 2}
SHAPES = {  # width, side of the token grid, class and register tokens
    "uni": (1024, 14, 1),
    "uni2-h": (1536, 16, 9),
    "virchow": (1280, 16, 1),
    "virchow2": (1280, 16, 5),
    "h-optimus-0": (1536, 16, 5),
    "gigapath": (1536, 14, 1),
    "phikon": (768, 14, 1),
    "conch": (768, 28, 1),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_published_sizes(name):
    """On tensors without values: the largest has a thousand million weights."""
    about = ENCODERS[name]
    width, side, prefix = SHAPES[name]
    with torch.device("meta"):
        encoder = create(f"foundation/{name}").eval()
        image = torch.zeros(1, 3, about.input_size, about.input_size)
        assert encoder(image).shape == (1, width, side, side)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == about.parameters
    assert encoder.vit.num_prefix_tokens == prefix
    tokens = side * side + (0 if encoder.vit.no_embed_class else prefix - encoder.vit.num_reg_tokens)
    assert encoder.vit.pos_embed.shape[1] in (tokens, tokens + encoder.vit.num_reg_tokens)
    assert input_multiple(f"foundation/{name}") == encoder.patch == about.input_size // side


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["uni", "virchow2", "uni2-h"])
def test_places_stay_where_they_are_without_class_and_register_tokens(name):
    """A row-major grid of the tokens behind the prefix, at any size, also one that is not square."""
    encoder = create(f"foundation/{name}", **TINY).eval()
    patch = encoder.patch
    image = torch.rand(2, 3, 3 * patch, 5 * patch)
    with torch.no_grad():
        grid = encoder(image)
        tokens = encoder.vit.forward_features(image)
    assert grid.shape == (2, 24, 3, 5)
    prefix = tokens.shape[1] - 15
    torch.testing.assert_close(grid[1, :, 2, 1], tokens[1, prefix + 2 * 5 + 1])


@pytest.mark.numeric
def test_levels_are_the_maps_after_each_quarter_of_the_blocks():
    encoder = create("foundation/uni", **TINY).eval()
    roles = find_taps(encoder, (3, 64, 64))
    assert roles["@bottom"] == roles["@feature"] == "levels.3"
    with capture(encoder, sorted(set(roles.values()))) as seen, torch.no_grad():
        output = encoder(torch.rand(1, 3, 64, 64))
    assert {value.shape for value in seen.values()} == {(1, 24, 4, 4)}
    assert torch.equal(seen["levels.3"], output)
    assert not torch.equal(seen["levels.0"], seen["levels.1"])


def spec_of(name: str, **options) -> NetworkSpec:
    return NetworkSpec(architecture=name, classes=(), options={**TINY, **options})


@pytest.mark.parametrize("prefix", ["", "module.", "teacher.backbone.", "visual.trunk.", "vit."])
def test_weights_behind_any_prefix(prefix, tmp_path):
    encoder = create("foundation/uni", **TINY).eval()
    state = {prefix + key: value for key, value in encoder.vit.state_dict().items()}
    state |= {prefix + "head.weight": torch.zeros(10, 24), prefix + "head.bias": torch.zeros(10)}
    torch.save({"state_dict": state}, tmp_path / "uni.bin")
    loaded = load(tmp_path / "uni.bin", expect=spec_of("foundation/uni"))
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(loaded.module(image), encoder(image))
    assert not loaded.spec.segments


@pytest.mark.numeric
def test_names_of_hugging_face_transformers(tmp_path):
    """Phikon is published so; query, key and value are three layers there and one in timm."""
    encoder = create("foundation/phikon", **TINY).eval()
    state = {}
    for key, value in encoder.vit.state_dict().items():
        block = key.split(".")[1] if key.startswith("blocks.") else ""
        before = f"encoder.layer.{block}."
        kind = key.rsplit(".", 1)[-1]
        if ".attn.qkv." in key:
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                state[f"{before}attention.attention.{part}.{kind}"] = third.clone()
            continue
        names = {
            "cls_token": "embeddings.cls_token",
            "pos_embed": "embeddings.position_embeddings",
            f"patch_embed.proj.{kind}": f"embeddings.patch_embeddings.projection.{kind}",
            f"blocks.{block}.norm1.{kind}": f"{before}layernorm_before.{kind}",
            f"blocks.{block}.norm2.{kind}": f"{before}layernorm_after.{kind}",
            f"blocks.{block}.attn.proj.{kind}": f"{before}attention.output.dense.{kind}",
            f"blocks.{block}.mlp.fc1.{kind}": f"{before}intermediate.dense.{kind}",
            f"blocks.{block}.mlp.fc2.{kind}": f"{before}output.dense.{kind}",
            f"norm.{kind}": f"layernorm.{kind}",
        }
        state[names[key]] = value
    state |= {"pooler.dense.weight": torch.zeros(24, 24), "pooler.dense.bias": torch.zeros(24)}
    torch.save(state, tmp_path / "phikon.bin")
    loaded = load(tmp_path / "phikon.bin", expect=spec_of("foundation/phikon"))
    image = torch.rand(1, 3, 32, 48)
    torch.testing.assert_close(loaded.module(image), encoder(image))


def test_weights_of_another_encoder_are_refused(tmp_path):
    torch.save(create("foundation/uni", **TINY).vit.state_dict(), tmp_path / "uni.bin")
    with pytest.raises(CheckpointError, match="does not hold the weights of foundation/virchow2"):
        load(tmp_path / "uni.bin", expect=spec_of("foundation/virchow2"))
    with pytest.raises(CheckpointError, match="in other sizes"):
        load(tmp_path / "uni.bin", expect=spec_of("foundation/uni", embed_dim=48))
    torch.save(create("enet").state_dict(), tmp_path / "enet.pth")
    with pytest.raises(CheckpointError, match="does not hold the weights of foundation/uni"):
        load(tmp_path / "enet.pth", expect=spec_of("foundation/uni"))


def test_names_that_are_no_encoders():
    with pytest.raises(ConfigurationError, match=r"no foundation encoder called 'unni'. Did you mean uni"):
        create("foundation/unni")
    with pytest.raises(ConfigurationError, match=r"no plain vision transformer|cannot be built"):
        create("foundation/tiny_vit_5m_224")
    assert encoder_of("foundation/vit_base_patch16_224").input_size == 224
