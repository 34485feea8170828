"""Old checkpoints open as the networks they are, and say of an image what they said."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch

from napari_kdseg.networks import create, inspect, load, to_input

SIDE = 96
ENET_ROUNDING = 100 * 1152 * 2.0**-53
"""Float64 logits of ENet may differ by the order of its sums: of a hundred layers one after the other none adds more
than 1152 products, and norms keep what they pass on near 1."""

FLOAT32_ROUNDING = 20 * 144 * 2.0**-24
"""The same of float32 logits of the small U-Net: twenty layers, at most 144 products each."""


def image() -> np.ndarray:
    """The image that ENet was asked about: a formula, so that it is the same anywhere."""
    y, x, c = np.ogrid[:SIDE, :SIDE, :3]
    return ((37 * y + 101 * x + 59 * c + y * x + (y // 7) * (x // 5) * 11) % 256).astype(np.uint8)


def test_an_old_checkpoint_of_enet_predicts_as_it_did(old_enet):
    """Whatever form ENet has by now: the weights of then go with the form of then."""
    expected = np.load(old_enet / "expected" / "enet.npz")
    checkpoint = load(old_enet / "enet.safetensors")
    spec = checkpoint.spec
    assert (spec.architecture, spec.classes, spec.in_channels) == ("enet", ("background", "gland"), 3)
    pixels = (image() / 255 - np.array(spec.mean)) / np.array(spec.std)
    batch = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]
    with torch.no_grad():
        said = checkpoint.module.double()(batch)[0].numpy()
    np.testing.assert_allclose(
        said[:, ::8, ::8], expected["logits"], rtol=0, atol=ENET_ROUNDING, equal_nan=False
    )
    np.testing.assert_array_equal(said.argmax(0), expected["classes"])
    assert {*np.unique(expected["classes"])} == {0, 1}


def test_what_an_old_header_says(written):
    spec = inspect(written / "runs" / "finished" / "checkpoints" / "student.safetensors")
    assert spec.architecture == "unet/tu-resnet10t"
    assert spec.options["decoder_channels"] == [4, 4]
    assert spec.classes == ("background", "gland")
    assert (spec.in_channels, spec.input_size, spec.mpp, spec.method) == (3, 32, 1.0, "plc-kd")
    assert 0 < spec.metrics["val_dice"] <= 1
    assert spec.versions["napari-kdseg"] == "0.1.0"


def test_an_old_export_says_what_its_checkpoint_says(old):
    pytest.importorskip("onnxruntime")
    checkpoint = load(old / "runs" / "finished" / "checkpoints" / "student.safetensors")
    exported = load(old / "exported" / "student.onnx")
    assert exported.spec.classes == checkpoint.spec.classes
    assert (exported.spec.mean, exported.spec.std) == (checkpoint.spec.mean, checkpoint.spec.std)
    assert exported.spec.mpp == checkpoint.spec.mpp
    batch = to_input(image()[None], checkpoint.spec, "cpu")
    with torch.no_grad():
        ours, theirs = checkpoint.module(batch).numpy(), exported.module(batch).numpy()
    np.testing.assert_allclose(
        theirs, ours, rtol=0, atol=FLOAT32_ROUNDING * np.abs(ours).max(), equal_nan=False
    )


def test_weights_of_papers_networks_keep_their_names(written):
    """Old checkpoints of them go by name and shape; one that is to change needs an old file here, as ENet has."""
    for name, expected in json.loads((written / "expected" / "weights.json").read_text()).items():
        with torch.device("meta"):
            shapes = {key: list(value.shape) for key, value in create(name, 3, 2).state_dict().items()}
        assert hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest() == expected, name
