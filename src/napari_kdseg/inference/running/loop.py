"""The loop of a prediction: what is wanted next is handed out, computed, written and told of."""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_kdseg.inference.config import PredictConfig
from napari_kdseg.inference.running.planning import Plan
from napari_kdseg.inference.running.preparation import MaskInProgress
from napari_kdseg.inference.tiles.lanes import Work
from napari_kdseg.inference.tiles.threads import tile_threads
from napari_kdseg.jobs import Checkpointed, Control, Emit, Message, Started, Step
from napari_kdseg.masks.reduction import quantise
from napari_kdseg.masks.tiling import GridTile
from napari_kdseg.slides import Slide

Region = tuple[int, int, int, int]
#: Threads that write: they wait for the disk most of the time.
WRITERS = 2
#: Tiles that wait to be written before no more work is handed out.
UNWRITTEN = 16


@dataclass(frozen=True)
class MaskResult:
    """What a prediction did for one mask.

    Attributes
    ----------
    name
        Label in the store.
    tiles_done
        Tiles that the network ran on.
    tiles_skipped
        Tiles without tissue.
    tiles_kept
        Tiles that an earlier run had finished.
    seconds
        From the first tile to the last, shared with the other networks of the pass.
    mpx_per_s
        Millions of mask pixels a second over ``tiles_done``.
    downsample
        ``(y, x)`` of the mask against level 0 of the slide.
    plan
        How the network was run.
    """

    name: str
    tiles_done: int
    tiles_skipped: int
    tiles_kept: int
    seconds: float
    mpx_per_s: float
    downsample: tuple[float, float]
    plan: Plan


@dataclass(frozen=True)
class PredictResult:
    """What a prediction did: the store, and each mask by its name."""

    output: Path
    masks: dict[str, MaskResult]


@dataclass(frozen=True, eq=False)
class PredictedTile:
    """A tile that was predicted; classes of ``None`` are background that the network did not see."""

    mask: MaskInProgress
    tile: GridTile
    classes: np.ndarray | None = None
    chance: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class WrittenTile:
    """A tile that is on disk, and its rectangle in level-0 pixels."""

    predicted: PredictedTile
    box: Region


class PredictionLoop:
    """The loop: some threads each read and predict a batch, others write the tiles.

    This one hands out the work and tells of what is done. While one waits for a GPU or for the disk, the others read
    and compute.
    """

    def __init__(
        self, config: PredictConfig, slide: Slide, masks: list[MaskInProgress], emit: Emit, control: Control
    ):
        self._config = config
        self._slide = slide
        self._masks = {mask.lane.name: mask for mask in masks}
        self._emit = emit
        self._control = control
        self._under_way: set[Future[list[PredictedTile]]] = set()
        self._writing: set[Future[list[WrittenTile]]] = set()
        self._failure: BaseException | None = None
        self._began = time.monotonic()

    def run(self) -> PredictResult:
        """Work through all tiles that are not done yet, and finish the masks."""
        results = self.run_through()
        for mask in self._masks.values():
            mask.writer.finish(self._config.region, progress=lambda _done, _total: self._control.check())
        self._emit(Checkpointed(self._config.output))
        self._report_unreadable()
        return PredictResult(self._config.output, results)

    def run_through(self) -> dict[str, MaskResult]:
        """Work through all tiles that are not done yet."""
        masks = self._masks.values()
        self._emit(
            Started(f"{' and '.join(self._masks)} on {self._slide.name}", sum(mask.total for mask in masks))
        )
        threads = min(mask.plan.threads for mask in masks)
        with (
            tile_threads(self._config.threads, threads) as (pool, count),
            ThreadPoolExecutor(WRITERS, "kdseg-write") as disk,
        ):
            try:
                self._hand_out(pool, count, disk)
            finally:
                while self._under_way or self._writing:
                    self._take_results(disk)
        if self._failure is not None:
            raise self._failure
        self._control.check()
        seconds = time.monotonic() - self._began
        return {name: _result(name, mask, seconds) for name, mask in self._masks.items()}

    def _report_unreadable(self) -> None:
        count = max(mask.writer.unreadable for mask in self._masks.values())
        if count:
            self._emit(
                Message(
                    f"{count} {'tile' if count == 1 else 'tiles'} of {self._slide.name} could not be read, so that the "
                    "networks saw grey there. The mask says how many; get another copy of the slide if it matters.",
                    "warning",
                )
            )

    def _hand_out(self, pool: ThreadPoolExecutor, count: int, disk: ThreadPoolExecutor) -> None:
        """Hand out work of the network that is furthest behind, until none has any left."""
        lanes = [mask.lane for mask in self._masks.values()]
        while lanes and self._failure is None:
            if self._control.paused:
                self._drain(disk)
            self._control.check()
            lane = min(lanes, key=lambda item: item.share)
            lane.look_at(self._control.view)
            work = lane.next_work()
            if work is None:
                lanes.remove(lane)
                continue
            if not work.is_empty or not self._under_way:
                self._under_way.add(pool.submit(self._predict, work))
            while work.is_empty or len(self._under_way) > count or len(self._writing) > UNWRITTEN:
                self._take_results(disk)
                if work.is_empty:
                    break

    def _drain(self, disk: ThreadPoolExecutor) -> None:
        """Bring all that is under way to the disk, and every level of the masks up to date, before a pause."""
        while self._under_way or self._writing:
            self._take_results(disk)
        for mask in self._masks.values():
            mask.writer.commit()

    def _predict(self, work: Work) -> list[PredictedTile]:
        """Read and predict one batch."""
        mask = self._masks[work.lane.name]
        batch = None
        if work.windows:
            windows = [self._slide.read_scaled(mask.downsample, *tile.window) for tile in work.windows]
            batch = work.lane.engine.collate(windows, work.lane.batch_size)
        blanks = [PredictedTile(mask, tile) for tile in work.blanks]
        return blanks + [PredictedTile(mask, *tile) for tile in work.lane.submit(work, batch)()]

    def _take_results(self, disk: ThreadPoolExecutor) -> None:
        """Wait for the next thing that is done: hand what was predicted to the disk, tell of what is there."""
        pending: set[Future[Any]] = {*self._under_way, *self._writing}
        for future in wait(pending, return_when=FIRST_COMPLETED).done:
            self._under_way.discard(future)
            self._writing.discard(future)
            error = future.exception()
            if error is not None:
                self._failure = self._failure or error  # those after it only follow from the first
                continue
            for item in future.result():
                if isinstance(item, PredictedTile):
                    self._writing.add(disk.submit(self._write, item))
                else:
                    self._report(item)

    def _write(self, predicted: PredictedTile) -> list[WrittenTile]:
        tile = predicted.tile
        shape = (tile.height, tile.width)
        blocks = [np.zeros(shape, np.uint8) if predicted.classes is None else predicted.classes]
        if self._config.probabilities:
            chance = np.full(shape, np.nan, np.float32) if predicted.chance is None else predicted.chance
            blocks.append(quantise(chance))
        return [WrittenTile(predicted, predicted.mask.writer.write_tile(tile, blocks))]

    def _report(self, written: WrittenTile) -> None:
        mask, tile = written.predicted.mask, written.predicted.tile
        seen = written.predicted.classes is not None
        mask.done += seen
        mask.skipped += not seen
        mask.pixels += seen * tile.height * tile.width
        speed = mask.pixels / 1e6 / max(time.monotonic() - self._began, 1e-9)
        values = {"mpx_per_s": speed, **dict(zip("yxhw", map(float, written.box), strict=True))}
        done = mask.kept + mask.done + mask.skipped
        self._emit(Step(mask.lane.name, done, mask.total, values))


def _result(name: str, mask: MaskInProgress, seconds: float) -> MaskResult:
    return MaskResult(
        name,
        mask.done,
        mask.skipped,
        mask.kept,
        seconds,
        mask.pixels / 1e6 / max(seconds, 1e-9),
        mask.downsample,
        mask.plan,
    )
