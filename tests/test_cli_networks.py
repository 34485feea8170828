"""``kdseg`` with networks people bring, in this process: what is typed, and the sentence that comes back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from PIL import Image

from napari_kdseg.cli import main
from napari_kdseg.networks import create, inspect, load

OWN = "python:own_networks:Dict"


@pytest.fixture
def kdseg(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "networks"))
    monkeypatch.setenv("KDSEG_ALLOW_CODE", "")

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["kdseg", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return int(end.value.code or 0), " ".join((said.out + said.err).split())

    return run


def test_weights_are_adopted_once_and_open_everywhere(kdseg, tmp_path):
    network = create("enet")
    torch.save(
        {"state_dict": {f"model.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "x.ckpt"
    )
    code, said = kdseg("info", tmp_path / "x.ckpt")
    assert (code, "kdseg adopt" in said) == (2, True)
    adopt = (
        "adopt",
        tmp_path / "x.ckpt",
        tmp_path / "x.safetensors",
        "--architecture",
        "enet",
        "--mpp",
        "0.5",
    )
    code, said = kdseg(
        *adopt, "--classes", "background, tumour", "--mean", "0.7,0.5,0.6", "--std", "0.2,0.2,0.2"
    )
    assert code == 0, said
    assert "enet, 3 channels, 2 classes (background, tumour), 0.5 µm per pixel" in said
    assert inspect(tmp_path / "x.safetensors").mean == (0.7, 0.5, 0.6)
    code, said = kdseg(*adopt, "--classes", "background,a,b")
    assert code == 2
    assert "has 2 classes, the network asked for 3" in said
    assert kdseg(*adopt, "--classes", "a,b", "--mean", "red")[1].startswith("--mean wants numbers")


def test_what_was_decided_of_a_file_is_said_a_line_each(kdseg, tmp_path):
    state = create("enet").state_dict()
    averaged = {
        f"ema.{key}": value + 1 for key, value in state.items() if "running" not in key and value.ndim
    }
    torch.save({"state_dict": {**state, **averaged, "loss_fn.weight": torch.ones(2)}}, tmp_path / "x.ckpt")
    code, said = kdseg(
        "adopt", tmp_path / "x.ckpt", tmp_path / "x.safetensors", "--architecture", "enet", "--classes", "a,b"
    )
    assert code == 0, said
    assert "The averaged weights (names behind 'state_dict.ema') are taken" in said
    assert "buffers that they lack (statistics of normalisation) are those behind 'state_dict'" in said
    assert "Left out, because it lies beside the network: state_dict.loss_fn.weight." in said


def test_a_folder_of_tiles_is_described_and_what_is_wrong_with_it(kdseg, tmp_path):
    for index in range(4):
        for sub, mode in (("images", "RGB"), ("masks", "L")):
            (tmp_path / sub).mkdir(exist_ok=True)
            Image.new(mode, (16, 16), 1).save(tmp_path / sub / f"{index}.png")
    code, said = kdseg("info", tmp_path)
    assert code == 0, said
    assert "4 tiles: 3 for training, 1 for validation" in said
    assert "decided 1: Not every tile has a patient" in said
    Image.new("L", (16, 16), 255).save(tmp_path / "masks" / "0.png")
    code, said = kdseg("info", tmp_path)
    assert (code, "Masks are written in two ways: 3 masks (1, 2, 3) with 1, 1 mask (0) with 255" in said) == (
        2,
        True,
    )


def test_a_folder_of_save_pretrained_is_a_network_and_no_run(kdseg, tmp_path):
    """It holds a ``config.json``, as a run folder does."""
    smp.Unet("resnet18", encoder_weights=None, classes=3).save_pretrained(tmp_path / "model")
    code, said = kdseg("info", tmp_path / "model", "--no-cost")
    assert code == 0
    assert "architecture: unet/resnet18" in said
    assert "parameters: 14,328,499" in said
    assert "not finished" not in said


def test_code_is_allowed_by_the_flag_alone(kdseg, tmp_path, monkeypatch):
    monkeypatch.setenv("KDSEG_ALLOW_CODE", "own_networks")
    torch.save(create(OWN, width=5).network.state_dict(), tmp_path / "own.pt")
    monkeypatch.setenv("KDSEG_ALLOW_CODE", "")
    adopt = (
        "adopt", tmp_path / "own.pt", tmp_path / "own.safetensors", "--architecture", OWN, "--option", "width=5",
        "--classes", "a,b", "--multiple", "2",
    )  # fmt: skip
    code, said = kdseg(*adopt)
    assert code == 2
    assert "--allow-code own_networks:Dict" in said
    assert kdseg(*adopt, "--allow-code", "own_networks:Dict")[0] == 0
    monkeypatch.setenv("KDSEG_ALLOW_CODE", "")
    assert kdseg("info", tmp_path / "own.safetensors")[0] == 2, "a file gives itself no permission"
    code, said = kdseg("info", tmp_path / "own.safetensors", "--allow-code", "own_networks")
    assert (code, "multiple" in said) == (0, True)
    assert load(tmp_path / "own.safetensors").spec.multiple == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--teacher", "foundation/uni"), "teaches nothing without its weights"),
        (("--student", "foundation/uni=x.bin"), "cannot be the student"),
        (("--teacher-encoder", "x.pth"), "Name the teacher whose encoder"),
        (("--allow-code", "a b"), "does not name code"),
    ],
)
def test_what_cannot_be_said_is_explained(kdseg, tmp_path, arguments, sentence):
    code, said = kdseg("distill", "--data", tmp_path, *arguments)
    assert code == 2
    assert sentence in said


def test_a_name_and_a_file_in_one_word(monkeypatch, tmp_path):
    from napari_kdseg.cli.commands import distillation

    (tmp_path / "a=b.safetensors").touch()
    assert distillation._network("unet/resnet34=x.pth") == {
        "architecture": "unet/resnet34",
        "checkpoint": "x.pth",
    }
    assert distillation._network(str(tmp_path / "a=b.safetensors")) == {
        "checkpoint": str(tmp_path / "a=b.safetensors")
    }
    assert distillation._network("enet") == {"architecture": "enet"}
