"""Pixels -> network input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.networks import NetworkSpec, to_input

pytestmark = pytest.mark.numeric

SPEC = NetworkSpec(
    architecture="enet", classes=("background", "tumour"), mean=(0.7, 0.5, 0.6), std=(0.1, 0.2, 0.3)
)


@pytest.fixture
def tiles() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)


def test_values_are_scaled_and_normalised(tiles):
    batch = to_input(tiles, SPEC)
    expected = (tiles.astype(np.float64) / 255 - SPEC.mean) / SPEC.std
    assert batch.dtype == torch.float32
    np.testing.assert_allclose(batch.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5, equal_nan=False)


def test_memory_is_channels_last(tiles):
    for source in (tiles, torch.from_numpy(tiles), tiles[:, ::-1], tiles[:, :, ::2]):
        batch = to_input(source, SPEC, "cpu")
        assert batch.is_contiguous(memory_format=torch.channels_last)


def test_sources_are_left_as_they_were(tiles):
    before = tiles.copy()
    frozen = tiles.copy()
    frozen.flags.writeable = False
    assert torch.equal(to_input(frozen, SPEC), to_input(torch.from_numpy(tiles), SPEC))
    np.testing.assert_array_equal(tiles, before)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (np.zeros((1, 4, 4, 3), np.uint16), "these tiles are uint16"),
        (torch.zeros(1, 4, 4, 3), "these tiles are torch.float32"),
        (np.zeros((4, 4, 3), np.uint8), r"these are \[4, 4, 3\]"),
        (np.zeros((1, 4, 4, 4), np.uint8), "takes 3 channels, but the image has 4"),
    ],
)
def test_tiles_that_do_not_fit_are_explained(bad, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        to_input(bad, SPEC)
