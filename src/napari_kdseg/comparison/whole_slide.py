"""The job that compares masks over a whole slide: the map of their disagreement, their scores, and their regions.

The map is a mask like any other, written tile by tile; what is counted of a tile is noted with it. So a comparison that
was stopped goes on to the same map and the same sums, and one of other masks is never taken for it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_kdseg.codes import DIFFERENCES, Difference
from napari_kdseg.comparison.areas import (
    TILE,
    Box,
    about_of,
    area_of,
    count_area,
    counter_of,
    open_together,
    scores_of,
)
from napari_kdseg.comparison.compared.mask import ComparedMask, Role
from napari_kdseg.comparison.compared.opening import Source
from napari_kdseg.comparison.compared.together import Together
from napari_kdseg.comparison.config import CompareConfig
from napari_kdseg.comparison.regions.finding import find_regions, from_masks
from napari_kdseg.comparison.regions.objects import objects_of
from napari_kdseg.comparison.regions.table import Compared, RegionTable
from napari_kdseg.comparison.scores.figures import Figures, add_figures, as_note, from_note, pair_key
from napari_kdseg.comparison.scores.table import PairScores
from napari_kdseg.comparison.scores.tile import Counter
from napari_kdseg.errors import DataError, SlideError
from napari_kdseg.jobs import Checkpointed, Control, Emit, Message, Started, Step
from napari_kdseg.masks.pyramid import open_masks
from napari_kdseg.masks.tiling import GridTile, plan_tiles
from napari_kdseg.masks.writing.store import MaskSpec, MaskStore
from napari_kdseg.memory import blocks_kept
from napari_kdseg.slides import Slide, open_slide
from napari_kdseg.slides.pixels.read_ahead import read_ahead

STORE, MAP, REGIONS = "comparison.ome.zarr", "disagreement", "regions.npy"


@dataclass(frozen=True)
class CompareResult:
    """What a comparison came to.

    Attributes
    ----------
    output
        Its folder; the map is ``comparison.ome.zarr``, label ``disagreement``.
    masks
        What was compared, on which grid.
    scores
        Of the mapped pair first; then of the reference, or else the first mask, against every other one.
    regions
        Of the mapped pair.
    objects
        By role: the objects of what was compared to, and the share of each that this mask found; empty without
        scores.
    tolerance
        Of the surface Dice, in micrometres or pixels.
    reach
        How many pixels of the grid contours were followed.
    tiles_done, tiles_kept
        Tiles compared now, and those that an earlier run had finished.
    """

    output: Path
    masks: Together
    scores: tuple[PairScores, ...]
    regions: RegionTable
    objects: Mapping[Role, RegionTable]
    tolerance: float
    reach: int
    tiles_done: int
    tiles_kept: int


def compare(
    config: CompareConfig, emit: Emit, control: Control, given: Mapping[Role, Source] | None = None
) -> CompareResult:
    """Compare masks over a slide (a job).

    Parameters
    ----------
    config
        What to do. Running it again continues where it stopped.
    emit
        Receives ``Started``, ``Message``, one ``Step`` a tile (stages ``"disagreement"``, ``"regions"``,
        ``"objects"``; the first with the level-0 rectangle ``y x h w``) and ``Checkpointed``.
    control
        Looked at after every tile. When cancelled, the tiles of the map are kept.
    given
        Masks that are no files, by role: arrays, shapes, masks of open stores. They go before those of ``config``.

    Returns
    -------
    CompareResult

    Raises
    ------
    KdsegError
        If slide, masks or output do not work together.
    """
    with contextlib.closing(open_slide(config.slide, mpp=config.slide_mpp)) as slide, blocks_kept():
        masks = open_together(config, slide, given)
        for note in masks.notes:
            emit(Message(note))
        counter = counter_of(masks, config)
        emit(Started(f"comparison on {slide.name}"))
        figures, done, kept = map_disagreement(config, slide, masks, counter, emit, control)
        area = area_of(masks, config) or (0, 0, *masks.shape)
        regions = _regions(config, slide, masks, area, emit, control)
        objects = _objects(masks, area, regions.about, emit, control) if config.scores else {}
        scores = tuple(scores_of(figures, masks, pair, config) for pair in counter.pairs)
        result = CompareResult(
            output=config.output,
            masks=masks,
            scores=scores,
            regions=regions,
            objects=objects,
            tolerance=config.tolerance,
            reach=counter.reach,
            tiles_done=done,
            tiles_kept=kept,
        )
        emit(Checkpointed(config.output))
        return result


def made_by(masks: Together, counter: Counter, slide: Slide) -> dict[str, Any]:
    """Return everything that determines map and counts: a comparison of other masks is another one."""
    return {
        "slide": slide.identity(),
        "slide_mpp": masks.slide_mpp,
        "downsample": masks.downsample,
        "classes": masks.classes,
        "compared": {mask.role: _about(mask) for mask in masks.masks},
        "within": None if masks.within is None else masks.within.made_by,
        "annotated": masks.annotated,
        "tile": TILE,
        **counter.made_by(),
    }


def _recipe(config: CompareConfig, slide: Slide, masks: Together) -> dict[str, Any]:
    """Return what decides a table of regions, as it comes back from JSON."""
    recipe = made_by(masks, counter_of(masks, config), slide)
    return json.loads(json.dumps({**recipe, "region": config.region}))


def kept_regions(config: CompareConfig, slide: Slide, masks: Together) -> RegionTable | None:
    """Return the regions that an earlier comparison of these masks left in the folder; ``None`` if none is of these.

    Parameters
    ----------
    config, slide, masks
        What would be compared now: settings, region, and the masks as they are now. One that has grown since is
        another mask.
    """
    try:
        table = RegionTable.load(config.output / REGIONS)
    except SlideError:
        return None
    return table if table.about.made_by == _recipe(config, slide, masks) else None


def _about(mask: ComparedMask) -> dict[str, Any]:
    return {"name": mask.name, "classes": sorted(mask.mapping.items()), **mask.made_by}


def map_disagreement(
    config: CompareConfig,
    slide: Slide,
    masks: Together,
    counter: Counter,
    emit: Emit,
    control: Control,
) -> tuple[Figures, int, int]:
    """Write the map of the disagreement of the first pair, and count all pairs.

    Parameters
    ----------
    config, slide, masks, counter, emit, control
        As :func:`compare` has them.

    Returns
    -------
    figures, done, kept
        The counts of the region; how many tiles were compared now, and how many were there before.

    Raises
    ------
    KdsegError
        If the map cannot be written, or no pixel is known to both masks.
    """
    area = area_of(masks, config)
    tiles = plan_tiles(masks.shape, area, TILE, counter.margin)
    like = next((mask.store for mask in masks.masks if mask.store is not None), None)
    store = MaskStore(config.output / STORE, slide, like)
    with store.begin(
        [_map_spec(masks)],
        shape=masks.shape,
        downsample=masks.downsample,
        tile=TILE,
        made_by=made_by(masks, counter, slide),
        overwrite=config.overwrite,
    ) as writer:
        todo = [tile for tile in tiles if tile.index not in writer.done]
        kept = len(tiles) - len(todo)

        def compare_tile(tile: GridTile) -> Box:
            codes, figures = count_area(masks, counter, (tile.y, tile.x, tile.height, tile.width))
            return writer.write_tile(tile, [codes], note={"figures": as_note(figures)})

        threads = _threads(counter)
        with contextlib.closing(read_ahead(compare_tile, todo, threads, threads=threads)) as compared:
            for done, (_, box) in enumerate(compared, start=kept + 1):
                control.check()
                values = dict(zip(("y", "x", "h", "w"), map(float, box), strict=True))
                emit(Step("disagreement", done, len(tiles), values))
        control.check()
        writer.finish(config.region, pack=False)
        notes = {index: note["figures"] for index, note in writer.done.items()}
    figures = add_figures(_figures_in(tile, notes, masks, counter, area) for tile in tiles)
    _check_known(figures, counter, emit)
    return figures, len(todo), kept


def _threads(counter: Counter) -> int:
    """Return in how many threads tiles are compared: a core is left to the window, unless what they do is to wait."""
    return max(1 if counter.full else 2, min(4, (os.cpu_count() or 2) - 1))


def _map_spec(masks: Together) -> MaskSpec:
    first, second = (mask.role for mask in masks.pair)
    names = {Difference.ONLY_TEACHER: f"only the {first}", Difference.ONLY_STUDENT: f"only the {second}"}
    words = tuple(names.get(code, meaning.name) for code, meaning in DIFFERENCES.items())
    return MaskSpec("labels", MAP, MAP, words, tuple(meaning.colour for meaning in DIFFERENCES.values()))


def _check_known(figures: Figures, counter: Counter, emit: Emit) -> None:
    """Refuse to compare where nothing is known of the mapped pair; say it of others."""
    for first, second in counter.pairs:
        if figures[pair_key(first, second, "confusion")].any():
            continue
        sentence = f"No pixel is known to both the {first} and the {second} here: nothing can be compared."
        if (first, second) == counter.pairs[0]:
            raise DataError(f"{sentence} Choose a region that both cover, or wait until they have grown.")
        emit(Message(sentence, "warning"))


def _figures_in(
    tile: GridTile, notes: Mapping[Any, Any], masks: Together, counter: Counter, area: Box | None
) -> Figures:
    """Return the counts of a tile, or of the part of it that lies in ``area``."""
    if area is None:
        return from_note(notes[tile.index])
    y, x = max(tile.y, area[0]), max(tile.x, area[1])
    bottom = min(tile.y + tile.height, area[0] + area[2])
    right = min(tile.x + tile.width, area[1] + area[3])
    if (y, x, bottom - y, right - x) == (tile.y, tile.x, tile.height, tile.width):
        return from_note(notes[tile.index])
    return count_area(masks, counter, (y, x, bottom - y, right - x))[1]


def _regions(
    config: CompareConfig, slide: Slide, masks: Together, area: Box, emit: Emit, control: Control
) -> RegionTable:
    stored = open_masks(config.output / STORE)[MAP]

    def codes(y: int, x: int, height: int, width: int) -> np.ndarray:
        return stored.read_scaled(masks.downsample, y, x, height, width)

    def step(done: int, total: int) -> None:
        control.check()
        emit(Step("regions", done, total))

    about = about_of(masks, _recipe(config, slide, masks))
    table = find_regions(from_masks(masks, codes), area, about, step=step)
    table.save(config.output / REGIONS)
    return table


def _objects(
    masks: Together, area: Box, about: Compared, emit: Emit, control: Control
) -> dict[Role, RegionTable]:
    """Find the objects of what is compared to, and what each other mask found of them."""
    truth = masks.mask("reference") or masks.masks[0]
    found = {}
    for mask in masks.masks:
        if mask is truth:
            continue

        def step(done: int, total: int, role: str = mask.role) -> None:
            control.check()
            emit(Step(f"objects found by the {role}", done, total))

        read = objects_of(masks, truth.role, mask.role)
        found[mask.role] = find_regions(read, area, about, depth=0, step=step)
    return found
