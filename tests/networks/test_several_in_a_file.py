"""Checkpoints that hold more than one network, or numbers that are none: what is taken is right, or said."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_kdseg.errors import CheckpointError
from napari_kdseg.networks import load, load_encoder
from napari_kdseg.networks.checkpoints.keys import fitting_names


class Small(nn.Module):
    """A network with normalisation, small enough to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Conv2d(4, 2, 1)


def numbered(value: float) -> dict[str, torch.Tensor]:
    return {key: torch.full_like(tensor, value) for key, tensor in Small().state_dict().items()}


def without_buffers(state):
    return {key: tensor for key, tensor in state.items() if "running" not in key and "num_batches" not in key}


def behind(prefix, state):
    return {prefix + key: tensor for key, tensor in state.items()}


def fitted(state):
    module = Small()
    buffers = [name for name, _ in module.named_buffers()]
    return fitting_names(state, {k: v.shape for k, v in module.state_dict().items()}, "This file", buffers)


AVERAGED = (
    *("ema.", "model_ema.", "ema_model.module.", "ema_state_dict.", "swa_model.module.", "averaged_model."),
    *("EMAModel.", "modelEma.", "ema_0.999.", "shadow."),
)


@pytest.mark.parametrize("prefix", AVERAGED)
@pytest.mark.parametrize("whole", ["", "model.", "state_dict.net.", "_orig_mod."])
def test_averaged_weights_take_the_buffers_that_they_lack_from_the_whole_ones(prefix, whole):
    alone = behind(whole, numbered(1)) | behind(prefix, without_buffers(numbered(2)))
    named = fitted(alone)
    assert named.tensors.keys() == Small().state_dict().keys()
    for key, tensor in named.tensors.items():
        assert (tensor == (1 if "running" in key or "num_batches" in key else 2)).all(), key
    assert "The averaged weights" in named.notes[0]
    assert "3 buffers" in named.notes[1]
    both = fitted(behind(whole, numbered(1)) | behind(prefix, numbered(2)))
    assert all((tensor == 2).all() for tensor in both.tensors.values()), (
        "their own buffers, where they have them"
    )
    assert len(both.notes) == 1


def test_averaged_weights_that_lack_parameters_are_passed_over_and_that_is_said():
    part = {key: tensor for key, tensor in numbered(2).items() if not key.startswith("head")}
    named = fitted(numbered(1) | behind("ema.", part))
    assert all((tensor == 1).all() for tensor in named.tensors.values())
    assert named.notes == (
        "The averaged weights (names behind 'ema') lack 2 of 6 weights of the network, so those behind no prefix are "
        "taken.",
    )


@pytest.mark.parametrize(
    ("averaged", "trained"),
    [
        ("ema.ema_model.", "ema.online_model."),  # ema-pytorch
        ("state_dict.", "current_model_state."),  # WeightAveraging of Lightning
    ],
)
def test_names_that_say_which_of_two_is_the_averaged_one(averaged, trained):
    named = fitted(behind(averaged, numbered(2)) | behind(trained, numbered(1)))
    assert all((tensor == 2).all() for tensor in named.tensors.values())
    third = behind("model.", numbered(1))  # the one being trained, kept under a second name
    again = fitted(behind("ema.ema_model.", numbered(2)) | behind("ema.online_model.", numbered(1)) | third)
    assert all((tensor == 2).all() for tensor in again.tensors.values())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("hematoxylin_net.", "eosin_net."),
        ("teacher.", "student."),
        ("schema.", "model."),
        ("swarm.", "net."),
        ("model.", "best_model."),
        ("network_a.", "network_b."),
        ("", "cinema."),
        ("ema.", "swa."),
        ("ema_a.", "ema_b."),
    ],
)
def test_letters_within_a_word_decide_nothing(one, other):
    with pytest.raises(CheckpointError, match="holds several networks of this kind") as caught:
        fitted(behind(one, numbered(1)) | behind(other, numbered(2)))
    assert all(repr(name[:-1]) in str(caught.value) for name in (one, other) if name)


def test_which_of_two_networks_was_averaged_is_not_guessed():
    with pytest.raises(CheckpointError, match="several networks"):
        fitted(behind("a.", numbered(1)) | behind("b.", numbered(2)) | behind("ema.", numbered(3)))


def test_a_network_that_is_kept_twice_is_one():
    assert fitted(behind("model.", numbered(1)) | behind("best.", numbered(1))).notes == ()


LOSSES = (
    "loss_function.class_weight",
    "criterion.weight",
    "train_metrics.confmat",
    "valMetrics.confmat",
    "class_weights",
)


@pytest.mark.parametrize("prefix", ["", "state_dict.", "state_dict.model."])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_beside_the_network_is_left_out_with_a_prefix_and_without(prefix, loss):
    named = fitted(behind(prefix, numbered(1) | {loss: torch.ones(2)}))
    assert named.tensors.keys() == Small().state_dict().keys()
    assert named.notes == (f"Left out, because it lies beside the network: {prefix}{loss}.",)


@pytest.mark.parametrize("name", ["refine.weight", "glossary.weight", "conv.loss.weight", "pixel_mean"])
def test_what_may_be_a_part_of_the_network_is_not_left_out(name):
    assert name in fitted(numbered(1) | {name: torch.ones(2)}).tensors
    deeper = name.replace("refine.", "refine.head.")
    assert deeper in fitted(numbered(1) | {deeper: torch.ones(2)}).tensors


def test_what_lies_beside_a_prefix_is_said():
    beside = {f"refine.{i}.weight": torch.ones(2) for i in range(5)} | {"epoch": torch.tensor(3)}
    assert fitted(behind("net.", numbered(1)) | beside).notes == (
        "Left out, because it lies beside the network: refine.0.weight, refine.1.weight, refine.2.weight and 2 more.",
    )


# From files


def test_momenta_of_an_optimiser_are_no_second_network(tmp_path, enet, enet_spec):
    momenta = {key: torch.zeros_like(value) for key, value in enet.state_dict().items()}
    torch.save(
        {"model": enet.state_dict(), "epoch": torch.tensor(3), "optimizer": {"exp_avg": momenta}},
        tmp_path / "x.pt",
    )
    read = load(tmp_path / "x.pt", expect=enet_spec)
    assert torch.equal(read.module.state_dict()["classifier.weight"], enet.state_dict()["classifier.weight"])
    assert read.notes == ()


def test_nested_sets_of_any_name_are_asked_about_and_averaged_ones_completed(tmp_path, enet, enet_spec):
    state = enet.state_dict()
    other = {key: value + 1 for key, value in state.items()}
    torch.save({"coarse": state, "fine": other}, tmp_path / "two.pt")
    with pytest.raises(CheckpointError, match="names behind 'coarse' and 'fine'"):
        load(tmp_path / "two.pt", expect=enet_spec)
    parameters = {key: value + 1 for key, value in enet.named_parameters()}
    torch.save({"state_dict": state, "model_ema": {"module": parameters, "decay": 0.9}}, tmp_path / "ema.pt")
    read = load(tmp_path / "ema.pt", expect=enet_spec)
    for key, value in read.module.state_dict().items():
        assert torch.equal(value, parameters[key] if key in parameters else state[key])
    assert len(read.notes) == 2


def test_an_encoder_of_averaged_weights_without_buffers(tmp_path):
    import torchvision

    from napari_kdseg.networks import create

    source = torchvision.models.resnet18(weights=None)
    averaged = {key: torch.full_like(value, 0.5) for key, value in source.named_parameters()}
    torch.save({"model": source.state_dict(), "ema": {"module": averaged}}, tmp_path / "x.pt")
    encoder = load_encoder(create("unet/resnet18"), tmp_path / "x.pt").encoder.state_dict()
    assert (encoder["conv1.weight"] == 0.5).all()
    assert torch.equal(encoder["bn1.running_var"], source.state_dict()["bn1.running_var"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classifier.weight", float("nan")),
        ("initial.norm.bias", float("inf")),
        ("initial.norm.running_mean", float("nan")),
        ("initial.norm.running_var", float("inf")),  # the output would be finite, and mean nothing
        ("initial.conv.weight", -float("inf")),
        ("down1.branch.0.weight", 1e300),  # beyond what float32 can hold
    ],
)
def test_one_number_that_is_none_is_enough_to_refuse(name, value, tmp_path, enet, enet_spec):
    state = {key: tensor.double() for key, tensor in enet.state_dict().items()}
    state[name].view(-1)[-1] = value
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(
        CheckpointError, match=rf"NaN or infinite in 1 of its \d+ weights \({name}\).*diverged"
    ):
        load(tmp_path / "x.pt", expect=enet_spec)


def test_checkpoints_of_ours_and_encoders_with_numbers_that_are_none(tmp_path, enet, enet_spec):
    import torchvision
    from safetensors.torch import load_file, save_file

    from napari_kdseg.networks import create, save

    path = save(tmp_path / "x.safetensors", enet, enet_spec)
    state = load_file(path)
    state["classifier.weight"][:] = float("nan")
    save_file(state, path, {"kdseg": enet_spec.model_dump_json()})
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        load(path)
    resnet = torchvision.models.resnet18(weights=None)
    resnet.layer1[0].conv1.weight.data[0, 0, 0, 0] = float("nan")
    torch.save(resnet.state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(CheckpointError, match=r"NaN or infinite in 1 .*layer1\.0\.conv1\.weight"):
        load_encoder(create("unet/resnet18"), tmp_path / "resnet18.pth")
