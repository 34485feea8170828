"""Features captured inside a network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.networks import capture, create, find_taps, unwrap
from napari_kdseg.networks.papers.blocks import PaperNetwork


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def test_an_inplace_activation_does_not_overwrite_a_feature():
    network = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))
    with capture(network, ["0"]) as features:
        network(torch.tensor([-1.0, 2.0]))
    assert features["0"].tolist() == [-1.0, 2.0]


def test_features_carry_gradients_and_hooks_are_removed():
    network = create("unet/resnet18")
    before = hooks(network)
    with capture(network, ["encoder.layer2", "decoder"]) as features:
        network(torch.rand(2, 3, 32, 32))
    assert hooks(network) == before
    features["encoder.layer2"].square().mean().backward()
    assert network.encoder.conv1.weight.grad.abs().sum() > 0
    assert network.segmentation_head[0].weight.grad is None


def test_hooks_are_removed_after_a_failure():
    network = create("enet")
    with pytest.raises(RuntimeError), capture(network, ["stage1"]):
        network(torch.rand(1, 2, 32, 32))
    assert hooks(network) == 0
    with pytest.raises(ConfigurationError), capture(network, ["stage1", "stage9"]):
        pass
    assert hooks(network) == 0


def test_of_several_outputs_the_deepest_is_taken():
    network = create("segformer/mit_b0").eval()
    with capture(network, ["encoder"]) as features, torch.inference_mode():
        network(torch.rand(1, 3, 64, 64))
    assert features["encoder"].shape == (1, 256, 2, 2)


def test_unknown_layers_are_explained():
    network = create("enet")
    with (
        pytest.raises(ConfigurationError, match=r"no layer 'stage_1'. Did you mean stage1"),
        capture(network, ["stage_1"]),
    ):
        pass
    with pytest.raises(ConfigurationError, match="Its main parts are initial, down1"), capture(network, [""]):
        pass


def test_a_layer_that_did_not_run_is_explained():
    with capture(create("enet"), ["stage1"]) as features:
        pass
    with pytest.raises(ConfigurationError, match="the network did not run it"):
        _ = features["stage1"]


def test_wrapped_networks_are_looked_through():
    network = create("enet").eval()
    compiled = torch.compile(network, backend="eager")
    assert unwrap(compiled) is network
    with capture(compiled, ["stage5"]) as features, torch.inference_mode():
        compiled._orig_mod(torch.rand(1, 3, 32, 32))
    assert features["stage5"].shape == (1, 16, 16, 16)


def test_fabric_wrappers_are_taken_off():
    from lightning_fabric import Fabric

    network = create("enet")
    wrapped = Fabric(accelerator="cpu", devices=1).setup(network)
    assert wrapped is not network
    assert unwrap(wrapped) is network
    with capture(wrapped, ["stage5"]) as features:
        wrapped(torch.rand(2, 3, 16, 16))
    assert features["stage5"].requires_grad


@pytest.mark.parametrize("attribute", ["named_layers", "roles"])
def test_a_network_names_its_layers_also_by_the_word_of_before(attribute):
    """Classes that somebody wrote may still call them roles."""
    layers = dict.fromkeys(("@stem", "@shallow", "@middle", "@bottom", "@deep"), "body")
    kind = type("Own", (PaperNetwork,), {"last_feature": "classifier", attribute: layers})
    network = kind()
    network.body, network.classifier = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
    assert find_taps(network, (3, 16, 16)) == {**layers, "@feature": "classifier"}
