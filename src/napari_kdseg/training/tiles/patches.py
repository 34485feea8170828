"""An annotated slide becomes a training folder: tiles of one resolution, drawn from all over it, with a manifest.

The manifest's ``patient`` is a block of the slide, so that a validation split is spatially separate: tiles that lie
across the border of two blocks are not cut.
"""

from __future__ import annotations

import csv
import io
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from napari_kdseg.errors import DataError, OutputError, explain
from napari_kdseg.jobs import Control, Emit, Event, Message, Step
from napari_kdseg.slides import Annotation, Slide, find_annotation, open_annotation, tissue_of
from napari_kdseg.training.tiles.tile import stable_hash

BLOCKS = 5
"""The annotated area is divided into at most so many blocks along each side."""

LABELLED_SHARE = 0.5
"""A tile is cut where at least this share of it is annotated."""

FOREGROUND_SHARE = 0.01
"""A class is in a tile if it takes at least this share of its labelled part."""

SAMPLES = 16
"""The annotation of a tile is judged by so many points along each side."""


@dataclass(frozen=True)
class Location:
    """A possible tile: its corner in pixels of the working resolution, and the foreground classes in it."""

    y: int
    x: int
    classes: tuple[int, ...]


def _silent(event: Event) -> None:
    """Say nothing."""


def cut_tiles(
    slide: Slide,
    annotation: Annotation | None,
    folder: Path,
    *,
    size: int = 256,
    mpp: float | None = 0.5,
    count: int = 400,
    stride: int | None = None,
    foreground: float = 0.8,
    seed: int = 0,
    bounds: bool | None = None,
    emit: Emit = _silent,
    control: Control | None = None,
) -> Path:
    """Cut a training folder out of an annotated slide: the same tiles for the same arguments.

    Parameters
    ----------
    slide
        What is cut.
    annotation
        Its masks; ``None`` takes the file that lies beside the slide: ``a.geojson`` (QuPath) or ``a.xml`` (ASAP,
        ImageScope) of ``a.svs``.
    folder
        A new or empty folder. It appears when all tiles are written; a cancelled job leaves nothing behind.
    size
        Side of a tile in pixels.
    mpp
        Resolution of the tiles in micrometres per pixel; ``None``, or a slide without a scale: that of level 0.
    count
        At most so many tiles; classes take turns, so that rare ones are there.
    stride
        Distance of neighbouring tiles in pixels; by default their size, below it they overlap.
    foreground
        Share of the tiles that show a foreground class, where there are enough; the others show tissue without one.
    seed
        Of the choice.
    bounds
        Whether the file beside the slide counts from the corner of the scanned area; see
        :func:`~napari_kdseg.slides.open_annotation`.
    emit, control
        Progress, pause and cancel.

    Returns
    -------
    Path
        The folder, with ``images``, ``masks``, ``manifest.csv`` and ``classes.txt``.

    Raises
    ------
    DataError
        If the slide cannot be trained on, or nothing on it is annotated.
    OutputError
        If the folder holds something, or cannot be written to.
    """
    control = control or Control()
    if slide.dtype != np.uint8:
        raise DataError(
            f"{slide.name} holds {slide.dtype} values, but networks here learn from 8 bits. Convert it first."
        )
    if annotation is None:
        annotation = _annotation_beside(slide, bounds)
    slide.check_decided()
    for note in annotation.notes:
        emit(Message(note, "warning"))
    downsample = _downsample(slide, mpp, emit)
    blocks = _possible(slide, annotation, downsample, size, stride or size, control)
    chosen = _choose(list(blocks), slide, downsample, size, count, foreground, seed)
    folder = Path(folder).expanduser()
    part = _begin(folder)
    try:
        rows = []
        for number, location in enumerate(chosen, start=1):
            control.check()
            rows.append(
                _write_tile(part, slide, annotation, location, downsample, size)
                | {"patient": blocks[location]}
            )
            emit(Step("cut tiles", number, len(chosen)))
        _write_manifest(part / "manifest.csv", rows)
        (part / "classes.txt").write_text("\n".join(annotation.classes) + "\n", encoding="utf-8")
        part.rename(folder)
    except OSError as error:
        raise OutputError(f"The tiles could not be written to {folder}. {explain(error)}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _possible(
    slide: Slide,
    annotation: Annotation,
    downsample: tuple[float, float],
    size: int,
    stride: int,
    control: Control,
) -> dict[Location, str]:
    """Return every location a tile can be cut from, and the block of the slide it lies in."""
    blocks = _blocks(list(_locations(slide, annotation, downsample, size, stride, control)), size)
    if not blocks:
        raise DataError(
            f"No tile of {size} pixels lies in an annotated part of {slide.name}. Annotate more of it, or cut "
            "smaller tiles."
        )
    return blocks


def _annotation_beside(slide: Slide, bounds: bool | None) -> Annotation:
    path = find_annotation(slide)
    if path is None:
        raise DataError(
            f"Nothing is drawn on {slide.name}: there is no annotation of its name beside it. Export one from QuPath "
            "as GeoJSON, or choose a mask."
        )
    return open_annotation(path, slide, bounds=bounds)


def _downsample(slide: Slide, mpp: float | None, emit: Emit) -> tuple[float, float]:
    """Width (y, x) of a tile's pixel in level-0 pixels."""
    if mpp is None:
        return 1.0, 1.0
    if slide.mpp is None:
        emit(Message(f"{slide.name} has no scale, so tiles are cut at its full resolution.", "warning"))
        return 1.0, 1.0
    return mpp / slide.mpp[0], mpp / slide.mpp[1]


def _locations(
    slide: Slide,
    annotation: Annotation,
    downsample: tuple[float, float],
    size: int,
    stride: int,
    control: Control,
) -> Iterator[Location]:
    """Find all tiles that are annotated, a row of tiles at a time, by looking at a few points of each."""
    height, width = (math.floor(side / f) for side, f in zip(slide.levels[0].shape, downsample, strict=True))
    step = size / SAMPLES
    coarse = (downsample[0] * step, downsample[1] * step)
    for y in range(0, height - size + 1, stride):
        control.check()
        # Points lie on one grid over the slide, so a tile off the grid is judged by the points nearest to its own.
        band = annotation.read_scaled(coarse, round(y / step), 0, SAMPLES, math.ceil(width / step))
        for x in range(0, width - size + 1, stride):
            seen = band[:, round(x / step) : round(x / step) + SAMPLES]
            labelled = seen[seen != 255]
            if labelled.size < LABELLED_SHARE * SAMPLES**2:
                continue
            values, counts = np.unique(labelled, return_counts=True)
            there = counts >= max(1, FOREGROUND_SHARE * labelled.size)
            yield Location(y, x, tuple(int(value) for value in values[there] if value != 0))


def _blocks(locations: Sequence[Location], size: int) -> dict[Location, str]:
    """Name the block of every location that lies in one block only."""
    if not locations:
        return {}
    top, left = min(location.y for location in locations), min(location.x for location in locations)
    bottom, right = (
        max(location.y for location in locations) + size,
        max(location.x for location in locations) + size,
    )
    tall, wide = (max(1, math.ceil(side / size / BLOCKS)) * size for side in (bottom - top, right - left))
    named = {}
    for location in locations:
        row, column = (location.y - top) // tall, (location.x - left) // wide
        last_row, last_column = (location.y - top + size - 1) // tall, (location.x - left + size - 1) // wide
        if (row, column) == (last_row, last_column):
            named[location] = f"block-{row}-{column}"
    return named


def _choose(
    locations: Sequence[Location],
    slide: Slide,
    downsample: tuple[float, float],
    size: int,
    count: int,
    foreground: float,
    seed: int,
) -> list[Location]:
    """Draw tiles: foreground classes in turn, then tissue without foreground, then whatever fills the number."""
    drawn = sorted(locations, key=lambda location: stable_hash(seed, "cut", location.y, location.x))
    showing = [location for location in drawn if location.classes]
    empty = [location for location in drawn if not location.classes]
    chosen = _in_turn(showing, min(len(showing), max(round(foreground * count), count - len(empty))))
    if empty and len(chosen) < count:
        tissue = tissue_of(slide)
        (fy, fx) = downsample
        # Stable: tissue first, each part in the order drawn.
        empty.sort(
            key=lambda location: not tissue.covers(location.y * fy, location.x * fx, size * fy, size * fx)
        )
    chosen += empty[: count - len(chosen)]
    return sorted(chosen, key=lambda location: (location.y, location.x))


def _in_turn(locations: Sequence[Location], count: int) -> list[Location]:
    """Take ``count`` locations, of each class in turn."""
    classes = sorted({c for location in locations for c in location.classes})
    waiting = {c: iter([location for location in locations if c in location.classes]) for c in classes}
    chosen: dict[Location, None] = {}
    while len(chosen) < count:
        for c in classes:
            location = next((location for location in waiting[c] if location not in chosen), None)
            if location is not None and len(chosen) < count:
                chosen[location] = None
    return list(chosen)


def _begin(folder: Path) -> Path:
    """Make the hidden folder beside ``folder`` that everything is written to first."""
    part = folder.with_name(f".{folder.name}.part")
    try:
        if folder.exists():
            if not folder.is_dir() or any(folder.iterdir()):
                raise OutputError(f"{folder} holds something already. Choose a new folder for the tiles.")
            folder.rmdir()
        shutil.rmtree(part, ignore_errors=True)
        (part / "images").mkdir(parents=True)
        (part / "masks").mkdir()
    except OSError as error:
        raise OutputError(f"The tiles cannot be written to {folder}. {explain(error)}") from error
    return part


def _write_tile(
    folder: Path,
    slide: Slide,
    annotation: Annotation,
    location: Location,
    downsample: tuple[float, float],
    size: int,
) -> dict[str, Any]:
    """Write image and mask of a tile; return its line of the manifest."""
    image = slide.read_scaled(downsample, location.y, location.x, size, size)
    mask = annotation.read_scaled(downsample, location.y, location.x, size, size)
    name = f"y{round(location.y * downsample[0])}_x{round(location.x * downsample[1])}"
    if image.shape[2] in (1, 3):
        Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(
            folder / "images" / f"{name}.png"
        )
    else:
        planes = np.ascontiguousarray(np.moveaxis(image, 2, 0))
        path = folder / "images" / f"{name}.tif"
        tifffile.imwrite(path, planes, photometric="minisblack", metadata={"axes": "CYX"}, compression="zlib")
    Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    return {
        "tile": name,
        "slide": slide.name,
        "y": round(location.y * downsample[0]),
        "x": round(location.x * downsample[1]),
        "mpp": "" if slide.mpp is None else round(downsample[0] * slide.mpp[0], 6),
        "foreground_fraction": round(float(((mask != 0) & (mask != 255)).mean()), 4),
    }


def _write_manifest(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["tile", "patient", "slide", "y", "x", "mpp", "foreground_fraction"])
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
