"""The job that lays a network's mask over a slide, tile by tile from the middle outward."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_kdseg.inference.class_colours import class_colours
from napari_kdseg.inference.config import PredictConfig
from napari_kdseg.inference.engine import Engine, choose_device, choose_precision
from napari_kdseg.inference.fit import Resolution, check_network_fits, choose_resolution
from napari_kdseg.inference.provenance import checkpoint_record, versions
from napari_kdseg.inference.receptive_field import receptive_field_radius
from napari_kdseg.jobs import Checkpointed, Control, Emit, Message, Started, Step
from napari_kdseg.masks.reduction import quantise
from napari_kdseg.masks.store import MaskSpec, MaskStore
from napari_kdseg.masks.tiling import Tile, mask_shape, plan_tiles, to_level_0, to_mask_region
from napari_kdseg.masks.writer import MaskWriter
from napari_kdseg.networks import Checkpoint, NetworkSpec, input_multiple, load
from napari_kdseg.slides import Slide, TissueMask, open_slide, tissue_of, with_colours
from napari_kdseg.slides.read_ahead import read_ahead

WIDEST_HALO = 512


@dataclass(frozen=True)
class PredictResult:
    """What a prediction did.

    Attributes
    ----------
    output, name
        The mask: label ``name`` in the store ``output``.
    tiles_done
        Tiles that the network ran on.
    tiles_skipped
        Tiles without tissue.
    tiles_kept
        Tiles that an earlier run had finished.
    mpx_per_s
        Millions of mask pixels a second over ``tiles_done``.
    seconds
        Duration of the tiles.
    downsample
        ``(y, x)`` of the mask against level 0 of the slide.
    """

    output: Path
    name: str
    tiles_done: int
    tiles_skipped: int
    tiles_kept: int
    mpx_per_s: float
    seconds: float
    downsample: tuple[float, float]


def predict(config: PredictConfig, emit: Emit, control: Control) -> PredictResult:
    """Predict one network on one slide (a job).

    Parameters
    ----------
    config
        What to do. Running it again continues where it stopped, and adds a region to what is there.
    emit
        Receives ``Started``, one ``Step`` a tile (stage is the label's name; values ``mpx_per_s`` and the level-0
        rectangle ``y x h w``), ``Message`` and ``Checkpointed``.
    control
        Looked at after every batch. When cancelled, finished tiles are kept.

    Returns
    -------
    PredictResult

    Raises
    ------
    KdsegError
        If slide, checkpoint, settings or output do not work together.
    """
    with contextlib.closing(open_slide(config.slide, mpp=config.slide_mpp)) as stored:
        slide = with_colours(stored, config.colours)
        device = choose_device(config.device)
        precision = choose_precision(config.precision, device)
        checkpoint = load(config.checkpoint, device=str(device))
        spec = checkpoint.spec
        check_network_fits(slide, spec, config.checkpoint)
        resolution = choose_resolution(slide, config.mpp, spec.mpp)
        for note in resolution.notes:
            emit(Message(note, "warning"))
        halo = _halo(config, checkpoint, emit)
        shape = mask_shape(slide.shape, resolution.downsample)
        region = None if config.region is None else to_mask_region(config.region, resolution.downsample)
        tiles = plan_tiles(shape, region, config.tile, halo, input_multiple(spec.architecture))
        store = MaskStore(config.output, stored)
        tissue = tissue_of(stored) if config.skip_background else None
        with store.begin(
            _masks(config, spec),
            shape=shape,
            downsample=resolution.downsample,
            tile=config.tile,
            made_by=_made_by(config, checkpoint, stored, resolution, halo, precision, tissue),
            overwrite=config.overwrite,
        ) as writer:
            writer.annotate(versions=versions(), notes=list(resolution.notes))
            engine = Engine(checkpoint.module, spec, device, precision)
            return _Run(config, slide, resolution, tiles, tissue, engine, writer, emit, control).run()


class _Run:
    """The loop over tiles, and the figures that it reports."""

    def __init__(
        self,
        config: PredictConfig,
        slide: Slide,
        resolution: Resolution,
        tiles: list[Tile],
        tissue: TissueMask | None,
        engine: Engine,
        writer: MaskWriter,
        emit: Emit,
        control: Control,
    ):
        self._config = config
        self._slide = slide
        self._downsample = resolution.downsample
        self._tissue = tissue
        self._engine = engine
        self._writer = writer
        self._emit = emit
        self._control = control
        self._total = len(tiles)
        self._todo = [tile for tile in tiles if (tile.row, tile.column) not in writer.done]
        self._kept = len(tiles) - len(self._todo)
        self._predicted = self._skipped = self._pixels = 0
        self._began = time.monotonic()

    def run(self) -> PredictResult:
        """Work through all tiles that are not done yet."""
        config = self._config
        self._emit(Started(f"{config.name} on {self._slide.name}", self._total))
        with contextlib.closing(read_ahead(self._read, self._batches())) as batches:
            for tiles, images in batches:
                self._control.check()
                self._finish(tiles, images)
        self._control.check()
        self._writer.finish(config.region)
        self._emit(Checkpointed(config.output))
        seconds = time.monotonic() - self._began
        return PredictResult(
            config.output,
            config.name,
            self._predicted,
            self._skipped,
            self._kept,
            self._pixels / 1e6 / max(seconds, 1e-9),
            seconds,
            self._downsample,
        )

    def _batches(self) -> Iterator[list[Tile]]:
        """Group tiles with tissue into batches; a tile without comes alone."""
        batch: list[Tile] = []
        for tile in self._todo:
            if self._is_background(tile):
                yield [tile]
                continue
            batch.append(tile)
            if len(batch) == self._config.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _is_background(self, tile: Tile) -> bool:
        return self._tissue is not None and not self._tissue.covers(
            *to_level_0(tile.window, self._downsample)
        )

    def _read(self, tiles: list[Tile]) -> np.ndarray | None:
        if self._is_background(tiles[0]):
            return None
        return np.stack([self._slide.read_scaled(self._downsample, *tile.window) for tile in tiles])

    def _finish(self, tiles: list[Tile], images: np.ndarray | None) -> None:
        """Predict and write one batch; ``images`` is ``None`` for background."""
        if images is None:
            (tile,) = tiles
            shape = (tile.height, tile.width)
            self._write(tile, np.zeros(shape, np.uint8), np.full(shape, np.nan, np.float32))
            self._skipped += 1
            return
        classes, probability = self._engine.predict(images)
        for index, tile in enumerate(tiles):
            self._predicted += 1
            self._pixels += tile.height * tile.width
            self._write(tile, classes[index][tile.core], probability[index][tile.core])

    def _write(self, tile: Tile, classes: np.ndarray, probability: np.ndarray) -> None:
        blocks = [classes, quantise(probability)] if self._config.probabilities else [classes]
        y, x, height, width = self._writer.write_tile(tile, blocks)
        speed = self._pixels / 1e6 / max(time.monotonic() - self._began, 1e-9)
        values = {"mpx_per_s": speed, "y": y, "x": x, "h": height, "w": width}
        done = self._kept + self._predicted + self._skipped
        self._emit(Step(self._config.name, done, self._total, values))


def _halo(config: PredictConfig, checkpoint: Checkpoint, emit: Emit) -> int:
    """Return the halo to use; measures the network where the settings leave it open."""
    if config.halo is not None:
        return config.halo
    multiple = input_multiple(checkpoint.spec.architecture)
    module = checkpoint.module.eval()
    radius = receptive_field_radius(module, checkpoint.spec.in_channels, multiple, WIDEST_HALO)
    if radius is None:
        emit(
            Message(
                f"The network sees further than {WIDEST_HALO} px around a pixel; tiles get that much context, and "
                "faint seams between them may remain.",
                "warning",
            )
        )
    return WIDEST_HALO if radius is None else radius


def _masks(config: PredictConfig, spec: NetworkSpec) -> list[MaskSpec]:
    masks = [MaskSpec("labels", config.name, "class", spec.classes, class_colours(spec))]
    if config.probabilities:
        masks.append(MaskSpec("probabilities", config.name, "probability of the predicted class"))
    return masks


def _made_by(
    config: PredictConfig,
    checkpoint: Checkpoint,
    slide: Slide,
    resolution: Resolution,
    halo: int,
    precision: str,
    tissue: TissueMask | None,
) -> dict[str, Any]:
    """Everything that determines the values of the mask."""
    return {
        "checkpoint": checkpoint_record(checkpoint.path, checkpoint.spec),
        "slide": slide.identity(),
        "slide_mpp": slide.mpp,
        "downsample": resolution.downsample,
        "tile": config.tile,
        "halo": halo,
        "precision": precision,
        "tissue_mask": None if tissue is None else tissue.record(),
        **({} if config.colours == "stored" else {"colours": config.colours}),
    }
