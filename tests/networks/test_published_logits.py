"""Each paper's network gives the logits of the published code, so that no layer slips in or out unseen.

Counts of parameters and multiply-adds cannot see an activation, or the way a map is enlarged. Here
``published_logits.json`` holds what the published code gave in double precision with the same weights copied into its
layers; ``source`` says which code. Only values are here.

Weights are drawn from a generator seeded by their name: numpy's ``RandomState``, whose stream never changes. So logits
depend neither on the order in which layers are made nor on a library's way of initialising them. Double precision
rounds at 1e-16, and ours in another order of summation was 1e-14 of the largest logit away at most.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_kdseg.networks import create, input_multiple
from napari_kdseg.networks.catalogue import PAPERS

TOLERANCE = 1e-9  # of the largest logit
PLACES = 16  # of a logit, spread evenly
ROWS = json.loads((Path(__file__).parent / "published_logits.json").read_text())
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.PReLU)
# What they get is the sum of two outputs of ReLU.
IDLE = {"enet": {"stage4.0.activation", "stage4.1.activation", "stage5.0.activation"}}


def seeded(network: nn.Module) -> nn.Module:
    """Fill parameters and running statistics in double precision, and put the network into evaluation mode.

    Weights of layers lie within +-sqrt(3 / n), n being the values that one of them holds for its first axis; scales
    (of normalisation, of the negative part of PReLU) and running variances in 0.5 to 1.5; biases and running means
    within +-0.5. Nothing is 0 or 1, so that no layer leaves its input as it is.
    """
    network = network.double().to_empty(device="cpu").eval()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if not tensor.is_floating_point():
                tensor.zero_()
                continue
            draw = torch.from_numpy(_random(name).random_sample(tuple(tensor.shape)))
            if tensor.ndim > 1:
                bound = (3 * tensor.shape[0] / tensor.numel()) ** 0.5
                tensor.copy_((2 * draw - 1) * bound)
            elif name.endswith(("bias", "running_mean")):
                tensor.copy_(draw - 0.5)
            else:
                tensor.copy_(draw + 0.5)
    return network


def make(name: str, channels: int, options: dict[str, bool]) -> tuple[nn.Module, Tensor]:
    """Make a network of two classes with seeded weights, and a grey image ``[1, channels, H, W]`` for it.

    Networks that take multiples of 8 have dilations of up to 16 at 1/8 resolution: the image is 18 such pixels wide.
    """
    with torch.device("meta"):
        network = create(name, channels, 2, **options)
    multiple = input_multiple(name)
    height, width = 2 * multiple, 144 if multiple == 8 else 3 * multiple
    grey = _random("image").random_sample((1, 1, height, width))
    return seeded(network), torch.from_numpy(2 * grey - 1).expand(-1, channels, -1, -1)


def looked_at(logits: Tensor) -> list[float]:
    """Give the logits at places spread evenly over classes and pixels."""
    flat = logits.detach().flatten()
    return flat[torch.linspace(0, len(flat) - 1, PLACES).long()].tolist()


def _random(name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(name.encode()))


def apart(network: nn.Module, image: torch.Tensor, row: dict) -> float:
    """Largest difference from the published logits, as a share of the largest of them."""
    with torch.inference_mode():
        found = torch.tensor(looked_at(network(image)), dtype=torch.float64)
    published = torch.tensor(row["logits"], dtype=torch.float64)
    return float((found - published).abs().max() / published.abs().max())


def titled(row: dict) -> str:
    return " ".join([row["network"], *row["options"]])


def test_every_network_is_there():
    assert {row["network"] for row in ROWS if not row["options"]} == set(PAPERS)
    assert {(row["network"], *row["options"]) for row in ROWS} >= {
        (name, *entry.first) for name, entry in PAPERS.items()
    }


@pytest.mark.parametrize("row", ROWS, ids=titled)
def test_logits_are_those_of_the_published_code(row):
    network, image = make(row["network"], row["channels"], row["options"])
    assert apart(network, image, row) < TOLERANCE, row["source"]


@pytest.mark.parametrize("name", ["enet", "enet-emkd", "espnet", "mobilenetv2"])
def test_no_activation_can_be_left_out_unseen(name):
    row = next(row for row in ROWS if row["network"] == name)
    network, image = make(name, row["channels"], row["options"])
    unseen = set()
    for path in [path for path, layer in network.named_modules() if isinstance(layer, ACTIVATIONS)]:
        above, _, last = path.rpartition(".")
        parent, activation = network.get_submodule(above), network.get_submodule(path)
        setattr(parent, last, nn.Identity())
        if apart(network, image, row) < 1e6 * TOLERANCE:
            unseen.add(path)
        setattr(parent, last, activation)
    assert unseen == IDLE.get(name, set())


@pytest.mark.parametrize(("name", "option"), [("enet", "upsampling_activation"), ("fanet", "smooth_grids")])
def test_the_first_revision_is_another_network_of_the_same_weights(name, option):
    rows = {tuple(row["options"]): row["logits"] for row in ROWS if row["network"] == name}
    now, first = (torch.tensor(rows[key], dtype=torch.float64) for key in ((), (option,)))
    assert (now - first).abs().max() > 1e-3 * now.abs().max()
