"""What is settled before the first tile: networks, resolution, how each is run, and the mask that it fills."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.inference.config import PredictConfig
from napari_kdseg.inference.measuring.card import keep_measurements
from napari_kdseg.inference.measuring.measurements import Measurements
from napari_kdseg.inference.measuring.samples import take_samples
from napari_kdseg.inference.network.class_colours import class_colours
from napari_kdseg.inference.network.engine import choose_device, decided
from napari_kdseg.inference.network.fit import Resolution, check_network_fits, choose_resolution
from napari_kdseg.inference.network.loading import LoadedNetwork, loaded_network
from napari_kdseg.inference.provenance import versions
from napari_kdseg.inference.running.planning import Plan, choose_threads, make_plan
from napari_kdseg.inference.tiles.blending import BLOCK, Blender
from napari_kdseg.inference.tiles.lanes import BlendingLane, CroppingLane, Lane
from napari_kdseg.inference.tiles.tile_queue import TileQueue
from napari_kdseg.jobs import Control, Emit, Message
from napari_kdseg.masks.tiling import GridTile, mask_shape, plan_tiles, to_level_0, to_mask_region
from napari_kdseg.masks.writing.slabs import Slab
from napari_kdseg.masks.writing.store import MaskSpec, MaskStore
from napari_kdseg.masks.writing.writer import MaskWriter
from napari_kdseg.slides import Slide, tissue_of, with_colours


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


@dataclass
class MaskInProgress:
    """A lane with the mask that it fills, and how far it is."""

    lane: Lane
    writer: MaskWriter
    plan: Plan
    downsample: tuple[float, float]
    total: int
    kept: int
    done: int = 0
    skipped: int = 0
    pixels: int = 0


class Preparation:
    """What is settled before the first tile."""

    def __init__(self, config: PredictConfig, stored: Slide, emit: Emit, control: Control):
        self._config = config
        self._stored = stored
        self._emit = emit
        self._control = control
        self._networks: dict[Path, LoadedNetwork] = {}
        self.slide = with_colours(stored, config.colours)
        self._device = choose_device(config.device)
        self._tissue = tissue_of(stored) if config.skip_background else None
        if self._tissue is not None and not self._tissue.mask.any():
            self._warn(
                f"No tissue was found on {stored.name}, so all of it will be called background. Correct the tissue "
                "mask, or switch the skipping of background off."
            )

    def store(self) -> MaskStore:
        """Open the store of the masks, or make it once all networks are known to work."""
        for path in self._config.networks.values():
            self._network(path)
        return MaskStore(self._config.output, self._stored)

    def _network(self, path: Path) -> LoadedNetwork:
        """Load a network and see that it fits, once."""
        if path not in self._networks:
            network = loaded_network(path, self._device)
            check_network_fits(self.slide, network.spec, path)
            _check_output(network, path)
            self._networks[path] = network
        return self._networks[path]

    def ready(self, path: Path, begun: dict[str, Any] | None) -> tuple[LoadedNetwork, Resolution, Plan]:
        """Load a network and settle how it is run."""
        self._control.check()
        network = self._network(path)
        resolution = choose_resolution(self.slide, self._config.mpp, network.spec.mpp)
        settled = begun if begun and _continues(begun, network, self._stored, resolution) else {}
        samples = take_samples(self.slide, resolution.downsample, self._config.colours, self._tissue)
        measurements = Measurements(network, samples, self._say)
        threads = choose_threads(self._config, settled)
        torch.set_num_threads(threads)
        try:
            plan = make_plan(self._config, network, settled, threads, measurements)
        finally:  # a job that is stopped keeps what it has measured by then
            keep_measurements(measurements.new)
        return network, resolution, plan

    def try_out(self, path: Path) -> Ready:
        """Settle how a network is run, let it see one window, and estimate what the slide will take."""
        network, resolution, plan = self.ready(path, None)
        engine = network.engine(plan.arithmetic, self._config.compile)
        side = plan.tile + 2 * plan.context.halo
        window = np.zeros((side, side, network.spec.in_channels), np.uint8)
        engine.classify(engine.collate([window], plan.batch_size), checked=False)()
        if plan.mpx_per_s is None:
            return Ready(plan, None)
        pixels = math.prod(mask_shape(self.slide.shape, resolution.downsample))
        share = 1.0 if self._tissue is None else self._tissue.fraction
        return Ready(plan, share * pixels / 1e6 / plan.mpx_per_s)

    def begin_mask(
        self,
        name: str,
        path: Path,
        store: MaskStore,
        writers: contextlib.ExitStack,
        slab: Slab | None = None,
    ) -> MaskInProgress:
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
            tiles = [tile for tile in tiles if slab.holds(tile.index)]
        done = writer.done
        todo = [tile for tile in tiles if tile.index not in done]
        lane = self._lane(name, network, plan, resolution.downsample, shape, todo)
        return MaskInProgress(lane, writer, plan, resolution.downsample, len(tiles), len(tiles) - len(todo))

    def _lane(
        self,
        name: str,
        network: LoadedNetwork,
        plan: Plan,
        downsample: tuple[float, float],
        shape: tuple[int, int],
        todo: list[GridTile],
    ) -> Lane:
        engine = network.engine(plan.arithmetic, self._config.compile)

        def is_background(tile: GridTile) -> bool:
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
            **_reading(self._stored),
        }

    def _say(self, sentence: str) -> None:
        self._control.check()
        self._emit(Message(sentence))

    def _warn(self, sentence: str) -> None:
        self._emit(Message(sentence, "warning"))


def _masks(config: PredictConfig, name: str, network: LoadedNetwork) -> list[MaskSpec]:
    spec = network.spec
    masks = [MaskSpec("labels", name, "class", spec.classes, class_colours(spec))]
    if config.probabilities:
        masks.append(MaskSpec("probabilities", name, "probability of the predicted class"))
    return masks


def _reading(slide: Slide) -> dict[str, Any]:
    """What a person said that the numbers of the slide mean, if anybody did: it decides what networks see."""
    said = {"as": slide.asked.kind, "white": slide.asked.white}
    told = {name: value for name, value in said.items() if value is not None}
    return {"reading": told} if told else {}


def _continues(begun: dict[str, Any], network: LoadedNetwork, slide: Slide, resolution: Resolution) -> bool:
    """Whether a mask that was begun so is of this network on this slide at this resolution."""
    return (
        begun.get("checkpoint", {}).get("sha256") == network.sha256
        and begun.get("slide") == slide.identity()
        and begun.get("reading", {}) == _reading(slide).get("reading", {})
        and all(
            math.isclose(one, other)
            for one, other in zip(begun.get("downsample", (0, 0)), resolution.downsample, strict=True)
        )
    )


def _check_output(network: LoadedNetwork, path: Path) -> None:
    """Refuse a network whose output is not one image of its classes, as large as its input, and of numbers.

    Raises
    ------
    ConfigurationError
        In plain words, with both shapes.
    """
    side, classes = 4 * network.multiple, len(network.spec.classes)
    engine = network.engine("float32")
    noise = np.random.default_rng(0).integers(0, 256, (side, side, network.spec.in_channels), np.uint8)
    logits = engine.logits(engine.collate([noise]))
    shape = tuple(logits.shape)
    if shape != (1, classes, side, side):
        raise ConfigurationError(
            f"{path.name} gives an output of shape {list(shape)} for an image of {side} x {side} pixels, but a mask "
            f"of its {classes} classes needs {[1, classes, side, side]}. Use a network whose output is as large as "
            "its input."
        )
    engine.refuse_unless(bool(decided(logits.float()).all()))
