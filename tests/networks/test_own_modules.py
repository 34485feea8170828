"""Anybody's module by its import path: allowed by name, built, looked at, kept and read again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from napari_kdseg.errors import CheckpointError, CodeNotAllowedError, ConfigurationError
from napari_kdseg.networks import (
    NetworkSpec,
    allow_code,
    allowed_code,
    capture,
    create,
    find_taps,
    input_multiple,
    last_feature,
    load,
    save,
)

HERE = Path(__file__).parent
TWO = ("background", "tumour")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.delenv("KDSEG_ALLOW_CODE", raising=False)


@pytest.fixture
def allowed(monkeypatch):
    monkeypatch.setenv("KDSEG_ALLOW_CODE", "own_networks")


@pytest.mark.parametrize("name", ["Plain", "Dict", "Pair", "function_of_a_network"])
def test_any_module_puts_out_logits(name, allowed):
    network = create(f"python:own_networks:{name}", classes=3)
    assert network.training
    assert network.eval()(torch.zeros(2, 3, 48, 32)).shape == (2, 3, 48, 32)
    path = last_feature(network)
    with capture(network, [path]) as features:
        network(torch.zeros(1, 3, 64, 64))
    assert path.removeprefix("network.") == "deep"
    assert features[path].shape == (1, 8, 32, 32)
    assert find_taps(network, (3, 64, 64))["@feature"] == path


def test_options_are_the_arguments_of_the_class(allowed):
    network = create("python:own_networks:Pair", in_channels=1, classes=4, width=5, output=0)
    assert network.network.down[0].weight.shape[:2] == (5, 1)
    with pytest.raises(ConfigurationError, match=r"cannot be built with .*depth=3.* options it needs"):
        create("python:own_networks:Plain", depth=3)


def test_a_network_of_torchvision(monkeypatch):
    allow_code("torchvision.models")
    name = "python:torchvision.models.segmentation:lraspp_mobilenet_v3_large"
    network = create(name, classes=3, weights_backbone=None).eval()
    assert network(torch.zeros(1, 3, 64, 96)).shape == (1, 3, 64, 96)


def test_nothing_is_imported_unless_a_person_allowed_it(tmp_path, monkeypatch):
    """The module would leave a trace when imported."""
    trace = tmp_path / "trace"
    (tmp_path / "trap.py").write_text(
        f"from pathlib import Path\nPath({str(trace)!r}).write_text('')\n"
        "from torch import nn\nclass Net(nn.Module):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(CodeNotAllowedError, match=r"allow it: kdseg \.\.\. --allow-code trap:Net") as caught:
        create("python:trap:Net")
    assert caught.value.code == "trap:Net"
    assert not trace.exists()
    allow_code("trap")
    with pytest.raises(ConfigurationError, match="does not take an image of 3 channels"):
        create("python:trap:Net")
    assert trace.exists()


@pytest.mark.parametrize(
    ("allowed", "runs"),
    [
        ("own_networks:Plain", True),
        ("own_networks", True),
        ("python:own_networks:Plain", True),
        ("own_networks:Dict", False),
        ("own_net", False),
        ("own_networks.Plain", False),
    ],
)
def test_a_permission_is_for_what_it_names(allowed, runs):
    allow_code(allowed)
    if runs:
        create("python:own_networks:Plain")
    else:
        with pytest.raises(CodeNotAllowedError):
            create("python:own_networks:Plain")


def test_a_permission_names_code():
    for nonsense in ("", "*", "a b", "a,b", "mod:"):
        with pytest.raises(ConfigurationError, match="does not name code"):
            allow_code(nonsense)
    assert allowed_code() == []


def test_a_checkpoint_comes_back_and_gives_itself_no_permission(tmp_path, allowed, monkeypatch):
    spec = NetworkSpec(
        architecture="python:own_networks:Dict",
        classes=TWO,
        options={"width": 6},
        multiple=2,
        versions={"t": "1"},
    )
    assert spec.architecture == "python:own_networks:Dict", "capitals matter to Python"
    assert input_multiple(spec) == 2
    assert input_multiple(spec.architecture) == 32
    network = create(spec.architecture, width=6).eval()
    path = save(tmp_path / "mine.safetensors", network, spec)
    checkpoint = load(path)
    image = torch.rand(1, 3, 32, 32)
    assert checkpoint.spec == spec
    assert torch.equal(checkpoint.module(image), network(image))
    monkeypatch.delenv("KDSEG_ALLOW_CODE")
    with pytest.raises(CodeNotAllowedError, match="If you trust it, allow it: kdseg"):
        load(path)


def test_its_weights_are_read_with_or_without_our_wrapper(tmp_path, allowed):
    spec = NetworkSpec(architecture="python:own_networks:Dict", classes=TWO)
    network = create(spec.architecture)
    states = {
        "inner.pt": network.network.state_dict(),
        "outer.pt": network.state_dict(),
        "lit.ckpt": {"state_dict": {f"model.{k}": v for k, v in network.network.state_dict().items()}},
    }
    for name, state in states.items():
        torch.save(state, tmp_path / name)
        read = load(tmp_path / name, expect=spec).module.state_dict()
        assert all(torch.equal(read[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nothing_there:Net", r"module nothing_there cannot be imported.*PYTHONPATH"),
        ("own_networks", "does not name a class"),
        ("own_networks:Nothing", "has no Nothing. Check the name"),
        ("own_networks:NoNetwork", "is no torch.nn.Module"),
        ("own_networks:instance", "is a TwoClassesAlways, not a class or function"),
        ("own_networks:no_network", "made a str, not a torch.nn.Module"),
        (
            "own_networks:Small",
            r"into \[1, 3, 32, 32\], but a segmentation network puts out \[1, 3, 64, 64\]",
        ),
        ("own_networks:Vector", r"into \[1, 3\], but a segmentation network"),
        ("own_networks:TwoClassesAlways", r"into \[1, 2, 64, 64\], but .* \[1, 3, 64, 64\]"),
    ],
)
def test_what_is_no_segmentation_network_is_refused(name, sentence, monkeypatch):
    monkeypatch.setenv("KDSEG_ALLOW_CODE", "own_networks,nothing_there")
    with pytest.raises(ConfigurationError, match=sentence):
        create(f"python:{name}", classes=3)


def test_other_channels_and_outputs_that_are_not_there(allowed):
    with pytest.raises(ConfigurationError, match="does not take an image of 4 channels"):
        create("python:own_networks:TwoClassesAlways", in_channels=4)
    with pytest.raises(ConfigurationError, match=r"a dict of 'aux', 'out', and no 'main' among them"):
        create("python:own_networks:Dict", output="main")


def test_weights_of_another_network_are_refused_whole(tmp_path, allowed):
    torch.save(create("enet").state_dict(), tmp_path / "enet.pth")
    with pytest.raises(CheckpointError, match="does not hold the weights of python:own_networks:Plain"):
        load(tmp_path / "enet.pth", expect=NetworkSpec(architecture="python:own_networks:Plain", classes=TWO))
