"""The job that shows how a teacher's soft label is corrected, step by step, on the annotated part of a slide.

PLC-KD (Wang et al., MICCAI 2024), sect. 2.1, stage 2, tile by tile. A wrong pixel borrows from the right
pixels of its own tile and halo only, so tiles do not depend on each other: they come in any order, and a
stopped job goes on to the same result.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from napari_kdseg.codes import MENDED_BY
from napari_kdseg.comparison.config import CorrectConfig
from napari_kdseg.distillation.correction.teacher_team import STEPS, Correction, CorrectionCounts, TeacherTeam
from napari_kdseg.errors import DataError
from napari_kdseg.inference.network.engine import choose_device
from napari_kdseg.inference.network.fit import Resolution, check_network_fits, choose_resolution
from napari_kdseg.inference.provenance import checkpoint_record, file_sha256, versions
from napari_kdseg.jobs import Checkpointed, Control, Emit, JobCancelled, Message, Started, Step
from napari_kdseg.masks import names
from napari_kdseg.masks.reduction import NOT_COMPUTED, quantise
from napari_kdseg.masks.tiling import GridTile, mask_shape, plan_tiles, to_mask_region
from napari_kdseg.masks.writing.store import MaskSpec, MaskStore
from napari_kdseg.masks.writing.writer import MaskWriter
from napari_kdseg.memory import blocks_kept
from napari_kdseg.networks import Checkpoint, input_multiple, load, to_input
from napari_kdseg.slides import Annotation, Slide, open_annotation, open_slide, with_colours
from napari_kdseg.slides.pixels.read_ahead import read_ahead

TEACHER, CORRECTED = "teacher_on_annotated", "corrected_on_annotated"
OF_TRAINING = ("segmentation_loss", "boundary_start")
"""Constants that say how networks are trained, not how a team corrects: no part of what made a mask. Others of that
kind are, since they were when masks were first kept, and stay so that such masks go on."""

MASKS = (
    MaskSpec(
        "labels",
        names.MENDED_BY,
        names.STEP_THAT_MENDED,
        tuple(meaning.name for meaning in MENDED_BY.values()),
        tuple(meaning.colour for meaning in MENDED_BY.values()),
    ),
    MaskSpec("probabilities", TEACHER, "the teacher's probability of the annotated class"),
    MaskSpec("probabilities", CORRECTED, "the corrected probability of the annotated class"),
)


@dataclass(frozen=True)
class CorrectResult:
    """What a correction did; counts include tiles of earlier runs into the same store.

    Attributes
    ----------
    output
        The mask store.
    counts
        Pixels labelled, wrong after each of the four steps, and mended by each, by true class.
    tiles_done, tiles_skipped, tiles_kept
        Tiles corrected, tiles without annotation, and tiles that an earlier run had finished.
    downsample
        ``(y, x)`` of the masks against level 0 of the slide.
    """

    output: Path
    counts: CorrectionCounts
    tiles_done: int
    tiles_skipped: int
    tiles_kept: int
    downsample: tuple[float, float]


def correct(config: CorrectConfig, emit: Emit, control: Control) -> CorrectResult:
    """Correct the teacher's soft label on a slide (a job).

    Parameters
    ----------
    config
        What to do. Running it again continues where it stopped.
    emit
        Receives ``Started``, one ``Step`` a tile (stage ``"correction"``; values ``wrong_initial`` ...
        ``wrong_ultimate`` and the level-0 rectangle ``y x h w``), ``Message`` and ``Checkpointed``.
    control
        Looked at after every tile. When cancelled, finished tiles are kept.

    Returns
    -------
    CorrectResult

    Raises
    ------
    KdsegError
        If slide, annotation, team or output do not work together.
    """
    with contextlib.closing(open_slide(config.slide, mpp=config.slide_mpp)) as stored, blocks_kept():
        slide = with_colours(stored, config.colours)
        annotation = open_annotation(config.annotation, stored, bounds=config.annotation_bounds)
        for note in annotation.notes:
            emit(Message(note, "warning"))
        team = _load_team(config)
        spec = team["teacher"].spec
        check_network_fits(slide, spec, config.teacher)
        resolution = choose_resolution(slide, config.mpp, spec.mpp)
        for note in resolution.notes:
            emit(Message(note, "warning"))
        shape = mask_shape(slide.shape, resolution.downsample)
        region = None if config.region is None else to_mask_region(config.region, resolution.downsample)
        tiles = plan_tiles(shape, region, config.tile, config.halo, input_multiple(spec))
        store = MaskStore(config.output, stored)
        with store.begin(
            MASKS,
            shape=shape,
            downsample=resolution.downsample,
            tile=config.tile,
            made_by=_made_by(config, team, stored, resolution),
            overwrite=config.overwrite,
        ) as writer:
            writer.annotate(versions=versions(), notes=list(resolution.notes))
            loop = _CorrectionLoop(config, slide, annotation, team, resolution, writer, emit, control)
            return loop.run(tiles)


class _CorrectionLoop:
    """The loop over tiles."""

    def __init__(
        self,
        config: CorrectConfig,
        slide: Slide,
        annotation: Annotation,
        team: dict[str, Checkpoint],
        resolution: Resolution,
        writer: MaskWriter,
        emit: Emit,
        control: Control,
    ):
        self._config = config
        self._slide = slide
        self._annotation = annotation
        self._teacher = team["teacher"]
        self._downsample = resolution.downsample
        self._writer = writer
        self._emit = emit
        self._control = control
        self._team = TeacherTeam(
            team["teacher"].module,
            _module(team.get("false_pixel_assistant")),
            _module(team.get("boundary_assistant")),
            config.settings,
        )
        self._classes = len(team["teacher"].spec.classes)

    def run(self, tiles: list[GridTile]) -> CorrectResult:
        """Correct all tiles that are not done yet."""
        todo = [tile for tile in tiles if tile.index not in self._writer.done]
        kept, corrected = len(tiles) - len(todo), 0
        self._emit(Started(f"correction on {self._slide.name}", len(tiles)))
        try:
            with contextlib.closing(read_ahead(self._read, todo)) as windows:
                for index, (tile, (target, image)) in enumerate(windows, start=1):
                    self._control.check()
                    values = self._skip(tile) if image is None else self._correct(tile, target, image)
                    corrected += image is not None
                    self._emit(Step("correction", kept + index, len(tiles), values))
            self._control.check()
        except JobCancelled:
            self._keep_counts()
            raise
        counts = self._keep_counts()
        self._writer.finish(self._config.region)
        self._emit(Checkpointed(self._config.output))
        return CorrectResult(
            self._config.output, counts, corrected, len(todo) - corrected, kept, self._downsample
        )

    def _read(self, tile: GridTile) -> tuple[np.ndarray, np.ndarray | None]:
        """Read the annotation of a window, and its image where the core is annotated."""
        target = self._annotation.read_scaled(self._downsample, *tile.window)
        if (target[tile.core] == NOT_COMPUTED).all():
            return target, None
        return target, self._slide.read_scaled(self._downsample, *tile.window)

    def _skip(self, tile: GridTile) -> dict[str, float]:
        nothing = np.full((tile.height, tile.width), NOT_COMPUTED, dtype=np.uint8)
        return _rectangle(self._writer.write_tile(tile, [nothing] * len(MASKS)))

    def _correct(self, tile: GridTile, target: np.ndarray, image: np.ndarray) -> dict[str, float]:
        known = target[target != NOT_COMPUTED]
        if int(known.max()) >= self._classes:
            raise DataError(
                f"The annotation holds class {int(known.max())}, and the teacher knows only 0 to {self._classes - 1} "
                f"({', '.join(self._teacher.spec.classes)}). Use a teacher trained on these classes, "
                "or map the annotation to its classes."
            )
        device = next(self._teacher.module.parameters()).device
        labels = torch.from_numpy(target.astype(np.int64))[None].to(device)
        self._team.load_state_dict(
            {"class_means": None}
        )  # it remembers, but tiles are not to depend on their order
        correction = _crop(
            self._team.correct(to_input(image[None], self._teacher.spec, device), labels), tile
        )
        counts = correction.counts()
        blocks = [
            correction.mended_by[0].cpu().numpy(),
            _on_annotated(correction.initial, correction.target),
            _on_annotated(correction.ultimate, correction.target),
        ]
        rectangle = self._writer.write_tile(tile, blocks, note=asdict(counts))
        steps = ("initial", "false_pixel", "boundary", "ultimate")
        wrong = {f"wrong_{step}": float(count) for step, count in zip(steps, counts.wrong, strict=True)}
        return {**wrong, **_rectangle(rectangle)}

    def _keep_counts(self) -> CorrectionCounts:
        self._writer.commit()
        counts = add_counts(self._writer.done.values(), self._classes)
        self._writer.annotate(counts=asdict(counts))
        return counts


def add_counts(notes: Iterable[dict[str, Any]], classes: int) -> CorrectionCounts:
    """Add up the counts that were noted with the tiles; tiles without annotation noted none."""
    labelled, wrong = 0, np.zeros(4, dtype=np.int64)
    mended = {step: np.zeros(classes, dtype=np.int64) for step in STEPS}
    for note in notes:
        if "labelled" in note:
            labelled += int(note["labelled"])
            wrong += note["wrong"]
            for step in STEPS:
                mended[step] += note["mended"][step]
    first, second, third, last = wrong.tolist()
    by_step = {step: tuple(counts.tolist()) for step, counts in mended.items()}
    return CorrectionCounts(labelled, (first, second, third, last), by_step)


def _load_team(config: CorrectConfig) -> dict[str, Checkpoint]:
    device = str(choose_device(config.device))
    paths = {
        "teacher": config.teacher,
        "false_pixel_assistant": config.false_pixel_assistant,
        "boundary_assistant": config.boundary_assistant,
    }
    return {name: load(path, device=device) for name, path in paths.items() if path is not None}


def _module(member: Checkpoint | None) -> nn.Module | None:
    return None if member is None else member.module


def _made_by(
    config: CorrectConfig, team: dict[str, Checkpoint], slide: Slide, resolution: Resolution
) -> dict[str, Any]:
    """Everything that determines the values of the masks."""
    return {
        "team": {name: checkpoint_record(member.path, member.spec) for name, member in team.items()},
        "annotation": _annotation_record(config.annotation),
        "settings": config.settings.model_dump(mode="json", exclude=set(OF_TRAINING)),
        "slide": slide.identity(),
        "slide_mpp": slide.mpp,
        "downsample": resolution.downsample,
        "tile": config.tile,
        "halo": config.halo,
        **({} if slide.bounds is None else {"annotation_bounds": config.annotation_bounds}),
        **({} if config.colours == "stored" else {"colours": config.colours}),
    }


def _annotation_record(source: str) -> dict[str, str]:
    """Identify an annotation: a file may be drawn over, so its content counts."""
    path = Path(source).expanduser()
    return {"name": path.name, "sha256": file_sha256(path)} if path.exists() else {"name": source}


def _crop(correction: Correction, tile: GridTile) -> Correction:
    """Keep the core of a tile: what lies in the halo belongs to its neighbours."""
    return Correction(*(getattr(correction, field.name)[(..., *tile.core)] for field in fields(correction)))


def _on_annotated(probability: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    """Return the quantised probability of the annotated class, uint8 ``[h, w]``, 255 without annotation."""
    known = target != NOT_COMPUTED
    chosen = probability.gather(1, torch.where(known, target, 0)[:, None])[:, 0]
    return quantise(torch.where(known, chosen, torch.nan)[0].cpu().numpy())


def _rectangle(rectangle: tuple[int, int, int, int]) -> dict[str, float]:
    return dict(zip(("y", "x", "h", "w"), map(float, rectangle), strict=True))
