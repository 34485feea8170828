"""A checkpoint is described from its header: as loading it would, and without its weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_kdseg.errors import CheckpointError, CodeNotAllowedError, WeightsOnlyError
from napari_kdseg.inference.network import header as headers
from napari_kdseg.inference.network.header import build_blank, read_header
from napari_kdseg.networks import NetworkSpec, count_parameters, create, inspect, load, save
from napari_kdseg.networks.checkpoints.formats import HEADER_KEY


def write(path, architecture="enet", classes=("background", "a", "b"), **options):
    module = create(architecture, 3, len(classes), **options)
    return save(
        path, module, NetworkSpec(architecture=architecture, classes=classes, mpp=0.5, options=options)
    )


@pytest.mark.parametrize("architecture", ["enet", "unet/resnet18", "raunet"])
def test_it_says_what_loading_says(tmp_path, architecture, monkeypatch):
    path = write(tmp_path / "a.safetensors", architecture)
    checkpoint = load(path)
    monkeypatch.setattr(headers, "load", None)  # whoever calls it fails
    header = read_header(path)
    assert header.spec == checkpoint.spec == inspect(path)
    assert header.parameters == sum(item.numel() for item in checkpoint.module.parameters())


def test_weights_of_another_network_are_refused(tmp_path):
    path = write(tmp_path / "a.safetensors")
    other = write(tmp_path / "b.safetensors", classes=("background", "a"))
    with headers.safe_open(path, framework="pt") as file:
        description = file.metadata()
    mixed = tmp_path / "mixed.safetensors"
    save_file(load_file(other), mixed, metadata=description)
    with pytest.raises(CheckpointError) as by_header:
        read_header(mixed)
    with pytest.raises(CheckpointError) as by_loading:
        load(mixed)
    assert str(by_header.value) == str(by_loading.value)


def test_a_network_that_cannot_be_built_and_code_that_nobody_allowed(tmp_path):
    """The messages are those of loading; the second is a question to a person."""
    tensors = {"weight": torch.zeros(1)}
    for architecture, kind in (
        ("unknown-net", CheckpointError),
        ("python:some.module:Net", CodeNotAllowedError),
    ):
        spec = NetworkSpec.model_construct(architecture=architecture, classes=("background", "a"))
        path = tmp_path / "a.safetensors"
        save_file(tensors, path, metadata={HEADER_KEY: spec.model_dump_json()})
        with pytest.raises(kind) as by_header:
            read_header(path)
        with pytest.raises(kind) as by_loading:
            load(path)
        assert str(by_header.value) == str(by_loading.value)


def test_a_file_that_was_cut_short_is_refused(tmp_path):
    path = write(tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="half of it"):
        read_header(path)


def test_files_of_weights_only_are_asked_about_as_before(tmp_path):
    weights = create("enet", 3, 2).state_dict()
    torch.save(weights, tmp_path / "a.pt")
    save_file(weights, tmp_path / "b.safetensors")
    for path in (tmp_path / "a.pt", tmp_path / "b.safetensors"):
        with pytest.raises(WeightsOnlyError):
            read_header(path)


def test_building_a_blank_network_draws_no_random_numbers():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    blank = build_blank(NetworkSpec(architecture="enet", classes=("background", "a")))
    assert torch.equal(torch.rand(4), expected)
    assert not blank.training
    assert count_parameters(blank) == count_parameters(create("enet", 3, 2))
