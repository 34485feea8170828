"""The job that lays the masks of networks over a slide, tile by tile, what is looked at first."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.inference.blending import BLOCK, Blender
from napari_kdseg.inference.class_colours import class_colours
from napari_kdseg.inference.config import PredictConfig
from napari_kdseg.inference.engine import choose_device
from napari_kdseg.inference.fit import Resolution, check_network_fits, choose_resolution
from napari_kdseg.inference.lanes import BlendingLane, CroppingLane, Lane, Work
from napari_kdseg.inference.loading import LoadedNetwork, loaded_network
from napari_kdseg.inference.memory import blocks_kept
from napari_kdseg.inference.order import TileQueue
from napari_kdseg.inference.planning import Plan, Planner, tiles_at_once
from napari_kdseg.inference.provenance import versions
from napari_kdseg.jobs import Checkpointed, Control, Emit, Message, Started, Step
from napari_kdseg.masks.reduction import quantise
from napari_kdseg.masks.store import MaskSpec, MaskStore
from napari_kdseg.masks.tiling import Tile, mask_shape, plan_tiles, to_level_0, to_mask_region
from napari_kdseg.masks.writer import MaskWriter
from napari_kdseg.slides import Slide, open_slide, tissue_of, with_colours

Region = tuple[int, int, int, int]


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


def predict(config: PredictConfig, emit: Emit, control: Control) -> PredictResult:
    """Predict networks on one slide (a job).

    Parameters
    ----------
    config
        What to do. Running it again continues where it stopped, and adds a region to what is there.
    emit
        Receives ``Started``, one ``Step`` a tile (stage is the label's name; values ``mpx_per_s`` and the level-0
        rectangle ``y x h w``), ``Message`` and ``Checkpointed``.
    control
        Looked at after every batch, also for what is on screen. When cancelled, finished tiles are kept.

    Returns
    -------
    PredictResult

    Raises
    ------
    KdsegError
        If slide, checkpoint, settings or output do not work together.
    """
    with contextlib.closing(open_slide(config.slide, mpp=config.slide_mpp)) as stored, _undisturbed():
        job = _Preparation(config, stored, emit, control)
        store = MaskStore(config.output, stored)
        with contextlib.ExitStack() as writers:
            lanes = [job.lane(name, path, store, writers) for name, path in config.networks.items()]
            return _Run(config, job.slide, lanes, emit, control).run()


@dataclass(frozen=True)
class Ready:
    """A network that can begin at once.

    Attributes
    ----------
    plan
        How it will be run.
    seconds
        That the slide will take, by what was measured when its tile was chosen; ``None`` if that was not.
    """

    plan: Plan
    seconds: float | None


def prepare(config: PredictConfig, emit: Emit, control: Control) -> dict[str, Ready]:
    """Load and measure all that a prediction of ``config`` needs, so that it begins at once (a job)."""
    with contextlib.closing(open_slide(config.slide, mpp=config.slide_mpp)) as stored, _undisturbed():
        job = _Preparation(config, stored, emit, control)
        return {name: job.try_out(path) for name, path in config.networks.items()}


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave the number of torch's threads as it was, and memory given back."""
    threads = torch.get_num_threads()
    try:
        with blocks_kept():
            yield
    finally:
        torch.set_num_threads(threads)


@dataclass
class _Member:
    """A lane with the mask that it fills."""

    lane: Lane
    writer: MaskWriter
    plan: Plan
    downsample: tuple[float, float]
    total: int
    kept: int
    done: int = 0
    skipped: int = 0
    pixels: int = 0
    writing: threading.Lock = field(default_factory=threading.Lock)


#: A tile that is on disk: whose, which, whether the network saw it, and its rectangle in level-0 pixels.
_Written = tuple[_Member, Tile, bool, Region]


class _Preparation:
    """What is settled before the first tile."""

    def __init__(self, config: PredictConfig, stored: Slide, emit: Emit, control: Control):
        self._config = config
        self._stored = stored
        self._emit = emit
        self._control = control
        self.slide = with_colours(stored, config.colours)
        self._device = choose_device(config.device)
        self._tissue = tissue_of(stored) if config.skip_background else None
        if self._tissue is not None and not self._tissue.mask.any():
            self._warn(
                f"No tissue was found on {stored.name}, so all of it will be called background. Correct the tissue "
                "mask, or switch the skipping of background off."
            )

    def ready(self, path: Path, begun: dict[str, Any] | None) -> tuple[LoadedNetwork, Resolution, Plan]:
        """Load a network and settle how it is run."""
        self._control.check()
        network = loaded_network(path, self._device)
        check_network_fits(self.slide, network.spec, path)
        resolution = choose_resolution(self.slide, self._config.mpp, network.spec.mpp)
        _check_output(network, path)
        begun = begun if begun and _continues(begun, network, self._stored, resolution) else None
        planner = Planner(self._config, self.slide, resolution.downsample, self._tissue, self._say)
        return network, resolution, planner.plan(network, begun)

    def try_out(self, path: Path) -> Ready:
        """Settle how a network is run, let it see one window, and estimate what the slide will take."""
        network, resolution, plan = self.ready(path, None)
        engine = network.engine(plan.arithmetic, self._config.compile)
        side = plan.tile + 2 * plan.context.halo
        window = np.zeros((side, side, network.spec.in_channels), np.uint8)
        engine.classify(engine.stage([window], plan.batch_size))()
        if plan.mpx_per_s is None:
            return Ready(plan, None)
        pixels = math.prod(mask_shape(self.slide.shape, resolution.downsample))
        share = 1.0 if self._tissue is None else self._tissue.fraction
        callers = tiles_at_once(self._config.threads, plan.threads) if self._device.type == "cpu" else 1
        return Ready(plan, share * pixels / 1e6 / (plan.mpx_per_s * callers))

    def lane(self, name: str, path: Path, store: MaskStore, writers: contextlib.ExitStack) -> _Member:
        """Open the mask of a network, and line up its tiles."""
        config = self._config
        begun = None if config.overwrite else store.made_by(f"labels/{name}")
        network, resolution, plan = self.ready(path, begun)
        for sentence in resolution.notes:
            self._warn(sentence)
        shape = mask_shape(self.slide.shape, resolution.downsample)
        writer = writers.enter_context(
            store.begin(
                _masks(config, name, network),
                shape=shape,
                downsample=resolution.downsample,
                tile=plan.tile,
                made_by=self._made_by(network, resolution, plan),
                overwrite=config.overwrite,
            )
        )
        writer.annotate(versions=versions(), notes=list(resolution.notes), **plan.measured())
        region = None if config.region is None else to_mask_region(config.region, resolution.downsample)
        tiles = plan_tiles(shape, region, plan.tile, plan.context.halo, network.multiple)
        todo = [tile for tile in tiles if (tile.row, tile.column) not in writer.done]
        lane = self._lane(name, network, plan, resolution.downsample, shape, todo)
        return _Member(lane, writer, plan, resolution.downsample, len(tiles), len(tiles) - len(todo))

    def _lane(
        self,
        name: str,
        network: LoadedNetwork,
        plan: Plan,
        downsample: tuple[float, float],
        shape: tuple[int, int],
        todo: list[Tile],
    ) -> Lane:
        engine = network.engine(plan.arithmetic, self._config.compile)

        def is_background(tile: Tile) -> bool:
            box = to_level_0((tile.y, tile.x, tile.height, tile.width), downsample)
            return self._tissue is not None and not self._tissue.covers(*box)

        wanted, probability = self._config.first, self._config.probabilities
        if not plan.context.blended:
            queue = TileQueue(todo, downsample, wanted)
            return CroppingLane(name, engine, queue, is_background, plan.batch_size, probability=probability)
        queue = TileQueue(todo, downsample, wanted, block=BLOCK)
        everything = plan_tiles(shape, None, plan.tile, plan.context.halo, network.multiple)
        blender = Blender(
            (tile for tile in everything if not is_background(tile)),
            plan.tile + 2 * plan.context.halo,
            engine.device,
        )
        return BlendingLane(
            name, engine, queue, is_background, plan.batch_size, probability=probability, blender=blender
        )

    def _made_by(self, network: LoadedNetwork, resolution: Resolution, plan: Plan) -> dict[str, Any]:
        """Everything that determines the values of a mask."""
        return {
            "checkpoint": network.record(),
            "slide": self._stored.identity(),
            "slide_mpp": self._stored.mpp,
            "downsample": resolution.downsample,
            **plan.record(),
            "device": self._device.type,
            "tissue_mask": None if self._tissue is None else self._tissue.record(),
            **({} if self._config.colours == "stored" else {"colours": self._config.colours}),
        }

    def _say(self, sentence: str) -> None:
        self._control.check()
        self._emit(Message(sentence))

    def _warn(self, sentence: str) -> None:
        self._emit(Message(sentence, "warning"))


class _Run:
    """The loop: several threads each carry a batch from the slide to the disk, this one says what comes next.

    While one waits for a GPU or for the disk, the others read and compute.
    """

    def __init__(
        self, config: PredictConfig, slide: Slide, members: list[_Member], emit: Emit, control: Control
    ):
        self._config = config
        self._slide = slide
        self._members = {member.lane.name: member for member in members}
        self._emit = emit
        self._control = control
        self._under_way: set[Future[list[_Written]]] = set()
        self._began = time.monotonic()

    def run(self) -> PredictResult:
        """Work through all tiles that are not done yet."""
        members = self._members.values()
        self._emit(
            Started(f"{' and '.join(self._members)} on {self._slide.name}", sum(m.total for m in members))
        )
        threads = min(member.plan.threads for member in members)
        with carriers(self._config.threads, threads) as (pool, count):
            try:
                self._go_through(pool, count)
            finally:
                self._report(wait(self._under_way).done)
        self._control.check()
        for member in members:
            member.writer.finish(self._config.region, progress=lambda _done, _total: self._control.check())
        self._emit(Checkpointed(self._config.output))
        seconds = time.monotonic() - self._began
        return PredictResult(
            self._config.output,
            {name: _result(name, member, seconds) for name, member in self._members.items()},
        )

    def _go_through(self, pool: ThreadPoolExecutor, count: int) -> None:
        """Hand out work of the network that is furthest behind, until none has any left."""
        lanes = [member.lane for member in self._members.values()]
        while lanes:
            self._control.check()
            lane = min(lanes, key=lambda item: item.share)
            lane.look_at(self._control.view)
            work = lane.next_work()
            if work is None:
                lanes.remove(lane)
                continue
            if not work.is_empty or not self._under_way:
                self._under_way.add(pool.submit(self._carry, work))
            if work.is_empty or len(self._under_way) > count:
                self._report(wait(self._under_way, return_when=FIRST_COMPLETED).done)

    def _carry(self, work: Work) -> list[_Written]:
        """Read, predict and write one batch."""
        member = self._members[work.lane.name]
        staged = None
        if work.windows:
            windows = [self._slide.read_scaled(member.downsample, *tile.window) for tile in work.windows]
            staged = work.lane.engine.stage(windows, work.lane.batch_size)
        written = [self._write(member, tile, None, None) for tile in work.blanks]
        return written + [self._write(member, *tile) for tile in work.lane.submit(work, staged)()]

    def _write(
        self, member: _Member, tile: Tile, classes: np.ndarray | None, chance: np.ndarray | None
    ) -> _Written:
        shape = (tile.height, tile.width)
        blocks = [np.zeros(shape, np.uint8) if classes is None else classes]
        if self._config.probabilities:
            blocks.append(quantise(np.full(shape, np.nan, np.float32) if chance is None else chance))
        with member.writing:
            return member, tile, classes is not None, member.writer.write_tile(tile, blocks)

    def _report(self, finished: set[Future[list[_Written]]]) -> None:
        """Tell of the tiles that are on disk."""
        self._under_way -= finished
        for member, tile, seen, (y, x, height, width) in (
            item for done in finished for item in done.result()
        ):
            member.done += seen
            member.skipped += not seen
            member.pixels += seen * tile.height * tile.width
            speed = member.pixels / 1e6 / max(time.monotonic() - self._began, 1e-9)
            values = {"mpx_per_s": speed, "y": y, "x": x, "h": height, "w": width}
            done = member.kept + member.done + member.skipped
            self._emit(Step(member.lane.name, done, member.total, values))


@contextlib.contextmanager
def carriers(asked: int | None, threads: int) -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Make threads that carry batches, each of which computes with ``threads`` of the ``asked`` (by default all)."""
    before = torch.get_num_threads()
    count = tiles_at_once(asked, threads)
    ready = threading.Barrier(count + 1)
    with ThreadPoolExecutor(count, "kdseg-predict", torch.set_num_threads, (threads,)) as pool:
        for _ in range(count):
            pool.submit(ready.wait)
        ready.wait()
        torch.set_num_threads(
            before
        )  # theirs are set; what torch tells threads of other jobs stays as it was
        yield pool, count


def _result(name: str, member: _Member, seconds: float) -> MaskResult:
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


def _masks(config: PredictConfig, name: str, network: LoadedNetwork) -> list[MaskSpec]:
    spec = network.spec
    masks = [MaskSpec("labels", name, "class", spec.classes, class_colours(spec))]
    if config.probabilities:
        masks.append(MaskSpec("probabilities", name, "probability of the predicted class"))
    return masks


def _continues(begun: dict[str, Any], network: LoadedNetwork, slide: Slide, resolution: Resolution) -> bool:
    """Whether a mask that was begun so is of this network on this slide at this resolution."""
    return (
        begun.get("checkpoint", {}).get("sha256") == network.sha256
        and begun.get("slide") == slide.identity()
        and all(
            math.isclose(one, other)
            for one, other in zip(begun.get("downsample", (0, 0)), resolution.downsample, strict=True)
        )
    )


def _check_output(network: LoadedNetwork, path: Path) -> None:
    """Refuse a network whose output is not one image of its classes, as large as its input.

    Raises
    ------
    ConfigurationError
        In plain words, with both shapes.
    """
    side, classes = 4 * network.multiple, len(network.spec.classes)
    staged = torch.zeros(1, side, side, network.spec.in_channels, dtype=torch.uint8)
    shape = tuple(network.engine("float32").logits(staged).shape)
    if shape != (1, classes, side, side):
        raise ConfigurationError(
            f"{path.name} gives an output of shape {list(shape)} for an image of {side} x {side} pixels, but a mask "
            f"of its {classes} classes needs {[1, classes, side, side]}. Use a network whose output is as large as "
            "its input."
        )
