"""Networks of papers that were corrected: files written before are the networks that they were, and stay them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from napari_kdseg.distillation import LOGITS, StudentStage
from napari_kdseg.errors import CheckpointError
from napari_kdseg.networks import NetworkSpec, create, find_taps, inspect, load, save
from napari_kdseg.networks.anatomy.named_layers import keep_named_layers
from napari_kdseg.networks.catalogue import PAPERS
from napari_kdseg.training.run.teacher_memory import TeacherMemory
from napari_kdseg.training.run.weights import load_weights

CORRECTED = [name for name, entry in PAPERS.items() if entry.first]
IMAGE = torch.linspace(-2, 2, 3 * 32 * 48).reshape(1, 3, 32, 48)
TWO = ("background", "tumour")


def logits(network: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return network.eval()(IMAGE)


def written_before(path: Path, name: str) -> nn.Module:
    """Write a file as this project did before there were revisions; return the network it is of."""
    network = create(name, **PAPERS[name].first)
    header = {
        "architecture": name,
        "in_channels": 3,
        "classes": list(TWO),
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "versions": {"napari-kdseg": "0.1.0"},
    }
    save_file(network.state_dict(), path, metadata={"kdseg": json.dumps(header), "format": "pt"})
    return network


def header(path: Path) -> dict:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["kdseg"])


@pytest.mark.parametrize("name", CORRECTED)
def test_a_file_from_before_predicts_as_it_did(name, tmp_path):
    path = tmp_path / "old.safetensors"
    network = written_before(path, name)
    loaded = load(path)
    assert torch.equal(logits(loaded.module), logits(network))
    now = create(name)
    now.load_state_dict(network.state_dict())
    assert not torch.allclose(logits(now), logits(network), rtol=0.01)


def test_a_file_from_before_stays_what_it_was(tmp_path):
    """Saved again, with a new head, or where a person names the architecture beside the file."""
    path = tmp_path / "old.safetensors"
    network = written_before(path, "enet")
    asked = load(path, expect=NetworkSpec(architecture="enet", classes=TWO))
    again = save(tmp_path / "again.safetensors", asked.module, asked.spec)
    assert header(again)["revision"] == 1
    assert torch.equal(logits(load(again).module), logits(network))
    other = load(path, new_head=("background", "gland", "tumour"))
    assert other.spec.revision == 1
    assert torch.equal(features(other.module), features(network))


def features(network: nn.Module) -> torch.Tensor:
    seen = []
    hook = network.stage5.register_forward_hook(lambda _layer, _inputs, output: seen.append(output))
    logits(network)
    hook.remove()
    return seen[0]


def test_new_files_are_of_the_present_revision(tmp_path):
    spec = NetworkSpec(architecture="enet", classes=TWO)
    path = save(tmp_path / "new.safetensors", create("enet"), spec)
    assert header(path)["revision"] == inspect(path).revision == 2


def test_a_revision_to_come_asks_for_an_update(tmp_path):
    path = tmp_path / "later.safetensors"
    said = {"architecture": "enet", "classes": TWO, "revision": 3}
    save_file(create("enet").state_dict(), path, metadata={"kdseg": json.dumps(said)})
    with pytest.raises(CheckpointError, match="newer version of this program; update it"):
        load(path)


def test_weights_of_another_revision_are_not_taken_into_a_stage(tmp_path):
    """A stage that another run trained before: the same names and shapes, but they mean something else."""
    written_before(tmp_path / "old.safetensors", "enet")
    spec = NetworkSpec(architecture="enet", classes=TWO)
    stage = StudentStage(create("enet"), None)
    with pytest.raises(CheckpointError, match="another revision of enet"):
        load_weights(stage, spec, tmp_path / "old.safetensors")
    first = spec.model_copy(update={"revision": 1})
    load_weights(stage, first, tmp_path / "old.safetensors")


def test_a_run_from_before_keeps_the_layers_of_its_roles():
    for name, roles in {
        "erfnet": {"@shallow": "stage1"},
        "espnet": {"@stem": "join1"},
        "mobilenetv2": {"@stem": "features.3", "@middle": "features.16"},
        "enet": {},
    }.items():
        network = create(name)
        now = find_taps(network, (3, 64, 64))
        keep_named_layers(network, 1)
        assert find_taps(network, (3, 64, 64)) == now | roles
        keep_named_layers(network, 2)
        assert find_taps(network, (3, 64, 64)) == now


def test_a_shared_memory_knows_networks_of_the_same_weights_apart(tmp_path):
    for name, option in (
        ("enet", "upsampling_activation"),
        ("fanet", "smooth_grids"),
        ("resnet18", "align_corners"),
    ):
        image = torch.rand(1, 3, 64, 96)
        one, other = create(name).eval(), create(name, **{option: True}).eval()
        other.load_state_dict(one.state_dict())
        with TeacherMemory(tmp_path / name, print, shared=True) as memory, torch.no_grad():
            remembered = [memory.run_frozen("0", "teacher", network, image, ()) for network in (one, other)]
            for network, kept in zip((one, other), remembered, strict=True):
                assert torch.equal(kept[LOGITS], network(image))
