"""Annotations from one file into another: outlines of other programs, TIFF masks, OME-Zarr labels (a job)."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_kdseg.errors import ConfigurationError, InTheWayError
from napari_kdseg.jobs import Control, Emit, Message, Step
from napari_kdseg.masks.export.class_tiff import TILE, write_class_tiff
from napari_kdseg.masks.export.config import ConvertAnnotationsConfig
from napari_kdseg.masks.tiling import mask_shape, plan_tiles
from napari_kdseg.masks.writing.store import MaskSpec, MaskStore
from napari_kdseg.slides import (
    Annotation,
    AnnotationShape,
    Slide,
    annotation_to_shapes,
    open_annotation,
    open_slide,
    read_annotations,
    write_annotations,
)
from napari_kdseg.slides.annotations.model import Outlines
from napari_kdseg.slides.annotations.suffixes import is_annotation_file

OUTLINE_TILE = 2048
SMALLEST = 1024
STAGE = "annotations"


@dataclass(frozen=True)
class ConvertedAnnotations:
    """What came of it.

    Attributes
    ----------
    target
        Where it is.
    classes
        Names of the classes.
    shapes
        How many outlines were written; ``None`` for a mask.
    """

    target: Path
    classes: tuple[str, ...]
    shapes: int | None


def convert_annotations(
    config: ConvertAnnotationsConfig, emit: Emit, control: Control
) -> ConvertedAnnotations:
    """Convert annotations (a job).

    Parameters
    ----------
    config
        What to do.
    emit, control
        Progress, pause and cancel; a cancelled conversion leaves no file, and in an OME-Zarr a label marked unfinished.

    Raises
    ------
    KdsegError
        If the source cannot be read, does not fit the slide, or the target cannot be written.
    """
    target, outlines = config.target, is_annotation_file(config.source)
    if outlines and not is_annotation_file(target) and config.slide is None:
        raise ConfigurationError("A mask of outlines is as large as the slide: say which one with --slide.")
    if target.exists() and not target.is_dir() and not config.overwrite:
        raise InTheWayError(f"{target} is there already. Choose another name, or allow it to be replaced.")
    with contextlib.ExitStack() as stack:
        slide = None
        if config.slide is not None or not outlines:
            slide = stack.enter_context(open_slide(config.slide or config.source))  # a mask is a picture too
        if slide is None and (config.source_bounds or config.target_bounds):
            raise ConfigurationError("The scanned area is known by the slide: say which one with --slide.")
        if outlines and is_annotation_file(target):
            shapes = read_annotations(config.source, slide=slide, bounds=config.source_bounds)
            _tell(shapes.notes, emit)
        else:
            assert slide is not None
            annotation = _annotation(config, slide)
            _tell(annotation.notes, emit)
            if not is_annotation_file(target):
                _write_mask(config, annotation, slide, emit, control)
                return ConvertedAnnotations(target, annotation.classes, None)
            shapes = Outlines(_outlined(annotation, emit, control))
        mpp = None if slide is None else slide.mpp
        write_annotations(target, shapes, slide=slide, bounds=config.target_bounds, xml=config.xml, mpp=mpp)
    return ConvertedAnnotations(
        target, tuple(dict.fromkeys(shape.class_name or "" for shape in shapes)), len(shapes)
    )


def _outlined(annotation: Annotation, emit: Emit, control: Control) -> list[AnnotationShape]:
    """Outline a mask and say how far it is; every block is announced before it is read."""
    total = math.prod(math.ceil(side / OUTLINE_TILE) for side in annotation.levels[0].shape)
    blocks = itertools.count()

    def check() -> None:
        control.check()
        emit(Step(STAGE, next(blocks), total))

    return annotation_to_shapes(annotation, tile=OUTLINE_TILE, check=check)


def _tell(notes: Sequence[str], emit: Emit) -> None:
    """Say what was decided on reading."""
    for note in notes:
        emit(Message(note, "warning"))


def _annotation(config: ConvertAnnotationsConfig, slide: Slide) -> Annotation:
    if not is_annotation_file(config.source):
        annotation = open_annotation(config.source, slide)
        if config.classes is not None:
            annotation.name_classes(config.classes)
        return annotation
    return open_annotation(
        config.source,
        slide,
        classes=config.classes,
        outside=config.outside,
        overlap=config.overlap,
        bounds=config.source_bounds,
    )


def _write_mask(
    config: ConvertAnnotationsConfig, annotation: Annotation, slide: Slide, emit: Emit, control: Control
) -> None:
    kind = config.target.suffix.lower()
    if kind in (".tif", ".tiff"):
        write_mask_tiff(config.target, annotation, slide, config.downsample, emit, control)
    elif kind == ".zarr":
        write_mask_label(
            config.target, annotation, slide, config.name, config.downsample, emit, control, config.overwrite
        )
    else:
        raise ConfigurationError(
            f"The name {config.target.name!r} says no format. Call it *.geojson, *.geojson.gz, *.xml, *.tif or "
            "*.ome.zarr."
        )


def write_mask_tiff(
    path: Path, annotation: Annotation, slide: Slide, downsample: float, emit: Emit, control: Control
) -> None:
    """Write a mask as a tiled, pyramidal OME-TIFF of class indices, tile by tile.

    Parameters
    ----------
    path
        Written whole or not at all; a file of that name is replaced.
    annotation, slide
        What is written, and where it lies.
    downsample
        Width of a pixel of the mask in level-0 pixels; rounded so that whole pixels cover the slide.
    emit, control
        Progress, pause and cancel.
    """
    height, width = (max(1, round(side / downsample)) for side in slide.shape)
    shapes = [(height, width)]
    while max(shapes[-1]) > SMALLEST:
        shapes.append((math.ceil(shapes[-1][0] / 2), math.ceil(shapes[-1][1] / 2)))
    pixel_size = None
    if slide.mpp is not None:
        y, x = (
            mpp * side / count for mpp, side, count in zip(slide.mpp, slide.shape, shapes[0], strict=True)
        )
        pixel_size = (y, x)

    def read(level: int, y: int, x: int) -> np.ndarray:
        factor = (slide.shape[0] / shapes[level][0], slide.shape[1] / shapes[level][1])
        return annotation.read_scaled(factor, y, x, TILE, TILE)

    def step(done: int, total: int) -> None:
        control.check()
        emit(Step(STAGE, done, total))

    write_class_tiff(
        path,
        shapes,
        read,
        pixel_size=pixel_size,
        name=slide.name,
        classes=annotation.classes,
        colours=annotation.colours,
        step=step,
    )


def write_mask_label(
    path: Path,
    annotation: Annotation,
    slide: Slide,
    name: str,
    downsample: float,
    emit: Emit,
    control: Control,
    overwrite: bool = False,
) -> None:
    """Write a mask as a label of an OME-Zarr mask store, beside those of teacher and student.

    Parameters
    ----------
    path
        Folder ``*.ome.zarr``; made with an overview of the slide if there is none.
    annotation, slide, downsample, emit, control
        As for :func:`write_mask_tiff`; the downsample is exact, and the last pixels may reach over the slide.
    name
        Of the label.
    overwrite
        Replace a label of this name.
    """
    factor = (downsample, downsample)
    shape = mask_shape(slide.shape, factor)
    spec = MaskSpec("labels", name, "class", annotation.classes, annotation.colours)
    made_by = {"annotation": annotation.source, "content": time.time_ns(), "downsample": downsample}
    store = MaskStore(path, slide)
    with store.begin(
        [spec], shape=shape, downsample=factor, tile=TILE, made_by=made_by, overwrite=overwrite
    ) as out:
        plan = sorted(plan_tiles(shape, None, TILE, 0), key=lambda tile: (tile.row, tile.column))
        for done, tile in enumerate(plan, start=1):
            control.check()
            block = annotation.read_scaled(factor, tile.y, tile.x, tile.height, tile.width)
            out.write_tile(tile, [block])
            emit(Step(STAGE, done, len(plan)))
        out.finish(None)
