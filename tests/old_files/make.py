"""Write one small file of each kind that this program writes, as the code of today writes it.

::

    python tests/old_files/make.py FOLDER

No test runs this: the files in ``written/`` are to stay as they are. It says how they came about, and makes those of a
later version in another folder. What is made here is real, only small: the jobs themselves write it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from coarse import pack_enet
from kinds import (
    write_annotation_files,
    write_configurations,
    write_constants,
    write_expected_masks,
    write_identities,
    write_method_states,
    write_names,
    write_weight_names,
    write_window_settings,
)
from PIL import Image

from napari_kdseg.comparison import CorrectConfig, correct
from napari_kdseg.inference import CostConfig, PredictConfig, Subject, measure_costs, predict
from napari_kdseg.inference.export.config import ExportModelConfig
from napari_kdseg.inference.export.job import export_model
from napari_kdseg.inference.prediction import begin, predict_slab
from napari_kdseg.jobs import Cancelled, Done, Event, RunningJob, Started, Step, run_inline, run_job
from napari_kdseg.masks.writing.slabs import Slab
from napari_kdseg.slides import TissueMask, open_annotation, open_slide
from napari_kdseg.slides.sidecar import keep_mpp
from napari_kdseg.slides.tissue.kept import keep_tissue
from napari_kdseg.slides.writing.synthesise import SynthConfig, synthesise
from napari_kdseg.study import StudyConfig, study, write_evidence
from napari_kdseg.study.why import look_into
from napari_kdseg.training import (
    AugmentationConfig,
    DataConfig,
    DistillConfig,
    NetworkChoice,
    OptimiserConfig,
    cut_tiles,
    distill,
)

TEACHER = NetworkChoice(
    architecture="unet/tu-resnet10t",
    options={"encoder_depth": 2, "decoder_channels": [8, 4], "channels": [4, 4, 4, 4], "stem_width": 4},
)
STUDENT = NetworkChoice(
    architecture="unet/tu-resnet10t",
    options={"encoder_depth": 2, "decoder_channels": [4, 4], "channels": [4, 4, 4, 4], "stem_width": 4},
)
MANIFEST = Path(__file__).parents[2] / "src" / "napari_kdseg" / "napari.yaml"
SYNTHETIC = "synthetic:3000x2000?seed=2&mpp=0.5"
NO_COLOURS = AugmentationConfig(
    stain_probability=0, light_probability=0, blur_probability=0, scale_probability=0
)
REGION = (0, 0, 64, 160)
"""What is corrected of the slide: y, x, height, width."""

STUDY = """\
task: glands
data: {folder: ../tiles, classes: [background, gland], input_size: 32}
teachers:
  - architecture: unet/tu-resnet10t
    options: {encoder_depth: 2, decoder_channels: [8, 4], channels: [4, 4, 4, 4], stem_width: 4}
students:
  - architecture: unet/tu-resnet10t
    options: {encoder_depth: 2, decoder_channels: [4, 4], channels: [4, 4, 4, 4], stem_width: 4}
methods: [alone, kd, plc-kd]
settings: {plc-kd: {queue_length: 64}}
seeds: [0]
label_fractions: [0.5]
steps: 6
batch_size: 4
validations: 2
teacher_epochs: 3
augmentation: {stain_probability: 0, light_probability: 0, blur_probability: 0, scale_probability: 0}
device: cpu
threads: 1
output: .
"""


def finish(job: Any, config: Any) -> Any:
    """Run a job to its end and return its result."""
    end = run_inline(job, config).end
    if not isinstance(end, Done):
        raise RuntimeError(f"{job.__name__} did not end well: {end}")
    return end.result


def stop(job: Any, config: Any, when: Callable[[Event], bool]) -> None:
    """Run a job and stop it at the first event that is meant, as a person does."""
    running = RunningJob()
    running.observe(lambda event: running.control.cancel() if when(event) else None)
    run_job(job, config, running.emit, running.control)
    if not isinstance(running.end, Cancelled):
        raise RuntimeError(f"{job.__name__} was not stopped: {running.end}")


def student_step(number: int) -> Callable[[Event], bool]:
    """Return whether an event is this step of a student."""
    return lambda event: isinstance(event, Step) and (event.stage, event.done) == ("student", number)


def make_slide(root: Path) -> None:
    """Write a slide with its exact glands, tiles cut from it, and what people said of slides."""
    finish(
        synthesise, SynthConfig(output=root / "slide.tif", width=160, height=128, seed=7, mpp=1.0, tile=64)
    )
    with open_slide(root / "slide.tif") as slide:
        annotation = open_annotation(root / "slide.gland.tif", slide)
        cut_tiles(slide, annotation, root / "tiles", size=32, mpp=1.0, count=18)
        tissue = np.zeros((64, 80), bool)
        tissue[:, :66] = True
        keep_tissue(slide, TissueMask(tissue, (2.0, 2.0), threshold=0.25, min_piece_um2=50.0, edited=True))
    Image.fromarray(np.full((48, 64, 3), (225, 170, 200), np.uint8)).save(root / "plain.png")
    with open_slide(root / "plain.png") as slide:
        keep_mpp(slide, (0.48, 0.52))
    with open_slide(SYNTHETIC) as slide:
        keep_tissue(slide, TissueMask(np.eye(200, 300, dtype=bool), (10.0, 10.0), threshold=0.5))


def run_config(root: Path, name: str, **changes: Any) -> DistillConfig:
    """Return the settings that the runs have in common."""
    settings: dict[str, Any] = {
        "data": DataConfig(
            folder=root / "tiles", classes=("background", "gland"), input_size=32, test_fraction=0.2
        ),
        "teacher": TEACHER,
        "student": STUDENT,
        "teacher_epochs": 3,
        "epochs": 3,
        "batch_size": 2,
        "optimiser": OptimiserConfig(learning_rate=2e-2),
        "augmentation": NO_COLOURS,
        "device": "cpu",
        "threads": 1,
        "previews": False,
        "output": root / "runs" / name,
    }
    return DistillConfig(**(settings | changes))


def make_runs(root: Path) -> None:
    """Write a run stopped in the middle of an epoch of its student, a finished one with its teacher, and ENet's."""
    stopped = run_config(
        root,
        "stopped",
        method="kd+coco:cocod",
        settings={"kd_temperature": 2.5},
        optimiser=OptimiserConfig(learning_rate=2e-2, ema=0.5, warm_up=2),
    )
    stop(distill, stopped, student_step(8))
    went_on = stopped.model_copy(update={"output": root / "went-on"})
    shutil.copytree(stopped.output, went_on.output)
    finish(distill, went_on)
    shutil.move(went_on.output / "metrics.jsonl", root / "expected" / "stopped-run-went-on.jsonl")
    shutil.rmtree(went_on.output)
    small_state = OptimiserConfig(name="sgd", learning_rate=5e-2, momentum=0.0)
    finished = run_config(
        root,
        "finished",
        method="plc-kd",
        settings={"queue_length": 64, "temperature": 2.0},
        teacher=NetworkChoice(checkpoint=stopped.output / "checkpoints" / "teacher.safetensors"),
        optimiser=small_state,
    )
    finish(distill, finished)
    enet = NetworkChoice(architecture="enet")
    begun = run_config(root, "enet", method="alone", student=enet, optimiser=small_state, epochs=2)
    stop(distill, begun, student_step(7))


def make_masks(root: Path) -> None:
    """Write a store with finished masks, one that was stopped, one of a cluster, and a correction of a part."""
    run = root / "runs" / "finished"
    networks = {name: run / "checkpoints" / f"{name}.safetensors" for name in ("teacher", "student")}
    store = root / "masks" / "slide.ome.zarr"
    common: dict[str, Any] = {"slide": str(root / "slide.tif"), "output": store, "tile": 64, "device": "cpu"}
    predicted = {**common, "batch_size": 1, "threads": 1, "precision": "float32"}
    finish(predict, PredictConfig(networks=networks, probabilities=True, **predicted))
    finer = PredictConfig(networks={"half": networks["student"]}, **(predicted | {"tile": 32}))
    finish(predict, finer.model_copy(update={"region": REGION}))
    stop(predict, finer, lambda event: isinstance(event, Started))
    slabs = finer.model_copy(update={"networks": {"slabs": networks["student"]}})
    finish(begin, slabs)
    finish(lambda config, emit, control: predict_slab(config, Slab(1, 1, 0), emit, control), slabs)
    annotation = str(root / "slide.gland.tif")
    finish(correct, CorrectConfig.from_run(run, annotation=annotation, region=REGION, halo=16, **common))
    write_expected_masks(store, root / "expected")


def make_measurements(root: Path) -> None:
    """Measure the student, and write it as ONNX, without the paths of this machine that torch leaves in there."""
    student = root / "runs" / "finished" / "checkpoints" / "student.safetensors"
    finish(
        measure_costs,
        CostConfig(networks={"student": Subject(network=str(student))}, side=64, threads=1, device="cpu"),
    )
    finish(export_model, ExportModelConfig(checkpoint=student, output=root / "exported", formats=("onnx",)))
    path = root / "exported" / "student.onnx"
    model = onnx.load(path)
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
    onnx.save(model, path)


def make_study(root: Path) -> None:
    """Write a finished study with its tallies and its page."""
    (root / "study").mkdir()
    (root / "study" / "study.yaml").write_text(STUDY)
    config = StudyConfig.load(root / "study" / "study.yaml")
    finish(study, config)
    finish(look_into, config)
    write_evidence(config.output)
    for folder in config.work_folder.glob("runs/*"):
        if not folder.name.endswith("teacher"):  # they are in the table; what can be used again is in stages
            shutil.rmtree(folder)
    for path in config.work_folder.glob("stages/boundary_assistant-*"):
        path.unlink()  # one stage is enough to see that it is found again


def with_relative_paths(text: str, root: Path, folder: Path) -> str:
    """Say where things lie as seen from the folder of the file, as a configuration may."""

    def relative(found: re.Match[str]) -> str:
        return json.dumps(os.path.relpath(f"{root}{found[1]}", folder))

    return re.sub(re.escape(f'"{root}') + r'([^"]*)"', relative, text)


def tidy(root: Path) -> None:
    """Take this machine out of the files, its paths and its name, and what makes the folder large for nothing."""
    for path in [
        *root.rglob("*.lock"),
        *root.rglob("examples-*.png"),
        *root.rglob("*.svg"),
        *root.rglob("*.html"),
    ]:
        path.unlink()
    for path in [*root.glob("runs/finished/events.*"), *root.glob("study/work/runs/*/events.*")]:
        path.unlink()  # those of the stopped run are enough
    for path in root.rglob("events.out.tfevents.*"):
        path.rename(path.with_name("events.out.tfevents.1700000000.host.1.0"))
    for path in root.rglob("*.json"):
        path.write_text(with_relative_paths(path.read_text(), root, path.parent))


def main(root: Path) -> None:
    """Write everything into ``root``, a new folder."""
    root = root.absolute()
    expected = root / "expected"
    expected.mkdir(parents=True)
    os.environ["KDSEG_HOME"] = str(root / "home")
    torch.set_num_threads(1)
    make_slide(root)
    make_runs(root)
    make_masks(root)
    make_measurements(root)
    make_study(root)
    write_annotation_files(root)
    write_configurations(root / "settings")
    write_method_states(expected / "states.json", TEACHER.model_dump(), STUDENT.model_dump())
    write_constants(expected / "methods.json")
    write_weight_names(expected / "weights.json")
    write_window_settings(root / "napari-kdseg.conf")
    write_names(expected / "names.json", MANIFEST)
    write_identities(expected / "identities.json", ["slide.tif", "plain.png", SYNTHETIC])
    tidy(root)
    pack_enet(root)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
