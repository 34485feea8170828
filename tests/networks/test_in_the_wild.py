"""Checkpoints as training programs leave them, encoders' pretrained weights, and heads for other classes."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from napari_kdseg.errors import CheckpointError, ConfigurationError
from napari_kdseg.networks import NetworkSpec, create, load, load_encoder, save, smallest_input
from napari_kdseg.networks.checkpoints.formats import is_checkpoint

TWO = ("background", "tumour")
THREE = ("background", "a", "b")


def lit(state):
    """A .ckpt of Lightning, as ``Trainer.save_checkpoint`` writes it."""
    return {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{key}": value for key, value in state.items()}
        | {"loss.weight": torch.ones(2)},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.9), "best": np.float64(0.9)}},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 1e-3}]}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"args": Namespace(lr=1e-3), "root": Path("/data"), "classes": 2},
    }


@pytest.mark.parametrize(
    "wrap",
    [
        lit,
        lambda s: {"net": {f"net.{k}": v for k, v in s.items()}},
        lambda s: {"network": {f"_orig_mod.{k}": v for k, v in s.items()}},
        lambda s: {"model": {f"module._orig_mod.{k}": v for k, v in s.items()}, "optimizer": {"lr": 1}},
        lambda s: {"state_dict": {f"segmentor.backbone.{k}": v for k, v in s.items()}},
        lambda s: {"model_ema": {"module": {f"module.{k}": v for k, v in s.items()}, "decay": 0.99}},
        lambda s: {"ema": {f"module.{k}": v for k, v in s.items()} | {"n_averaged": torch.tensor(7)}},
        lambda s: {"ema": {"decay": 0.99, "shadow": [torch.ones(1)]}, "model_state_dict": s},
        lambda s: {"params": s, "metrics": {"dice": 0.5}},
    ],
    ids=["lightning", "net", "network", "data parallel", "mm", "timm ema", "swa", "useless ema", "params"],
)
def test_weights_are_found_wherever_programs_put_them(wrap, tmp_path, enet, enet_spec):
    torch.save(wrap(enet.state_dict()), tmp_path / "x.ckpt")
    read = load(tmp_path / "x.ckpt", expect=enet_spec).module.state_dict()
    assert all(torch.equal(read[key], value) for key, value in enet.state_dict().items())


def test_averaged_weights_go_first(tmp_path, enet, enet_spec):
    averaged = {key: value + 1 for key, value in enet.state_dict().items()}
    flat = {f"model.{k}": v for k, v in enet.state_dict().items()} | {
        f"ema.{k}": v for k, v in averaged.items()
    }
    torch.save({"state_dict": enet.state_dict(), "ema_state_dict": averaged}, tmp_path / "nested.pt")
    torch.save({"state_dict": flat}, tmp_path / "flat.pt")
    for path in tmp_path.iterdir():
        read = load(path, expect=enet_spec).module.state_dict()
        assert torch.equal(read["classifier.weight"], averaged["classifier.weight"])


def test_two_networks_in_one_file_are_not_guessed_between(tmp_path, enet, enet_spec):
    state = {f"student.{key}": value for key, value in enet.state_dict().items()}
    torch.save(state | {f"teacher.{k}": v + 1 for k, v in enet.state_dict().items()}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"several networks .*'student' and 'teacher'"):
        load(tmp_path / "x.pt", expect=enet_spec)


def test_the_weights_of_a_monai_bundle(tmp_path, enet, enet_spec):
    for folder in ("configs", "models"):
        (tmp_path / "bundle" / folder).mkdir(parents=True)
    torch.save(enet.state_dict(), tmp_path / "bundle" / "models" / "model.pt")
    assert is_checkpoint(tmp_path / "bundle")
    assert load(tmp_path / "bundle", expect=enet_spec).path.name == "model.pt"


# New heads


@pytest.mark.parametrize("name", ["enet", "segformer/mit_b0", "fpn/mobilenet_v2"])
def test_another_number_of_classes_gets_a_new_head(name, tmp_path):
    spec = NetworkSpec(
        architecture=name, classes=TWO, colours=("#000000", "#ff0000"), metrics={"val_dice": 0.8}
    )
    network = create(name)
    path = save(tmp_path / "x.safetensors", network, spec)
    found = load(path, new_head=THREE)
    assert found.spec.classes == THREE
    assert (found.spec.colours, found.spec.metrics) == (None, {})
    state = found.module.state_dict()
    assert 1 <= len(found.new_head) <= 2
    assert all(torch.equal(state[k], v) for k, v in network.state_dict().items() if k not in found.new_head)
    assert found.module(torch.rand(2, 3, 64, 64)).shape == (2, 3, 64, 64)
    torch.save(network.state_dict(), tmp_path / "plain.pth")
    plain = load(tmp_path / "plain.pth", expect=NetworkSpec(architecture=name, classes=THREE), new_head=THREE)
    assert plain.new_head == found.new_head
    assert load(path, new_head=("background", "gland")).new_head == (), "the same number: nothing is replaced"


def test_a_new_head_does_not_excuse_another_network(tmp_path, enet, enet_spec):
    path = save(tmp_path / "x.safetensors", enet, enet_spec)
    torch.save(enet.state_dict(), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="ask for a new head"):
        load(path, expect=NetworkSpec(architecture="enet", classes=THREE))
    with pytest.raises(CheckpointError, match="has the architecture enet"):
        load(path, expect=NetworkSpec(architecture="unet/resnet18", classes=THREE), new_head=THREE)
    with pytest.raises(CheckpointError, match="does not hold the weights of unet/resnet18"):
        load(
            tmp_path / "x.pth",
            expect=NetworkSpec(architecture="unet/resnet18", classes=THREE),
            new_head=THREE,
        )


# Encoders


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("unet/resnet18", lambda: torchvision.models.resnet18(weights=None)),
        ("deeplabv3plus/mobilenet_v2", lambda: torchvision.models.mobilenet_v2(weights=None)),
        ("unet/tu-resnet18", lambda: timm.create_model("resnet18")),
        ("upernet/tu-convnext_atto", lambda: timm.create_model("convnext_atto")),
        ("unet/tu-mobilenetv3_small_100", lambda: timm.create_model("mobilenetv3_small_100")),
        ("dpt/tu-vit_tiny_patch16_224", lambda: timm.create_model("vit_tiny_patch16_224")),
        ("linknet/resnet18", lambda: create("unet/resnet18", classes=5)),
    ],
)
def test_pretrained_encoders_from_a_file(name, make, tmp_path):
    source = make()
    torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "x.pth")
    network = create(name)
    decoder = {k: v.clone() for k, v in network.decoder.state_dict().items()}
    load_encoder(network, tmp_path / "x.pth")
    read = {float(v.double().sum()) for v in network.encoder.state_dict().values()}
    inside = [float(v.double().sum()) in read for k, v in source.state_dict().items() if v.ndim == 4]
    assert sum(inside) >= len(inside) - (12 if "linknet" in name else 2), "the decoder's, or the classifier's"
    assert all(torch.equal(v, network.decoder.state_dict()[k]) for k, v in decoder.items())


def test_encoders_that_do_not_fit_load_nothing(tmp_path):
    save_file(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.safetensors")
    for name, channels, sentence in (
        (
            "unet/resnet34",
            3,
            r"does not hold the weights of this encoder \(ResNetEncoder\): \d+ of \d+ are missing",
        ),
        ("unet/mobilenet_v2", 3, "does not hold the weights of this encoder"),
        ("unet/resnet18", 4, "made for another number of channels"),
    ):
        network = create(name, channels)
        before = {key: value.clone() for key, value in network.state_dict().items()}
        with pytest.raises(CheckpointError, match=sentence):
            load_encoder(network, tmp_path / "resnet18.safetensors")
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    with pytest.raises(ConfigurationError, match="has no encoder of its own"):
        load_encoder(create("enet"), tmp_path / "resnet18.safetensors")
    half = (tmp_path / "resnet18.safetensors").read_bytes()[:9999]
    (tmp_path / "half.safetensors").write_bytes(half)
    with pytest.raises(CheckpointError, match="only half of it"):
        load_encoder(create("unet/resnet18"), tmp_path / "half.safetensors")


# Every architecture


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("unet/tu-swin_tiny_patch4_window7_224", 64),
        ("upernet/tu-swin_tiny_patch4_window7_224", 96),
        ("dpt/tu-vit_tiny_patch16_224", 96),
        ("pan/resnet18", 128),
        ("manet/timm-regnetx_002", 64),
    ],
)
def test_pairs_that_need_care(name, size):
    network = create(name, classes=3).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, size, size)).shape == (1, 3, size, size)


def test_the_smallest_image_is_known():
    assert smallest_input(NetworkSpec(architecture="pan/resnet18", classes=TWO)) == 128
    assert smallest_input(NetworkSpec(architecture="unet/resnet18", classes=TWO)) == 32


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("unet/tu-vit_tiny_patch16_224", "one resolution, which only DPT takes. Write dpt/"),
        ("dpt/resnet18", "DPT takes vision transformers of timm with patches of 16 pixels. Write dpt/tu-vit"),
        ("dpt/tu-convnext_atto", "DPT takes vision transformers"),
        (
            "deeplabv3plus/densenet121",
            "which this encoder cannot. Choose another, such as deeplabv3plus/resnet50",
        ),
        ("pan/tu-swin_tiny_patch4_window7_224", "which this encoder cannot"),
        ("linknet/mit_b0", "not supported for Linknet. Choose another encoder"),
    ],
)
def test_pairs_that_do_not_exist_say_what_would_do(name, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        create(name)
