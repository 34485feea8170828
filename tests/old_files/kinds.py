"""The kinds of old files that no job writes: settings, outlines, and lists of names that old files are full of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
import zarr
from qtpy.QtCore import QSettings
from settings import SETTINGS
from shapely.geometry import Polygon
from torch import Tensor

from napari_kdseg.distillation import METHODS, get_method, method_names
from napari_kdseg.networks import create
from napari_kdseg.networks.catalogue import PAPERS
from napari_kdseg.slides import AnnotationShape, open_slide, write_annotations

WITH_STATE = (
    "kd", "plc-kd", "plc-kd-paper", "coco", "fitnet", "mimic", "skd", "cirkd", "cirkd:memory-pixel", "mgd",
    "fitnet+mimic", "plc-kd+plc-kd@2",
)  # fmt: skip
"""Methods whose stages keep something for when a run is resumed, sums among them; and one that keeps nothing."""

JOBS = (
    "napari_kdseg.comparison:correct",
    "napari_kdseg.demo:demo",
    "napari_kdseg.inference:measure_costs",
    "napari_kdseg.inference:predict",
    "napari_kdseg.inference:prepare",
    "napari_kdseg.inference.cluster:predict_many",
    "napari_kdseg.inference.export:export_model",
    "napari_kdseg.masks:export_masks",
    "napari_kdseg.slides.writing.convert:convert",
    "napari_kdseg.slides.writing.synthesise:synthesise",
    "napari_kdseg.study:study",
    "napari_kdseg.study.job:study",
    "napari_kdseg.study.why:look_into",
    "napari_kdseg.training:distill",
)
"""What the window names as jobs, and what docs/architecture.md calls one."""

DOCUMENTED = {
    "napari_kdseg": ("__version__",),
    "napari_kdseg.cli": ("main",),
    "napari_kdseg.comparison": ("CorrectConfig", "correct"),
    "napari_kdseg.demo": ("DemoConfig", "demo"),
    "napari_kdseg.distillation": ("METHODS", "get_method"),
    "napari_kdseg.inference": ("CostConfig", "PredictConfig", "measure_costs", "predict"),
    "napari_kdseg.inference.cluster": ("PredictManyConfig", "predict_many"),
    "napari_kdseg.inference.export": ("ExportModelConfig", "export_model"),
    "napari_kdseg.jobs": (
        "Cancelled", "Checkpointed", "Done", "Failed", "Message", "Paused", "Resumed", "Started", "Step", "Validated",
        "run_inline", "start_in_process", "start_in_thread",
    ),
    "napari_kdseg.masks": ("ExportConfig", "MaskStore", "MaskWriter", "export_masks", "open_masks"),
    "napari_kdseg.networks": (
        "Checkpoint", "NetworkSpec", "allow_code", "count_parameters", "create", "input_multiple", "inspect",
        "last_feature", "load", "load_encoder", "save", "to_input",
    ),
    "napari_kdseg.slides": (
        "Annotation", "AnnotationShape", "Level", "LevelArray", "Slide", "TileCache", "annotation_to_shapes",
        "in_srgb", "layer_transform", "open_annotation", "open_slide", "read_annotations", "stain_view", "tissue_of",
        "with_colours", "write_annotations",
    ),
    "napari_kdseg.study": ("StudyConfig", "study"),
    "napari_kdseg.training": ("DistillConfig", "cut_tiles", "distill"),
}  # fmt: skip
"""What README and docs name as imports of Python, or as the contract of a room."""


def write_annotation_files(root: Path) -> None:
    """Write the same outlines in each format."""
    with_hole = Polygon(
        [(10, 10), (90, 10), (90, 70), (10, 70)], holes=[[(30, 30), (30, 50), (60, 50), (60, 30)]]
    )
    corner = Polygon([(100.5, 20.25), (180, 20.25), (140, 100.75)])
    shapes = [
        AnnotationShape(with_hole, "tumour", (200, 30, 60), name="first"),
        AnnotationShape(corner, "stroma", (30, 160, 90), name="second", locked=True),
    ]
    folder = root / "annotations"
    folder.mkdir()
    for name, xml in (("qupath.geojson", "asap"), ("asap.xml", "asap"), ("imagescope.xml", "imagescope")):
        write_annotations(folder / name, shapes, xml=xml, mpp=(1.0, 1.0))


def write_configurations(folder: Path) -> None:
    """Write the settings of each job, none of them at its default, as the window and ``model_dump_json`` do."""
    folder.mkdir()
    for name, config in SETTINGS.items():
        (folder / f"{name}.json").write_text(config.model_dump_json(indent=2) + "\n")


def write_expected_masks(store: Path, folder: Path) -> None:
    """Write down the pixels of each mask as a zarr library reads them: what there are, and a hash of all."""
    told: dict[str, list[dict[str, Any]]] = {}
    for meta in sorted(store.glob("*/*/zarr.json")):
        mask = meta.parent
        if mask.parent.name not in ("labels", "probabilities"):
            continue
        about = json.loads(meta.read_text())["attributes"]["ome"]["multiscales"][0]["datasets"]
        told[f"{mask.parent.name}/{mask.name}"] = [
            described(np.asarray(zarr.open_array(mask / level["path"], mode="r"))) for level in about
        ]
    (folder / "masks.json").write_text(json.dumps(told, indent=1) + "\n")


def described(pixels: np.ndarray) -> dict[str, Any]:
    """Describe a level."""
    values, counts = np.unique(pixels, return_counts=True)
    return {
        "shape": list(pixels.shape),
        "sha256": hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest(),
        "counts": dict(zip(map(str, values.tolist()), counts.tolist(), strict=True))
        if len(values) < 8
        else {},
    }


def write_method_states(path: Path, teacher: dict[str, Any], student: dict[str, Any]) -> None:
    """Write down the form of what stages keep for resuming: names, shapes, and what is no tensor."""
    told = {}
    for name in WITH_STATE:
        method = get_method(name)
        networks = [_network(teacher), _network(teacher)]
        stages = method.stages(networks, _network(student), method.settings(), input_shape=(3, 32, 32))
        told[name] = [_after_two_steps(stage) for stage in stages]
    path.write_text(
        json.dumps({"teacher": teacher, "student": student, "stages": told}, separators=(",", ":")) + "\n"
    )


def _network(choice: dict[str, Any]) -> torch.nn.Module:
    torch.manual_seed(0)
    return create(choice["architecture"], 3, 3, **choice["options"])


def _after_two_steps(stage: Any) -> dict[str, Any]:
    random = torch.Generator().manual_seed(1)
    image = torch.rand(4, 3, 32, 32, generator=random)
    target = torch.randint(0, 3, (4, 32, 32), generator=random)
    stage.begin_epoch(0, 2)
    stage.network.train()
    for _ in range(2):
        stage.loss(image, target)["loss"].backward()
        stage.after_step()
    told = {"name": stage.name, "state": form(stage.state_dict())}
    return told if stage.segments else {**told, "network": form(stage.network.state_dict())}


def form(value: Any) -> Any:
    """Describe a state in JSON.

    A tensor is ``"tensor float32 3 3"``, a dictionary ``{"dict": [[key, value], ...]}``, for its keys may be numbers, a
    list ``{"list": [...]}``; anything else is as it is.
    """
    if isinstance(value, Tensor):
        return " ".join(["tensor", str(value.dtype).removeprefix("torch."), *map(str, value.shape)])
    if isinstance(value, dict):
        return {"dict": [[key, form(item)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [form(item) for item in value]}
    return value


def write_constants(path: Path) -> None:
    """Write down the constants of each method, as run folders hold all of them, and the names of the variants."""
    constants = {name: get_method(name).settings().model_dump(mode="json") for name in METHODS}
    told = {"constants": constants, "names": method_names()}
    path.write_text(json.dumps(told, indent=1) + "\n")


def write_weight_names(path: Path) -> None:
    """Write down, as a hash, names and shapes of the weights of each network of a paper but ENet, which has a file."""
    told = {}
    for name in sorted(set(PAPERS) - {"enet"}):
        with torch.device("meta"):
            shapes = {key: list(value.shape) for key, value in create(name, 3, 2).state_dict().items()}
        told[name] = hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(told, indent=1) + "\n")


def write_names(path: Path, manifest: Path) -> None:
    """Write down the names that are text elsewhere: in scripts, in queues of jobs, in napari's settings."""
    known = yaml.safe_load(manifest.read_text())["contributions"]
    told = {
        "jobs": JOBS,
        "documented": DOCUMENTED,
        "commands": {command["id"]: command["python_name"] for command in known["commands"]},
        "widgets": {widget["display_name"]: widget["command"] for widget in known["widgets"]},
        "readers": {reader["command"]: reader["filename_patterns"] for reader in known["readers"]},
        "sample_data": {sample["key"]: sample["command"] for sample in known["sample_data"]},
        "preferences": {
            section: {name: about["type"] for name, about in part["properties"].items()}
            for section, part in known["configurations"].items()
        },
    }
    path.write_text(json.dumps(told, indent=1) + "\n")


def write_window_settings(path: Path) -> None:
    """Write what the window remembers between sessions, as Qt does on Linux."""
    settings = QSettings(str(path), QSettings.Format.IniFormat)
    settings.setValue("recent", ["/slides/second.svs", "synthetic:3000x2000?seed=2&mpp=0.5"])
    settings.setValue("folders/slide", "/slides")
    settings.setValue("folders/config", "/settings")
    settings.sync()


def write_identities(path: Path, slides: list[str]) -> None:
    """Write down the identity of slides, by which notes and masks know them."""
    told = {}
    for name in slides:
        with open_slide(path.parent.parent / name if ":" not in name else name) as slide:
            told[name] = slide.identity()
    path.write_text(json.dumps(told, indent=1) + "\n")
