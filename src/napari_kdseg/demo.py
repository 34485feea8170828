"""The guided tour: tiles of a synthetic slide, a teacher team, a student, and all of them on a slide none of them saw.

Nothing is prepared: every figure of the summary was measured in the run it describes. Running it again goes on where it
stopped, and is quick when it had finished.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel

from napari_kdseg.jobs import Control, Emit, Message
from napari_kdseg.synthetic.address import SCHEME

CLEAN = "folds=0&pen=0&blur=0"
"""The tour is about the mistakes a network makes on good slides; out of focus, it would show others."""

TRAINING_SLIDE = f"{SCHEME}24000x24000?seed=1&mpp=0.25&{CLEAN}"
SLIDE = f"{SCHEME}100000x80000?seed=0&mpp=0.25&{CLEAN}"
UNCHANGED = ("stain_probability", "light_probability", "blur_probability", "scale_probability")
"""Both slides are stained and scanned alike, and the tour has no time to learn more than that: flips and turns only."""


class DemoConfig(BaseModel):
    """How long the tour takes.

    Attributes
    ----------
    output
        Folder for everything it makes.
    quick
        Less training and a smaller region, for benchmarks.
    mpp
        Resolution at which the networks work, in micrometres per pixel.
    """

    output: Path = Path("demo-output")
    quick: bool = False
    mpp: float = 1.0

    @property
    def tiles(self) -> int:
        """Tiles cut from the training slide."""
        return 40 if self.quick else 160

    @property
    def epochs(self) -> tuple[int, int]:
        """Epochs of teacher and student."""
        return (1, 1) if self.quick else (6, 10)

    @property
    def region_side(self) -> int:
        """Side of the region that is segmented, in level-0 pixels."""
        return 2048 if self.quick else 6144


@dataclass(frozen=True)
class StageFigures:
    """What one part of the tour took."""

    name: str
    seconds: float
    peak_rss_mb: float


@dataclass
class DemoResult:
    """Where everything is, and what was measured on the way."""

    output: Path
    slide: str
    region: tuple[int, int, int, int]
    masks: Path
    run: Path
    stages: list[StageFigures] = field(default_factory=list)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    corrections: dict[str, Any] = field(default_factory=dict)
    agreement: dict[str, Any] = field(default_factory=dict)

    @property
    def view(self) -> tuple[int, int, int, int]:
        """What the pictures show: of the segmented region so much that, in a window's proportions, nothing else is."""
        y, x, height, width = self.region
        return y + height // 8, x + width // 50, height * 3 // 4, width * 24 // 25


def demo(config: DemoConfig, emit: Emit, control: Control) -> DemoResult:
    """Run the tour (a job).

    Returns
    -------
    DemoResult
        With time and peak memory of each part.
    """
    config.output.mkdir(parents=True, exist_ok=True)
    result = DemoResult(
        output=config.output,
        slide=SLIDE,
        region=(0, 0, 0, 0),
        masks=config.output / "masks.ome.zarr",
        run=config.output / ("run-quick" if config.quick else "run"),
    )
    tiles = config.output / ("tiles-quick" if config.quick else "tiles")
    with _measured("cut tiles", result, emit):
        _cut(config, tiles, emit, control)
    with _measured("distil", result, emit):
        _distil(config, tiles, result, emit, control)
    with _measured("find a region", result, emit):
        result.region = glandular_region(result.slide, config.region_side)
    for role in ("teacher", "student"):
        with _measured(f"predict {role}", result, emit):
            _predict(role, result, emit, control)
    with _measured("correct soft labels", result, emit):
        _correct(result, emit, control)
    with _measured("compare", result, emit):
        _compare(result)
    return result


# -- the parts ---------------------------------------------------------------------------------------


def _cut(config: DemoConfig, folder: Path, emit: Emit, control: Control) -> None:
    from napari_kdseg.slides import open_annotation, open_slide
    from napari_kdseg.training.tiles.patches import cut_tiles

    if (folder / "manifest.csv").is_file():
        emit(Message(f"Tiles are there already: {folder}"))
        return
    with open_slide(TRAINING_SLIDE) as slide:
        annotation = open_annotation(TRAINING_SLIDE, slide)
        cut_tiles(
            slide,
            annotation,
            folder,
            size=128,
            mpp=config.mpp,
            count=config.tiles,
            emit=emit,
            control=control,
        )


def _distil(config: DemoConfig, tiles: Path, result: DemoResult, emit: Emit, control: Control) -> None:
    from napari_kdseg.networks import count_parameters, load
    from napari_kdseg.training import AugmentationConfig, DataConfig, DistillConfig, NetworkChoice, distill

    teacher_epochs, epochs = config.epochs
    done = distill(
        DistillConfig(
            data=DataConfig(folder=tiles, input_size=128, mpp=config.mpp),
            teacher=NetworkChoice(architecture="unet/resnet18"),
            student=NetworkChoice(architecture="enet"),
            teacher_epochs=teacher_epochs,
            epochs=epochs,
            settings={"assistant_epochs_factor": 0.3, "warm_up_epochs": 1},
            augmentation=AugmentationConfig.model_validate(dict.fromkeys(UNCHANGED, 0.0)),
            batch_size=8,
            output=result.run,
        ),
        emit,
        control,
    )
    result.metrics = {role: dict(scores) for role, scores in done.metrics.items()}
    for role in ("teacher", "student"):
        checkpoint = load(result.run / "checkpoints" / f"{role}.safetensors")
        result.parameters[role] = count_parameters(checkpoint.module)


def _predict(role: str, result: DemoResult, emit: Emit, control: Control) -> None:
    from napari_kdseg.inference import PredictConfig, predict

    predict(
        PredictConfig(
            slide=result.slide,
            networks={role: result.run / "checkpoints" / f"{role}.safetensors"},
            output=result.masks,
            region=result.region,
            overwrite=True,
            tile=512,  # given, so that the tour does not spend its time on measuring what is best
            halo=64,
            batch_size=1,
            precision="float32",
        ),
        emit,
        control,
    )


def _correct(result: DemoResult, emit: Emit, control: Control) -> None:
    from napari_kdseg.comparison import CorrectConfig, correct

    config = CorrectConfig.from_run(
        result.run,
        slide=result.slide,
        annotation=result.slide,
        output=result.masks,
        region=result.region,
        overwrite=True,
    )
    result.corrections = asdict(correct(config, emit, control).counts)


def _compare(result: DemoResult) -> None:
    from napari_kdseg.comparison import summarise
    from napari_kdseg.masks import open_masks

    masks = open_masks(result.masks)
    result.agreement = summarise(masks["teacher"], masks["student"], region=result.region).as_json()


def glandular_region(address: str, side: int) -> tuple[int, int, int, int]:
    """Find the square of ``side`` level-0 pixels that holds most gland, looking from far away.

    Returns
    -------
    tuple of int
        ``(y, x, height, width)`` in level-0 pixels.
    """
    import numpy as np
    from scipy.ndimage import uniform_filter

    from napari_kdseg.slides import open_annotation, open_slide

    with open_slide(address) as slide:
        annotation = open_annotation(address, slide)
        height, width = slide.levels[0].shape
        downsample = 128
        coarse = annotation.read_scaled(downsample, 0, 0, height // downsample, width // downsample)
    share = uniform_filter((coarse == 1).astype(np.float32), size=side // downsample, mode="constant")
    row, column = np.unravel_index(int(share.argmax()), share.shape)
    y = int(np.clip(int(row) * downsample - side // 2, 0, height - side))
    x = int(np.clip(int(column) * downsample - side // 2, 0, width - side))
    return y, x, side, side


# -- figures -----------------------------------------------------------------------------------------


@contextmanager
def _measured(name: str, result: DemoResult, emit: Emit) -> Iterator[None]:
    """Note time and peak resident memory of a part of the tour."""
    process, peak, stop = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            peak[0] = max(peak[0], process.memory_info().rss)
            stop.wait(0.05)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - start
        stop.set()
        watcher.join()
    figures = StageFigures(name, round(seconds, 2), round(max(peak[0], process.memory_info().rss) / 1e6, 1))
    result.stages.append(figures)
    emit(Message(f"{name}: {figures.seconds:.1f} s, peak memory {figures.peak_rss_mb:.0f} MB"))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": cuda,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("napari-kdseg", "torch", "napari", "zarr", "numpy")},
    }


def write_summary(result: DemoResult) -> Path:
    """Write ``summary.md``, one page of what was made and measured, and ``summary.json`` with the same figures."""
    figures = {**asdict(result), "machine": machine()}
    (result.output / "summary.json").write_text(json.dumps(figures, indent=2, default=str), encoding="utf-8")
    path = result.output / "summary.md"
    path.write_text("\n\n".join(part(result) for part in _PARTS) + "\n", encoding="utf-8")
    return path


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def _introduction(result: DemoResult) -> str:
    y, x, height, width = result.region
    return (
        "# What the demo made\n\n"
        f"A teacher team and a student were trained on tiles of one synthetic slide and shown on another, "
        f"`{result.slide}`, "
        f"of which they saw nothing: {width:,} x {height:,} level-0 pixels at x {x:,}, y {y:,}.\n\n"
        "![overlay](overlay.png)\n\n![side by side](side-by-side.png)"
    )


def _networks(result: DemoResult) -> str:
    rows = []
    for role, scores in result.metrics.items():
        size = result.parameters.get(role)
        rows.append([
            role.replace("_", " "),
            f"{size / 1e6:.2f} M" if size else "",
            *(f"{scores[name]:.3f}" if name in scores else "" for name in ("val_dice", "val_iou")),
        ])  # fmt: skip
    return "## Networks\n\n" + _table(["network", "parameters", "validation Dice", "validation IoU"], rows)


def _corrections(result: DemoResult) -> str:
    counts = result.corrections
    labelled = max(counts["labelled"], 1)
    steps = (
        "teacher",
        "after the false-pixel-aware assistant",
        "after the boundary-aware assistant",
        "after similarity",
    )
    rows = [
        [step, f"{wrong:,}", f"{100 * wrong / labelled:.3f} %"]
        for step, wrong in zip(steps, counts["wrong"], strict=True)
    ]
    return f"## Corrected soft labels\n\n{labelled:,} annotated pixels of the region.\n\n" + _table(
        ["soft label", "wrong pixels", "share"], rows
    )


def _agreement(result: DemoResult) -> str:
    dice = ", ".join(
        f"{name} {value:.3f}" for name, value in result.agreement["dice"].items() if value is not None
    )
    share, pixels = 100 * (result.agreement["agreement"] or 0), result.agreement["compared_px"]
    return (
        "## Teacher and student on the slide\n\n"
        f"They agree on {share:.2f} % of {pixels:,} pixels (Dice between them: {dice})."
    )


def _costs(result: DemoResult) -> str:
    rows = [[stage.name, f"{stage.seconds:.1f} s", f"{stage.peak_rss_mb:.0f} MB"] for stage in result.stages]
    about = machine()
    where = f"{about['cores']} cores, {about['memory_gb']} GB, GPU: {about['gpu'] or 'none'}"
    return f"## Time and memory\n\n{where}.\n\n" + _table(["part", "time", "peak memory"], rows)


def _places(result: DemoResult) -> str:
    return (
        "## Where it is\n\n"
        f"- masks: `{result.masks.name}` (OME-Zarr 0.5)\n- run folder: `{result.run.name}`\n\n"
        f'Look again: `kdseg view "{result.slide}" --overlay {result.masks} --run {result.run}`'
    )


_PARTS: tuple[Callable[[DemoResult], str], ...] = (
    _introduction,
    _networks,
    _corrections,
    _agreement,
    _costs,
    _places,
)
