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
from napari_kdseg.inference.running.preparation import Member
from napari_kdseg.inference.tiles.lanes import Work
from napari_kdseg.inference.tiles.threads import carriers
from napari_kdseg.jobs import Checkpointed, Control, Emit, Message, Started, Step
from napari_kdseg.masks.reduction import quantise
from napari_kdseg.masks.tiling import Tile
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
class Found:
    """A tile that was predicted; classes of ``None`` are background that the network did not see."""

    member: Member
    tile: Tile
    classes: np.ndarray | None = None
    chance: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Written:
    """A tile that is on disk, and its rectangle in level-0 pixels."""

    found: Found
    box: Region


class Run:
    """The loop: some threads each carry a batch from the slide through the network, others write what they found.

    This one hands out the work and tells of what is done. While one waits for a GPU or for the disk, the others read
    and compute.
    """

    def __init__(
        self, config: PredictConfig, slide: Slide, members: list[Member], emit: Emit, control: Control
    ):
        self._config = config
        self._slide = slide
        self._members = {member.lane.name: member for member in members}
        self._emit = emit
        self._control = control
        self._under_way: set[Future[list[Found]]] = set()
        self._writing: set[Future[list[Written]]] = set()
        self._failure: BaseException | None = None
        self._began = time.monotonic()

    def run(self) -> PredictResult:
        """Work through all tiles that are not done yet, and finish the masks."""
        results = self.run_through()
        for member in self._members.values():
            member.writer.finish(self._config.region, progress=lambda _done, _total: self._control.check())
        self._emit(Checkpointed(self._config.output))
        self._tell_unreadable()
        return PredictResult(self._config.output, results)

    def run_through(self) -> dict[str, MaskResult]:
        """Work through all tiles that are not done yet."""
        members = self._members.values()
        self._emit(
            Started(f"{' and '.join(self._members)} on {self._slide.name}", sum(m.total for m in members))
        )
        threads = min(member.plan.threads for member in members)
        with (
            carriers(self._config.threads, threads) as (pool, count),
            ThreadPoolExecutor(WRITERS, "kdseg-write") as disk,
        ):
            try:
                self._go_through(pool, count, disk)
            finally:
                while self._under_way or self._writing:
                    self._follow(disk)
        if self._failure is not None:
            raise self._failure
        self._control.check()
        seconds = time.monotonic() - self._began
        return {name: _result(name, member, seconds) for name, member in self._members.items()}

    def _tell_unreadable(self) -> None:
        count = max(member.writer.unreadable for member in self._members.values())
        if count:
            self._emit(
                Message(
                    f"{count} {'tile' if count == 1 else 'tiles'} of {self._slide.name} could not be read, so that the "
                    "networks saw grey there. The mask says how many; get another copy of the slide if it matters.",
                    "warning",
                )
            )

    def _go_through(self, pool: ThreadPoolExecutor, count: int, disk: ThreadPoolExecutor) -> None:
        """Hand out work of the network that is furthest behind, until none has any left."""
        lanes = [member.lane for member in self._members.values()]
        while lanes and self._failure is None:
            if self._control.paused:
                self._rest(disk)
            self._control.check()
            lane = min(lanes, key=lambda item: item.share)
            lane.look_at(self._control.view)
            work = lane.next_work()
            if work is None:
                lanes.remove(lane)
                continue
            if not work.is_empty or not self._under_way:
                self._under_way.add(pool.submit(self._carry, work))
            while work.is_empty or len(self._under_way) > count or len(self._writing) > UNWRITTEN:
                self._follow(disk)
                if work.is_empty:
                    break

    def _rest(self, disk: ThreadPoolExecutor) -> None:
        """Bring all that is under way to the disk, and every level of the masks up to date, before a pause."""
        while self._under_way or self._writing:
            self._follow(disk)
        for member in self._members.values():
            member.writer.commit()

    def _carry(self, work: Work) -> list[Found]:
        """Read and predict one batch."""
        member = self._members[work.lane.name]
        staged = None
        if work.windows:
            windows = [self._slide.read_scaled(member.downsample, *tile.window) for tile in work.windows]
            staged = work.lane.engine.stage(windows, work.lane.batch_size)
        blanks = [Found(member, tile) for tile in work.blanks]
        return blanks + [Found(member, *tile) for tile in work.lane.submit(work, staged)()]

    def _follow(self, disk: ThreadPoolExecutor) -> None:
        """Wait for the next thing that is done: hand what was found to the disk, tell of what is there."""
        pending: set[Future[Any]] = {*self._under_way, *self._writing}
        for future in wait(pending, return_when=FIRST_COMPLETED).done:
            self._under_way.discard(future)
            self._writing.discard(future)
            error = future.exception()
            if error is not None:
                self._failure = self._failure or error  # those after it only follow from the first
                continue
            for item in future.result():
                if isinstance(item, Found):
                    self._writing.add(disk.submit(self._write, item))
                else:
                    self._tell(item)

    def _write(self, found: Found) -> list[Written]:
        tile = found.tile
        shape = (tile.height, tile.width)
        blocks = [np.zeros(shape, np.uint8) if found.classes is None else found.classes]
        if self._config.probabilities:
            chance = np.full(shape, np.nan, np.float32) if found.chance is None else found.chance
            blocks.append(quantise(chance))
        return [Written(found, found.member.writer.write_tile(tile, blocks))]

    def _tell(self, written: Written) -> None:
        member, tile = written.found.member, written.found.tile
        seen = written.found.classes is not None
        member.done += seen
        member.skipped += not seen
        member.pixels += seen * tile.height * tile.width
        speed = member.pixels / 1e6 / max(time.monotonic() - self._began, 1e-9)
        values = {"mpx_per_s": speed, **dict(zip("yxhw", map(float, written.box), strict=True))}
        done = member.kept + member.done + member.skipped
        self._emit(Step(member.lane.name, done, member.total, values))


def _result(name: str, member: Member, seconds: float) -> MaskResult:
    return MaskResult(
        name,
        member.done,
        member.skipped,
        member.kept,
        seconds,
        member.pixels / 1e6 / max(seconds, 1e-9),
        member.downsample,
        member.plan,
    )
