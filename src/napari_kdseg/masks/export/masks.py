"""Masks for other programs (a job): QuPath outlines with measurements, areas as CSV, pyramidal OME-TIFF."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import shapely
from pydantic import BaseModel, ConfigDict

from napari_kdseg.errors import ConfigurationError, InTheWayError
from napari_kdseg.files import write_whole
from napari_kdseg.jobs import Control, Emit, Message, Step
from napari_kdseg.masks.disk import writing
from napari_kdseg.masks.export.annotations import write_mask_tiff
from napari_kdseg.masks.pyramid import MaskPyramid, open_masks
from napari_kdseg.masks.reduction import NOT_COMPUTED
from napari_kdseg.masks.settings import setting
from napari_kdseg.slides import AnnotationShape, open_annotation, open_slide, write_annotations
from napari_kdseg.slides.annotations.polygonise import outline

BLOCK = 2048
STAGE = "export"
Kind = Literal["geojson", "csv", "tiff"]


class ExportConfig(BaseModel):
    """What is exported, and as what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: Path = setting(..., "Masks", "Folder *.ome.zarr of the masks.")
    output: Path = setting(..., "Folder", "Where the files are put; made if there is none.")
    names: tuple[str, ...] = setting(
        (), "Which", "Names of the masks, such as student. Default: all segmentations."
    )
    kinds: tuple[Kind, ...] = setting(
        ("geojson", "csv"), "As", "geojson (QuPath), csv (areas), tiff (pyramidal OME-TIFF; needs the slide)."
    )
    slide: str | None = setting(None, "Slide", "The slide they lie on; needed for tiff.")
    overwrite: bool = setting(False, "Replace", "Replace files that are there.")


@dataclass(frozen=True)
class Piece:
    """One connected area of a class.

    Attributes
    ----------
    value
        The class.
    polygon
        Its outline along pixel edges, (x, y) in level-0 pixels.
    area
        In level-0 pixels.
    probability
        Mean probability of the class in it; NaN where none was kept.
    """

    value: int
    polygon: shapely.Polygon
    area: float
    probability: float


def export_masks(config: ExportConfig, emit: Emit, control: Control) -> list[Path]:
    """Export masks (a job).

    Parameters
    ----------
    config
        What to do.
    emit, control
        Progress, pause and cancel; what was written before stays.

    Returns
    -------
    list of Path
        The files, ``<store>.<mask>.geojson``, ``.csv`` and ``.ome.tif``.

    Raises
    ------
    KdsegError
        If there is no such mask, a file is in the way, or one cannot be written.
    """
    masks = open_masks(config.store)
    files = []
    segmented = [name for name, mask in masks.items() if mask.metadata.get("quantity") == "class"]
    for name in config.names or segmented:
        if name not in masks or not masks[name].classes:
            known = ", ".join(name for name, mask in masks.items() if mask.classes) or "none"
            raise ConfigurationError(
                f"{config.store.name} holds no mask {name!r} of classes. There is: {known}."
            )
        files += _export_one(config, name, masks[name], masks.get(f"probabilities/{name}"), emit, control)
    if not files:
        raise ConfigurationError(f"{config.store.name} holds no masks yet. Make them with 'kdseg predict'.")
    return files


def _export_one(
    config: ExportConfig,
    name: str,
    mask: MaskPyramid,
    probabilities: MaskPyramid | None,
    emit: Emit,
    control: Control,
) -> list[Path]:
    stem = f"{config.store.name.removesuffix('.ome.zarr')}.{name}"
    suffixes = {"geojson": ".geojson", "csv": ".csv", "tiff": ".ome.tif"}
    places = {kind: config.output / f"{stem}{suffixes[kind]}" for kind in config.kinds}
    for place in places.values():
        if place.exists() and not config.overwrite:
            raise InTheWayError(
                f"{place} is there already. Choose another folder, or allow it to be replaced."
            )
    if mask.metadata.get("status") == "unfinished":
        emit(Message(f"The mask '{name}' is not finished: what is not computed yet is left out.", "warning"))
    with writing(config.output.name):
        config.output.mkdir(parents=True, exist_ok=True)
    if {"geojson", "csv"} & set(places):
        pieces = pieces_of(mask, probabilities, emit, control)
        if "geojson" in places:
            write_annotations(places["geojson"], [_as_shape(piece, mask) for piece in pieces], mpp=mask.mpp)
        if "csv" in places:
            with writing(places["csv"].name):
                write_whole(places["csv"], _table(pieces, mask).encode())
    if "tiff" in places:
        if config.slide is None:
            raise ConfigurationError("A pyramidal TIFF is as large as the slide: say which one with --slide.")
        with open_slide(config.slide) as slide:
            annotation = open_annotation(mask.path, slide)
            write_mask_tiff(places["tiff"], annotation, slide, mask.downsample[0], emit, control)
    return list(places.values())


def pieces_of(
    mask: MaskPyramid, probabilities: MaskPyramid | None, emit: Emit, control: Control
) -> list[Piece]:
    """Outline and measure the connected areas of every class but background, by class, then from top to bottom.

    Parameters
    ----------
    mask, probabilities
        Classes, and the probability of each on the same grid, if it was kept.
    emit, control
        Progress, pause and cancel.
    """
    level = mask.levels[0]
    blocks = itertools.count()
    total = math.prod(math.ceil(side / BLOCK) for side in level.shape)
    rounds = 1 if probabilities is None else 2

    def check() -> None:
        control.check()
        emit(Step(STAGE, next(blocks), rounds * total))

    def read(y: int, x: int, height: int, width: int) -> np.ndarray:
        return np.asarray(level[y : y + height, x : x + width])

    shape = (level.shape[0], level.shape[1])
    found = outline(read, shape, (1.0, 1.0), skip=(0, NOT_COMPUTED), tile=BLOCK, check=check)
    values = sorted(found.values - {0, NOT_COMPUTED})
    outlined = [(value, polygon) for value in values for polygon in found.polygons(value)]
    polygons = np.array([polygon for _, polygon in outlined], dtype=object)
    means = np.full(len(polygons), np.nan)
    if probabilities is not None and len(polygons):
        means = _mean_probabilities(polygons, probabilities, shape, check)
    scale = np.array(mask.downsample[::-1])
    full = shapely.transform(polygons, lambda xy: xy * scale) if len(polygons) else polygons
    return [
        Piece(value, polygon, float(shapely.area(polygon)), float(mean))
        for (value, _), polygon, mean in zip(outlined, full, means, strict=True)
    ]


def _mean_probabilities(
    polygons: np.ndarray, probabilities: MaskPyramid, shape: tuple[int, int], check: Callable[[], None]
) -> np.ndarray:
    """Mean of the probabilities in each polygon (in pixels of the mask), block by block."""
    from rasterio import Affine, features  # GDAL takes a while to load

    tree = shapely.STRtree(polygons)
    sums, counts = np.zeros(len(polygons) + 1), np.zeros(len(polygons) + 1)
    for y in range(0, shape[0], BLOCK):
        for x in range(0, shape[1], BLOCK):
            check()
            height, width = min(BLOCK, shape[0] - y), min(BLOCK, shape[1] - x)
            there = tree.query(shapely.box(x, y, x + width, y + height))
            if not len(there):
                continue
            whose = features.rasterize(
                ((polygons[index], index + 1) for index in there),
                out_shape=(height, width),
                transform=Affine.translation(x, y),
                dtype=np.int32,
            )
            values = np.asarray(probabilities.levels[0][y : y + height, x : x + width])
            known = values != NOT_COMPUTED
            sums += np.bincount(whose[known], values[known] / (NOT_COMPUTED - 1), minlength=len(sums))
            counts += np.bincount(whose[known], minlength=len(sums))
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)[1:]


def _as_shape(piece: Piece, mask: MaskPyramid) -> AnnotationShape:
    measurements = {}
    if mask.mpp is not None:
        measurements["Area µm^2"] = round(piece.area * mask.mpp[0] * mask.mpp[1], 3)
    if not math.isnan(piece.probability):
        measurements["Mean probability"] = round(piece.probability, 4)
    return AnnotationShape(
        piece.polygon,
        _name(piece.value, mask),
        mask.colours[piece.value] if piece.value < len(mask.colours) else None,
        object_type="detection",
        extra={"properties": {"measurements": measurements}} if measurements else {},
    )


def _name(value: int, mask: MaskPyramid) -> str:
    return mask.classes[value] if value < len(mask.classes) else f"class {value}"


def _table(pieces: list[Piece], mask: MaskPyramid) -> str:
    """One line a class: area, number and size of its pieces; empty where there is no scale or no probability."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "area_mm2", "area_px", "pieces", "mean_piece_um2", "mean_probability"])
    um2 = None if mask.mpp is None else mask.mpp[0] * mask.mpp[1]
    for value, name in list(enumerate(mask.classes))[1:]:
        own = [piece for piece in pieces if piece.value == value]
        area = sum(piece.area for piece in own)
        known = [piece for piece in own if not math.isnan(piece.probability)]
        weight = sum(piece.area for piece in known)
        writer.writerow(
            [
                name,
                "" if um2 is None else f"{area * um2 / 1e6:.6g}",
                f"{area:.0f}",
                len(own),
                "" if um2 is None or not own else f"{area * um2 / len(own):.6g}",
                f"{sum(piece.area * piece.probability for piece in known) / weight:.4f}" if weight else "",
            ]
        )
    return text.getvalue()
