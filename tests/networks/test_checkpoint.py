"""Checkpoints of every kind: what is written comes back bit by bit, what does not fit is refused in plain words."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from napari_kdseg.errors import CheckpointError, ConfigurationError, OutputError
from napari_kdseg.networks import NetworkSpec, create_from, inspect, load, save
from napari_kdseg.networks.checkpoints.formats import SUFFIXES, is_checkpoint

TWO = ("background", "tumour")
IMAGE = torch.linspace(-2, 2, 3 * 64 * 64).reshape(1, 3, 64, 64)


def logits(network: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return network.eval()(IMAGE)


@pytest.fixture
def saved(tmp_path, enet, enet_spec) -> Path:
    return save(tmp_path / "student.safetensors", enet, enet_spec)


@pytest.mark.parametrize("name", ["enet", "unet/resnet18", "segformer/mit_b0", "deeplabv3plus/mobilenet_v2"])
def test_round_trip_is_exact(name, tmp_path):
    spec = NetworkSpec(architecture=name, classes=("background", "a", "b"), versions={"test": "1"})
    network = create_from(spec)
    network(torch.rand(2, 3, 64, 64))  # moves the statistics of batch normalisation
    path = save(tmp_path / "deep" / "er" / "x.safetensors", network, spec)
    checkpoint = load(path)
    assert checkpoint.spec == spec == inspect(path)
    assert checkpoint.path == path
    assert not checkpoint.module.training
    assert torch.equal(logits(checkpoint.module), logits(network))
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"]


def test_a_header_of_any_length_is_understood(tmp_path, enet, enet_spec):
    """Its length is the file's first byte, which may be that of a pickle."""
    first = set()
    for letters in range(256):
        spec = enet_spec.model_copy(update={"method": "x" * (8 * letters + 1)})
        path = save(tmp_path / "x.safetensors", enet, spec)
        with path.open("rb") as file:
            first.add(file.read(1))
        assert inspect(path).method == spec.method
        if b"\x80" in first:
            return
    raise AssertionError("no header began like a pickle")


def test_header_says_which_software_wrote_it(tmp_path, enet, enet_spec):
    path = save(tmp_path / "x.safetensors", enet, enet_spec.model_copy(update={"versions": {}}))
    assert {"napari-kdseg", "torch"} <= set(inspect(path).versions)


def test_saving_and_loading_draw_no_random_numbers(tmp_path, enet_spec, enet):
    before = torch.get_rng_state()
    load(save(tmp_path / "x.safetensors", enet, enet_spec))
    assert torch.equal(torch.get_rng_state(), before)


def test_options_are_kept(tmp_path):
    spec = NetworkSpec(
        architecture="unet/resnet18", classes=TWO, options={"decoder_channels": (32, 16, 8, 8, 8)}
    )
    network = create_from(spec)
    assert torch.equal(logits(load(save(tmp_path / "x.safetensors", network, spec)).module), logits(network))


@pytest.mark.numeric
def test_shared_and_strided_weights_are_written(tmp_path, enet_spec):
    network = create_from(enet_spec)
    network.stage3[0] = network.stage2[0]
    network = network.to(memory_format=torch.channels_last)
    again = load(save(tmp_path / "x.safetensors", network, enet_spec)).module
    torch.testing.assert_close(logits(again), logits(network))


def test_readable_by_others_as_plain_safetensors(saved, enet):
    weights = load_file(saved)
    assert weights.keys() == enet.state_dict().keys()
    umask = os.umask(0)
    os.umask(umask)
    assert saved.stat().st_mode & 0o777 == 0o666 & ~umask


# Saving that fails


def test_full_disk_leaves_the_old_file(saved, enet):
    """A limit on the size of files stands for the full disk: the write itself fails, half way."""
    before = saved.read_bytes()
    code = (
        "import resource, signal, sys\n"
        "from napari_kdseg.networks import load, save\n"
        "from napari_kdseg.errors import OutputError\n"
        "old = load(sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    save(sys.argv[1], old.module, old.spec)\n"
        "except OutputError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved)], capture_output=True, text=True, check=True
    )
    assert "was not written; what was there before is untouched" in done.stdout
    assert "larger than a file may be" in done.stdout
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_places_that_cannot_be_written_to_are_explained(tmp_path, enet, enet_spec):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.safetensors").mkdir()
    for path in (tmp_path / "file" / "x.safetensors", tmp_path / "folder.safetensors"):
        with pytest.raises(OutputError, match="was not written"):
            save(path, enet, enet_spec)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.safetensors"]
    with pytest.raises(OutputError, match=r"Choose student\.safetensors"):
        save(tmp_path / "student.pt", enet, enet_spec)


def test_a_network_that_is_not_what_its_spec_says_is_not_written(saved, enet):
    before = saved.read_bytes()
    with pytest.raises(CheckpointError, match="has 2 classes, the network asked for 3"):
        save(saved, enet, NetworkSpec(architecture="enet", classes=("a", "b", "c")))
    assert saved.read_bytes() == before


def test_which_names_are_those_of_checkpoints(tmp_path):
    """The documentation names the same endings."""
    assert all(is_checkpoint(f"{name}{suffix}") for suffix in SUFFIXES for name in ("a", "~/a.b/UNet.V2"))
    assert is_checkpoint("MODEL.PT")
    assert not [name for name in ("unet/resnet34", "enet", "a.svs", "a.ome.zarr") if is_checkpoint(name)]
    (tmp_path / "config.json").write_text('{"method": "kd"}')
    assert not is_checkpoint(tmp_path), "a run folder is none"
    documents = (Path(__file__).parents[2] / "docs" / "bring-your-own.md").read_text()
    said = documents.partition("## Checkpoints in the wild")[2].partition("Weights are found")[0]
    assert not [suffix for suffix in SUFFIXES if f"`{suffix}`" not in said]


# Folders of segmentation-models-pytorch


def smp_folder(folder: Path, network: nn.Module) -> Path:
    network.save_pretrained(folder)
    return folder


def test_smp_folder_round_trip(tmp_path):
    network = smp.Unet("resnet18", encoder_weights=None, classes=3, decoder_channels=(32, 16, 8, 8, 8))
    folder = smp_folder(tmp_path / "model", network)
    checkpoint = load(folder)
    assert torch.equal(logits(checkpoint.module), logits(network))
    assert checkpoint.spec.architecture == "unet/resnet18"
    assert checkpoint.spec.classes == ("background", "class 1", "class 2")
    assert checkpoint.spec.options == {"decoder_channels": [32, 16, 8, 8, 8]}
    assert inspect(folder) == checkpoint.spec
    assert is_checkpoint(folder)
    assert load(folder / "model.safetensors").spec == checkpoint.spec
    again = load(save(tmp_path / "x.safetensors", checkpoint.module, checkpoint.spec))
    assert torch.equal(logits(again.module), logits(network))


def test_smp_folder_never_downloads(tmp_path, monkeypatch):
    network = smp.Segformer("mit_b0", encoder_weights=None, classes=2)
    network.config["encoder_weights"] = "imagenet"
    folder = smp_folder(tmp_path / "model", network)
    assert json.loads((folder / "config.json").read_text())["encoder_weights"] == "imagenet"
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was used"))
    assert torch.equal(logits(load(folder).module), logits(network))


def test_smp_folder_with_bin_weights_and_image_head(tmp_path):
    network = smp.FPN("resnet18", encoder_weights=None, classes=2, aux_params={"classes": 4})
    folder = smp_folder(tmp_path / "model", network)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has a config\.json but no weights"):
        load(folder)
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    network.classification_head = None
    assert torch.equal(logits(load(folder).module), logits(network))


@pytest.mark.numeric
def test_one_sigmoid_output_becomes_two_that_say_the_same(tmp_path):
    network = smp.Unet("resnet18", encoder_weights=None, classes=1, activation="sigmoid")
    checkpoint = load(smp_folder(tmp_path / "model", network))
    assert checkpoint.spec.classes == ("background", "class 1")
    torch.testing.assert_close(logits(checkpoint.module).softmax(1)[:, 1:], logits(network))
    torch.save(network.state_dict(), tmp_path / "plain.pth")
    plain = load(tmp_path / "plain.pth", expect=NetworkSpec(architecture="unet/resnet18", classes=TWO))
    assert torch.equal(logits(plain.module), logits(checkpoint.module))


def test_smp_folder_takes_names_from_what_is_expected(tmp_path):
    folder = smp_folder(tmp_path / "model", smp.Unet("resnet18", encoder_weights=None, classes=2))
    expect = NetworkSpec(architecture="unet/resnet18", classes=TWO, mean=(0.7, 0.5, 0.6), mpp=0.25)
    assert load(folder, expect=expect).spec == expect


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("{", "no readable config.json"),
        ('{"_model_class": "Yolo"}', "holds a Yolo, no network of segmentation-models-pytorch"),
        ('{"_model_class": "Unet", "classes": "two"}', "cannot be understood"),
        ('{"_model_class": "Unet", "classes": 2, "encoder_name": "resnet0"}', "no encoder called 'resnet0'"),
    ],
)
def test_broken_smp_folders_are_explained(config, sentence, tmp_path):
    (tmp_path / "config.json").write_text(config)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=sentence):
        load(tmp_path)


# Plain state dicts


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {"model": {"module." + key: value for key, value in state.items()}},
        lambda state: {"model_state_dict": {"model.module." + key: value for key, value in state.items()}},
    ],
    ids=["bare", "nested", "data parallel", "lightning"],
)
def test_plain_state_dicts(wrap, tmp_path, enet, enet_spec):
    path = tmp_path / "weights.pth"
    torch.save(wrap(enet.state_dict()), path)
    checkpoint = load(path, expect=enet_spec)
    assert checkpoint.spec == enet_spec
    assert torch.equal(logits(checkpoint.module), logits(enet))
    for read in (load, inspect):
        with pytest.raises(CheckpointError, match=r"holds weights only.* Name the architecture"):
            read(path)


def test_plain_safetensors_and_older_pickles(tmp_path, enet, enet_spec):
    save_file(enet.state_dict(), tmp_path / "plain.safetensors")
    torch.save(enet.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in tmp_path.iterdir():
        assert torch.equal(logits(load(path, expect=enet_spec).module), logits(enet))
    with pytest.raises(CheckpointError, match="holds weights only"):
        load(tmp_path / "plain.safetensors")


# What does not fit


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"classes": tuple("abcdefg")}, r"has 2 classes, the network asked for 7"),
        ({"architecture": "unet/resnet18"}, "has the architecture enet, the network asked for unet/resnet18"),
        ({"in_channels": 4, "mean": (), "std": ()}, "has 3 channels, the network asked for 4"),
    ],
)
def test_another_network_than_expected_is_refused_with_a_table(change, sentence, saved, enet_spec):
    expect = NetworkSpec(**(enet_spec.model_dump() | {"colours": None} | change))
    with pytest.raises(CheckpointError, match=sentence) as caught:
        load(saved, expect=expect)
    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["architecture", "classes", "channels", "options"]
    assert sum("(differs)" in line for line in lines) == 1


def test_names_of_classes_may_differ(saved, enet_spec):
    expect = enet_spec.model_copy(update={"classes": ("background", "Tumor")})
    assert load(saved, expect=expect).spec.classes == TWO


def test_weights_of_another_network_are_listed(tmp_path, enet, enet_spec):
    torch.save(enet.state_dict(), tmp_path / "x.pth")
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "x.pth", expect=NetworkSpec(architecture="unet/resnet18", classes=TWO))
    message = str(caught.value)
    assert "does not hold the weights of unet/resnet18" in message
    assert "missing (182): encoder.conv1.weight" in message
    assert "unexpected (622): initial.conv.weight" in message
    assert message.count("encoder.") <= 5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"classes": tuple("abc")}, "has 2 classes, the network asked for 3"),
        ({"in_channels": 1, "mean": (), "std": ()}, "has the layers of enet, but in other sizes"),
    ],
)
def test_plain_weights_of_other_sizes_are_explained(change, sentence, tmp_path, enet, enet_spec):
    torch.save(enet.state_dict(), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=sentence) as caught:
        load(tmp_path / "x.pth", expect=NetworkSpec(**(enet_spec.model_dump() | {"colours": None} | change)))
    assert "other shape (" in str(caught.value)


def test_one_missing_weight_is_enough_to_refuse(tmp_path, enet, enet_spec):
    state = {key: value for key, value in enet.state_dict().items() if key != "classifier.weight"}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"missing \(1\): classifier.weight"):
        load(tmp_path / "x.pth", expect=enet_spec)


# Files that are no checkpoints


class Trap:
    """Unpickled, this would leave a trace."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("kind", ["zip", "pickle"])
def test_code_in_a_pickle_is_never_run(kind, tmp_path, enet_spec):
    trace, path = tmp_path / "trace", tmp_path / "trap.pt"
    if kind == "zip":
        torch.save({"state_dict": {"a": torch.zeros(1)}, "trap": Trap(trace)}, path)
    else:
        path.write_bytes(pickle.dumps(Trap(trace)))
    for expect in (None, enet_spec):
        with pytest.raises(CheckpointError, match="could run code hidden in it"):
            load(path, expect=expect)
    assert not trace.exists()


def test_whole_pickled_models_are_refused(tmp_path, enet):
    torch.save(enet, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"save model\.state_dict\(\) alone"):
        load(tmp_path / "model.pt")


@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["own", "zip", "pickle"])
def test_half_a_file_is_called_damaged(kind, fraction, tmp_path, saved, enet, enet_spec):
    path = saved
    if kind != "own":
        path = tmp_path / "x.pth"
        torch.save(enet.state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(CheckpointError, match="damaged or only half of it"):
        load(path, expect=enet_spec)


def zip_of_text() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("notes.txt", "no network")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"epoch,loss\n1,0.5\n", "is not a checkpoint"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is not a checkpoint"),
        (zip_of_text(), "is a zip archive, not a checkpoint"),
        (struct.pack("<Q", 40) + b"{" + bytes(80), "damaged"),
    ],
)
def test_files_that_are_no_checkpoints(content, sentence, tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=sentence):
        load(path)


def test_missing_files_and_folders_without_a_network(tmp_path):
    for read in (load, inspect):
        with pytest.raises(CheckpointError, match="There is no checkpoint at"):
            read(tmp_path / "nothing.safetensors")
        with pytest.raises(CheckpointError, match="holds no network"):
            read(tmp_path)


@pytest.mark.parametrize(
    ("description", "sentence"),
    [
        ("{", "cannot be understood"),
        ('{"architecture": "enet", "classes": ["a", "b"], "halo": 3}', "newer version"),
        (
            '{"architecture": "nonet", "classes": ["a", "b"]}',
            "cannot be built. There is no network called 'nonet'",
        ),
        (
            '{"architecture": "unet/tu-resnet18", "classes": ["a", "b"], "options": {"checkpoint_path": "/x"}}',
            "cannot be built",
        ),
    ],
)
def test_descriptions_that_cannot_be_followed(description, sentence, tmp_path, enet):
    path = tmp_path / "x.safetensors"
    save_file(enet.state_dict(), path, metadata={"kdseg": description})
    with pytest.raises(CheckpointError, match=sentence):
        load(path)


def test_tensors_without_weights(tmp_path, enet_spec):
    torch.save({"epoch": 3, "loss": torch.zeros(2)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="holds no weights of a network"):
        load(tmp_path / "x.pt", expect=enet_spec)


def test_devices_that_are_not_there(saved):
    for device in ("gpu", "cuda:99"):
        with pytest.raises(ConfigurationError, match="cannot be used on this computer"):
            load(saved, device=device)
