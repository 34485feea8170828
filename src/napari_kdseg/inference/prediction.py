"""The job that lays the masks of networks over a slide, tile by tile, what is looked at first."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.inference.blending import BLOCK, Blender
from napari_kdseg.inference.carriers import carriers
from napari_kdseg.inference.class_colours import class_colours
from napari_kdseg.inference.config import PredictConfig
from napari_kdseg.inference.engine import choose_device
from napari_kdseg.inference.fit import Resolution, check_network_fits, choose_resolution
from napari_kdseg.inference.lanes import BlendingLane, CroppingLane, Lane, Work
from napari_kdseg.inference.loading import LoadedNetwork, loaded_network
from napari_kdseg.inference.memory import blocks_kept
from napari_kdseg.inference.order import TileQueue
from napari_kdseg.inference.planning import Plan, Planner
from napari_kdseg.inference.provenance import versions
from napari_kdseg.jobs import Checkpointed, Control, Emit, Message, Started, Step
from napari_kdseg.masks.reduction import quantise
from napari_kdseg.masks.slabs import Slab
from napari_kdseg.masks.store import MaskSpec, MaskStore
from napari_kdseg.masks.tiling import Tile, mask_shape, plan_tiles, to_level_0, to_mask_region
from napari_kdseg.masks.writer import MaskWriter
from napari_kdseg.slides import Slide, open_slide, tissue_of, with_colours

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
        store = job.store()
        with contextlib.ExitStack() as writers:
            lanes = [job.lane(name, path, store, writers) for name, path in config.networks.items()]
            return _Run(config, job.slide, lanes, emit, control).run()


@dataclass(frozen=True)
class Begun:
    """A mask that was begun: its tiles that are not done yet, and how many there are in all."""

    tiles: int
    todo: tuple[tuple[int, int], ...]
    levels: int


def begin(config: PredictConfig, emit: Emit, control: Control) -> dict[str, Begun]:
    """Settle all that decides the bytes of the masks of ``config`` and make them, or open those that are there (a job).

    :func:`predict_slab` goes on from here, in any number of programs.
    """
    with contextlib.closing(open_slide(config.slide, mpp=config.slide_mpp)) as stored, _undisturbed():
        job = _Preparation(config, stored, emit, control)
        store = job.store()
        begun = {}
        for name, path in config.networks.items():
            with contextlib.ExitStack() as writers:
                member = job.lane(name, path, store, writers)
                places = tuple((tile.row, tile.column) for tile in member.lane.waiting)
                begun[name] = Begun(member.total, places, member.writer.levels)
        return begun


def predict_slab(config: PredictConfig, slab: Slab, emit: Emit, control: Control) -> MaskResult:
    """Predict the tiles of ``config`` that lie in a slab of a mask that :func:`begin` has made.

    Others may predict other slabs of it meanwhile. The next :func:`predict` of ``config`` takes all of them over and
    finishes the mask.

    Parameters
    ----------
    config
        As :func:`begin` got it, with a single network; what is left open in it was settled there.
    slab
        Which tiles, and how far up the pyramid they are carried here.
    emit, control
        As for :func:`predict`.
    """
    going_on = config.model_copy(update={"overwrite": False})
    with contextlib.closing(open_slide(config.slide, mpp=config.slide_mpp)) as stored, _undisturbed():
        job = _Preparation(going_on, stored, emit, control)
        store = job.store()
        ((name, path),) = config.networks.items()
        with contextlib.ExitStack() as writers:
            member = job.lane(name, path, store, writers, slab)
            return _Run(going_on, job.slide, [member], emit, control).run_through()[name]


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


@dataclass(frozen=True, eq=False)
class _Found:
    """A tile that was predicted; classes of ``None`` are background that the network did not see."""

    member: _Member
    tile: Tile
    classes: np.ndarray | None = None
    chance: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class _Written:
    """A tile that is on disk, and its rectangle in level-0 pixels."""

    found: _Found
    box: Region


class _Preparation:
    """What is settled before the first tile."""

    def __init__(self, config: PredictConfig, stored: Slide, emit: Emit, control: Control):
        self._config = config
        self._stored = stored
        self._emit = emit
        self._control = control
        self._checked: set[Path] = set()
        self.slide = with_colours(stored, config.colours)
        self._device = choose_device(config.device)
        self._tissue = tissue_of(stored) if config.skip_background else None
        if self._tissue is not None and not self._tissue.mask.any():
            self._warn(
                f"No tissue was found on {stored.name}, so all of it will be called background. Correct the tissue "
                "mask, or switch the skipping of background off."
            )

    def store(self) -> MaskStore:
        """Open the place for the masks, or make it once all networks are known to work."""
        for path in self._config.networks.values():
            self._network(path)
        return MaskStore(self._config.output, self._stored)

    def _network(self, path: Path) -> LoadedNetwork:
        network = loaded_network(path, self._device)
        if path not in self._checked:
            check_network_fits(self.slide, network.spec, path)
            _check_output(network, path)
            self._checked.add(path)
        return network

    def ready(self, path: Path, begun: dict[str, Any] | None) -> tuple[LoadedNetwork, Resolution, Plan]:
        """Load a network and settle how it is run."""
        self._control.check()
        network = self._network(path)
        resolution = choose_resolution(self.slide, self._config.mpp, network.spec.mpp)
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
        return Ready(plan, share * pixels / 1e6 / plan.mpx_per_s)

    def lane(
        self,
        name: str,
        path: Path,
        store: MaskStore,
        writers: contextlib.ExitStack,
        slab: Slab | None = None,
    ) -> _Member:
        """Open the mask of a network, and line up its tiles, or those of a slab."""
        config = self._config
        begun = None if config.overwrite else store.made_by(f"labels/{name}")
        network, resolution, plan = self.ready(path, begun)
        for sentence in resolution.notes if slab is None else ():
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
                slab=slab,
            )
        )
        if slab is None:  # what is told of the mask as a whole was told when it was begun
            writer.annotate(versions=versions(), notes=list(resolution.notes), **plan.measured())
        self._watch(writer)
        region = None if config.region is None else to_mask_region(config.region, resolution.downsample)
        tiles = plan_tiles(shape, region, plan.tile, plan.context.halo, network.multiple)
        if slab is not None:
            tiles = [tile for tile in tiles if slab.holds((tile.row, tile.column))]
        done = writer.done
        todo = [tile for tile in tiles if (tile.row, tile.column) not in done]
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

    def _watch(self, writer: MaskWriter) -> None:
        """Have tiles of the slide that cannot be decoded noted beside the mask, before it counts as done."""
        for bad in self._stored.bad_tiles:
            writer.note_unreadable(bad.level, bad.row, bad.column)
        self._stored.on_bad_tile(lambda bad: writer.note_unreadable(bad.level, bad.row, bad.column))

    def _made_by(self, network: LoadedNetwork, resolution: Resolution, plan: Plan) -> dict[str, Any]:
        """Everything that determines the values of a mask."""
        return {
            "checkpoint": network.record,
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
    """The loop: some threads each carry a batch from the slide through the network, others write what they found.

    This one hands out the work and tells of what is done. While one waits for a GPU or for the disk, the others read
    and compute.
    """

    def __init__(
        self, config: PredictConfig, slide: Slide, members: list[_Member], emit: Emit, control: Control
    ):
        self._config = config
        self._slide = slide
        self._members = {member.lane.name: member for member in members}
        self._emit = emit
        self._control = control
        self._under_way: set[Future[list[_Found]]] = set()
        self._writing: set[Future[list[_Written]]] = set()
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

    def _carry(self, work: Work) -> list[_Found]:
        """Read and predict one batch."""
        member = self._members[work.lane.name]
        staged = None
        if work.windows:
            windows = [self._slide.read_scaled(member.downsample, *tile.window) for tile in work.windows]
            staged = work.lane.engine.stage(windows, work.lane.batch_size)
        blanks = [_Found(member, tile) for tile in work.blanks]
        return blanks + [_Found(member, *tile) for tile in work.lane.submit(work, staged)()]

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
                if isinstance(item, _Found):
                    self._writing.add(disk.submit(self._write, item))
                else:
                    self._tell(item)

    def _write(self, found: _Found) -> list[_Written]:
        tile = found.tile
        shape = (tile.height, tile.width)
        blocks = [np.zeros(shape, np.uint8) if found.classes is None else found.classes]
        if self._config.probabilities:
            chance = np.full(shape, np.nan, np.float32) if found.chance is None else found.chance
            blocks.append(quantise(chance))
        return [_Written(found, found.member.writer.write_tile(tile, blocks))]

    def _tell(self, written: _Written) -> None:
        member, tile = written.found.member, written.found.tile
        seen = written.found.classes is not None
        member.done += seen
        member.skipped += not seen
        member.pixels += seen * tile.height * tile.width
        speed = member.pixels / 1e6 / max(time.monotonic() - self._began, 1e-9)
        values = {"mpx_per_s": speed, **dict(zip("yxhw", map(float, written.box), strict=True))}
        done = member.kept + member.done + member.skipped
        self._emit(Step(member.lane.name, done, member.total, values))


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
