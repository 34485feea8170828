"""``kdseg`` as a person types it: in a process of its own, judged by exit code, output and files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_kdseg.cli import main
from napari_kdseg.cli.assigning import assign_all
from napari_kdseg.masks import MaskSpec, MaskStore, plan_tiles
from napari_kdseg.slides import open_slide

STUDY = Path(__file__).resolve().parents[1] / "docs" / "evidence" / "reduced.yaml"
SLIDE = "synthetic:6000x5000?seed=3&mpp=0.5"


def kdseg(*arguments, **options):
    command = [str(Path(sys.executable).parent / "kdseg"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=220, check=False, **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder made by ``kdseg distill`` from a folder of 16 tiles."""
    folder = tmp_path_factory.mktemp("cli")
    random = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / "tiles" / part).mkdir(parents=True)
    for index in range(16):
        mask = np.zeros((64, 64), np.uint8)
        mask[8 : 20 + 2 * index, 10:50] = 1
        image = np.where(mask[..., None] == 1, (110, 60, 140), (230, 180, 205)) + random.normal(
            0, 8, (64, 64, 3)
        )
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(
            folder / "tiles/images" / f"{index}.png"
        )
        Image.fromarray(mask).save(folder / "tiles/masks" / f"{index}.png")
    small = '{"encoder_depth": 3, "decoder_channels": [16, 8, 8]}'
    done = kdseg(
        "distill", "--data", folder / "tiles", "--output", folder / "run", "--teacher", "unet/tu-resnet18",
        "--set", f"teacher.options={small}", "--set", "data.input_size=64", "--set", "data.mpp=2.0",
        "--set", "epochs=2", "--set", "teacher_epochs=2", "--set", "batch_size=4", "--set", "settings.warm_up_epochs=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "student: " in done.stdout
    return folder / "run"


def test_help_names_every_command():
    done = kdseg("--help")
    assert done.returncode == 0
    assert all(
        name in done.stdout
        for name in (
            "demo",
            "info",
            "convert",
            "synth",
            "methods",
            "distill",
            "predict",
            "correct",
            "compare",
            "export",
            "view",
            "annotations",
        )
    )


def test_info_of_slide_checkpoint_and_run(run):
    done = kdseg("info", SLIDE, run / "checkpoints" / "student.safetensors", run)
    assert done.returncode == 0, done.stderr
    assert "6,000 x 5,000" in done.stdout
    assert "3.00 x 2.50 mm" in done.stdout
    assert "enet" in done.stdout
    assert "finished" in done.stdout


def test_info_keeps_what_a_person_says_of_a_slide(tmp_path):
    path = tmp_path / "scan.tif"
    pixels = np.random.default_rng(0).integers(3000, 4096, (64, 96, 3)).astype(np.uint16)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(32, 32), metadata=None)
    done = kdseg("info", path, "--white", 4095, "--slide-mpp", 0.5)
    assert "RGB, 16 bit, 4095 is white (you said so)" in done.stdout
    assert "0.5 µm per pixel" in done.stdout
    done = kdseg("convert", path, tmp_path / "copy.tif", "--compression", "deflate")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "copy.tif"), np.rint(pixels / 4095 * 255))
    done = kdseg("info", path, "--as", "file")
    assert "which value is white" in done.stdout
    assert "kdseg info SLIDE --white 4095" in done.stdout
    done = kdseg("info", path, "--slide-mpp", 499)
    assert done.returncode
    assert "499 nm are 0.499" in done.stderr


def test_synth_convert_and_info(tmp_path):
    slide, copy = tmp_path / "slide.svs", tmp_path / "copy.ome.zarr"
    done = kdseg(
        "synth", slide, "--size", "900x700", "--seed", 3, "--mpp", 0.5, "--masks", "tissue,gland", "--no-pen"
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "slide.gland.tif",
        "slide.svs",
        "slide.tissue.tif",
    ]
    done = kdseg("convert", slide, copy, "--ome-zarr", "0.4")
    assert done.returncode == 0, done.stderr
    assert "900 x 700" in done.stdout
    done = kdseg("info", slide, copy)
    assert done.returncode == 0, done.stderr
    assert "Compression:  jpeg" in done.stdout
    assert "Compression:  zstd" in done.stdout
    assert done.stdout.count("0.45 x 0.35 mm") == 2
    done = kdseg("convert", slide, copy)
    assert done.returncode == 2
    assert "--overwrite" in done.stderr


def test_predict_correct_and_view(run, tmp_path):
    store, picture = tmp_path / "slide.ome.zarr", tmp_path / "picture.png"
    region = ("--region", "1000,1000,512,768")
    tiles = ("--tile", "256", "--halo", "32", "--batch-size", "1", "--precision", "float32")
    for role in ("teacher", "student"):
        checkpoint = run / "checkpoints" / f"{role}.safetensors"
        command = ("predict", SLIDE, "--checkpoint", checkpoint, "--output", store, "--name", role)
        done = kdseg(*command, *tiles, *region)
        assert done.returncode == 0, done.stderr
    done = kdseg("correct", SLIDE, "--annotation", SLIDE, "--run", run, "--output", store, *region)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["wrong"][-1] == 0
    assert counts["wrong"] == sorted(counts["wrong"], reverse=True)
    done = kdseg("view", SLIDE, "--overlay", store, "--annotation", SLIDE, "--screenshot", picture, *region)
    assert done.returncode == 0, done.stderr
    shown = np.asarray(Image.open(picture))
    assert shown.std() > 20  # tissue, not an empty canvas


def test_configuration_of_a_run_runs_again_unchanged(run, tmp_path):
    again = tmp_path / "again"
    done = kdseg("distill", run / "config.json", "--output", again)
    assert done.returncode == 0, done.stderr

    def losses(folder):
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        return [line["values"]["loss"] for line in lines if "loss" in line["values"]]

    assert losses(run)
    assert losses(again) == losses(run)


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("20", 20),
        ("true", True),
        ("null", None),
        ("unet/resnet34", "unet/resnet34"),
        ('["kd", "plc-kd:f+b"]', ["kd", "plc-kd:f+b"]),
        ("[kd, plc-kd:f+b]", ["kd", "plc-kd:f+b"]),
        ("{emkd: {region_weight: 0.5}}", {"emkd": {"region_weight": 0.5}}),
        ("[half a list", "[half a list"),
        ("a=b", "a=b"),
    ],
)
def test_a_setting_is_json_or_a_list_without_quotes_or_a_text(typed, value):
    values = {"a": {"b": 3, "c": 1}}
    assign_all(values, [f"a.b={typed}"])
    assert values == {"a": {"b": value, "c": 1}}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("info", "nowhere.svs"), "nowhere.svs"),
        (("info", __file__), "not a slide"),
        (("convert", SLIDE, "x.png"), ".svs"),
        (("convert", SLIDE, "x.ome.zarr", "--compression", "jpeg"), "zstd"),
        (("convert", "nowhere.svs", "x.tif"), "nowhere.svs"),
        (("synth", "x.svs", "--size", "12"), "20000x16000"),
        (("synth", "x.svs", "--masks", "glands"), "gland"),
        (("distill",), "--data"),
        (("distill", "--data", "nowhere"), "nowhere"),
        (("distill", "nowhere.json"), "configuration"),
        (("distill", "--data", ".", "--set", "epochs"), "name=value"),
        (("distill", "--data", ".", "--set", "epochs=-3"), "epochs"),
        (("distill", "--data", ".", "--set", "method=kd", "--set", "method.x=1"), "'method' has no parts"),
        (("study", STUDY, "--set", "steps"), "name=value"),
        (
            ("predict", SLIDE, "--checkpoint", "nowhere.safetensors", "--output", "x.ome.zarr"),
            "nowhere.safetensors",
        ),
        (("predict", SLIDE, "--checkpoint", __file__, "--output", "x.ome.zarr"), "test_cli.py"),
        (("predict", SLIDE, "--checkpoint", __file__, "--output", "x.png"), "ome.zarr"),
        (("correct", SLIDE, "--annotation", SLIDE, "--output", "x.ome.zarr"), "--run"),
        (("view", SLIDE, "--screenshot", "x.png", "--region", "1,2,3"), "y,x,height,width"),
        (("view", SLIDE, "--overlay", "nowhere.ome.zarr", "--screenshot", "x.png"), "nowhere.ome.zarr"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["kdseg", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2, said
    assert words in said.replace("\n", " ")
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir()), "nothing may be left behind"


def test_annotations_are_converted(tmp_path):
    glands = tmp_path / "glands.geojson.gz"
    done = kdseg("annotations", "convert", "synthetic:900x700?seed=2&mpp=0.5", glands)
    assert done.returncode == 0, done.stderr
    assert "annotations, classes gland" in done.stdout
    done = kdseg("annotations", "convert", glands, tmp_path / "mask.tif")
    assert done.returncode == 2
    assert "say which one with --slide" in " ".join(done.stderr.split())
    options = (
        "--slide",
        "synthetic:900x700?seed=2&mpp=0.5",
        "--outside",
        "255",
        "--classes",
        "background,gland",
    )
    done = kdseg("annotations", "convert", glands, tmp_path / "mask.tif", *options)
    assert done.returncode == 0, done.stderr
    assert set(np.unique(np.asarray(Image.open(tmp_path / "mask.tif")))) == {1, 255}


def test_export_of_a_folder_of_masks(tmp_path):
    for seed in (1, 2):
        with open_slide(f"synthetic:600x400?seed={seed}&mpp=0.5") as slide:
            spec = MaskSpec(
                "labels", "student", "class", ("background", "tumour"), ((0, 0, 0), (230, 159, 0))
            )
            grid = {"shape": (400, 600), "downsample": (1.0, 1.0), "tile": 256, "made_by": {}}
            with MaskStore(tmp_path / "masks" / f"{seed}.ome.zarr", slide).begin([spec], **grid) as writer:
                for tile in plan_tiles((400, 600), None, 256, 0):
                    writer.write_tile(tile, [np.ones((tile.height, tile.width), np.uint8)])
                writer.finish(None)
    done = kdseg("export", tmp_path / "masks", tmp_path / "out", "--as", "geojson,csv,tiff", "--gzip")
    assert done.returncode == 0, done.stderr
    made = [f"{seed}.student.{kind}" for seed in (1, 2) for kind in ("geojson.gz", "csv", "ome.tif")]
    assert done.stdout.split() == [str(tmp_path / "out" / name) for name in [*made, "summary.csv"]]
    assert (
        (tmp_path / "out" / "summary.csv")
        .read_text()
        .splitlines()[1]
        .startswith("1,student,tumour,0.06,240000,")
    )
    assert kdseg("export", tmp_path / "masks").returncode == 2


def test_networks_are_listed_with_their_speed_here(tmp_path, monkeypatch, capsys):
    from napari_kdseg.cli.commands import networks as command
    from napari_kdseg.networks import recommended_networks

    monkeypatch.setenv("KDSEG_HOME", str(tmp_path))
    small = [
        choice for choice in recommended_networks() if choice.name in ("espnet", "enet", "pspnet/resnet50")
    ]
    monkeypatch.setattr(command, "recommended_networks", lambda: tuple(small[:2]))
    command.networks(as_json=True)
    listed = json.loads(capsys.readouterr().out)
    assert [network["name"] for network in listed] == ["espnet", "enet"]
    assert all(network["images_per_second"] > 0 for network in listed)
    command.networks(as_json=True, measure=False)
    assert json.loads(capsys.readouterr().out) == listed
    monkeypatch.setattr(command, "recommended_networks", lambda: tuple(small))
    command.networks(measure=False)
    table = capsys.readouterr().out
    assert "not measured" in table
    assert "22.4 M smaller" in table
    assert "0.27 G" in table


def test_networks_is_a_command():
    done = kdseg("networks", "--no-measure", "--json")
    assert done.returncode == 0
    assert {"transunet", "enet", "unet/resnet34"} <= {network["name"] for network in json.loads(done.stdout)}


def test_info_of_annotations_says_what_is_decided(tmp_path, capsys, monkeypatch):
    square = {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]]}
    odd = {"type": "Polygon", "coordinates": []}
    features = [
        {"type": "Feature", "geometry": geometry, "properties": {"type": name}}
        for geometry, name in ((square, "Tumor"), (square, "Stroma"), (square, "Tumor"), (odd, "Tumor"))
    ]
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    monkeypatch.setattr(sys, "argv", ["kdseg", "info", str(tmp_path / "a.geojson")])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    said = capsys.readouterr().out
    for part in ("3, 3 with an area", "Tumor (2), Stroma (1)", "scanned area", "number 4", "property 'type'"):
        assert part in said


def test_info_of_a_folder_of_smp_describes_its_network(tmp_path, capsys, monkeypatch):
    smp = pytest.importorskip("segmentation_models_pytorch")
    small = {"encoder_depth": 3, "decoder_channels": (16, 8, 8)}
    smp.Unet("resnet18", encoder_weights=None, classes=2, **small).save_pretrained(tmp_path / "net")
    monkeypatch.setattr(sys, "argv", ["kdseg", "info", "--no-cost", str(tmp_path / "net")])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    said = capsys.readouterr().out
    assert "unet/resnet18" in said
    assert "finished" not in said
