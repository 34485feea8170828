"""A slide written in another format: pyramidal TIFF, OME-TIFF, OME-Zarr, or TIFF like an Aperio scanner's (a job).

The result appears under its name when all of it is there; a job that is stopped or fails leaves nothing behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from napari_kdseg.errors import OutputError
from napari_kdseg.jobs import Control, Emit, Message, Started
from napari_kdseg.slides.address import split_address
from napari_kdseg.slides.opening import open_slide
from napari_kdseg.slides.pixels.cache import TileCache
from napari_kdseg.slides.pixels.tiles import MAX_COMPUTED_PIXELS
from napari_kdseg.slides.readers.backend import Backend, Metadata, make_level
from napari_kdseg.slides.readers.choosing import choose_backend
from napari_kdseg.slides.slide import Slide
from napari_kdseg.slides.writing.config import ConvertConfig
from napari_kdseg.slides.writing.output import (
    check_output,
    counted,
    scratch_beside,
    size_on_disk,
    written_whole,
)
from napari_kdseg.slides.writing.pyramid import Pyramid, slide_pyramid
from napari_kdseg.slides.writing.write_tiff import TiffContent, write_ome_tiff, write_plain_tiff, write_svs
from napari_kdseg.slides.writing.write_zarr import write_image
from napari_kdseg.synthetic.address import is_address

CACHE_BYTES = 2**28
"""Tiles of the source that are kept: two rows of them on a slide 100,000 px wide, so that each is decoded once."""


@dataclass(frozen=True)
class ConvertedSlide:
    """What was written.

    Attributes
    ----------
    output
        Where it is.
    shapes
        Pixels (height, width) of its levels.
    bytes
        It takes on disk.
    """

    output: Path
    shapes: tuple[tuple[int, int], ...]
    bytes: int


def convert(config: ConvertConfig, emit: Emit, control: Control) -> ConvertedSlide:
    """Write a slide in another format (a job).

    Raises
    ------
    SlideError
        If the slide cannot be read.
    InTheWayError
        If something is there and may not be replaced.
    OutputError
        If the format cannot hold the slide, or it cannot be written there.
    """
    output = config.output.expanduser().absolute()
    check_output(output, config.overwrite)
    with _open(config) as slide:
        slide.check_decided()
        _check_fit(slide, config)
        _tell_losses(slide, config, emit)
        with scratch_beside(output) as scratch:
            pyramid = slide_pyramid(slide, step=config.level_step, tile=config.tile_side, scratch=scratch)
            planes = slide.channels if config.format == "ome-tiff" and not _is_rgb(slide) else 1
            total = pyramid.tile_count * planes
            emit(Started(f"Write {output.name}", total))
            progress = counted("convert", total, emit, control)
            with written_whole(output, folder=config.in_folder, overwrite=config.overwrite) as unfinished:
                write_slide(slide, pyramid, unfinished, config, progress)
        if slide.bad_tiles:
            text = f"{len(slide.bad_tiles)} tiles of {slide.name} could not be read and are grey in {output.name}."
            emit(Message(text, "warning"))
    return ConvertedSlide(output, tuple(level.shape for level in pyramid.levels), size_on_disk(output))


def write_slide(
    slide: Slide, pyramid: Pyramid, output: Path, config: ConvertConfig, progress: Callable[[], None]
) -> None:
    """Write the levels of ``pyramid`` and what else the format keeps of ``slide`` to ``output``."""
    if config.format == "ome-zarr":
        write_image(
            output,
            pyramid,
            version=config.ome_zarr,
            name=slide.name,
            mpp=slide.mpp,
            compressed=config.compression != "none",
            icc=slide.icc,
            channel_names=slide.channel_names,
            progress=progress,
        )
        return
    compression = config.compression
    if compression == "auto":
        compression = "jpeg" if _is_rgb(slide) else "deflate"
    content = TiffContent(
        name=slide.name,
        mpp=slide.mpp,
        compression=compression,
        quality=config.quality,
        icc=slide.icc,
        channel_names=slide.channel_names,
        progress=progress,
    )
    if config.format == "svs" and config.pictures:
        for name in {"label", "macro"} & set(slide.associated):
            content.pictures[name] = slide.read_associated(name)
    writers = {"svs": write_svs, "ome-tiff": write_ome_tiff, "tiff": write_plain_tiff}
    writers[config.format](output, pyramid, content)


# -- small things ------------------------------------------------------------------------------------


class _WithoutOverview:
    """A backend whose levels end before they are small: it names one more, which nothing here reads.

    A slide that is looked at must have a small level and refuses to open without; one that is converted gets it now.
    """

    def __init__(self, backend: Backend):
        levels = backend.metadata.levels
        tiny = make_level((1, 1), levels[0].shape, (1, 1))
        self.metadata = replace(backend.metadata, levels=(*levels, tiny))
        self.read_tile = backend.read_tile
        self.read_associated = backend.read_associated
        self.close = backend.close


def _open(config: ConvertConfig) -> Slide:
    """Open the slide; one of a single enormous level, too, which is what most needs to be converted."""
    cache = TileCache(CACHE_BYTES)
    if not is_address(config.slide):
        path, asked = split_address(config.slide)
        backend = choose_backend(path, asked)
        if math.prod(backend.metadata.levels[-1].shape) > MAX_COMPUTED_PIXELS:
            return Slide(_WithoutOverview(backend), path, mpp=config.mpp, cache=cache)
        backend.close()
    return open_slide(config.slide, mpp=config.mpp, cache=cache)


def _is_rgb(slide: Slide) -> bool:
    return slide.channels == 3 and slide.dtype == np.uint8


def _check_fit(slide: Slide, config: ConvertConfig) -> None:
    """Refuse what the format cannot hold."""
    if slide.file == config.output.expanduser().absolute():
        raise OutputError("A slide cannot be written over itself. Choose another name.")
    if _is_rgb(slide) or config.format == "ome-zarr":
        return
    if config.format in ("svs", "tiff"):
        raise OutputError(
            f"{slide.name} has {slide.channels} channels of {slide.dtype}, which no viewer expects in this "
            "format. Write .ome.tif or .ome.zarr."
        )
    if config.compression == "jpeg" and slide.dtype != np.uint8:
        raise OutputError(f"JPEG holds 8 bits, {slide.name} has {slide.dtype}. Choose deflate or zstd.")


def _tell_losses(slide: Slide, config: ConvertConfig, emit: Emit) -> None:
    """Say what does not come along, and what the numbers were taken for where that is not plain."""
    if slide.read_as != Metadata.read_as and slide.metadata.kind == "rgb":
        emit(Message(f"Its pixels are read as {slide.read_as}."))
    if slide.mpp is None:
        emit(
            Message(
                f"{slide.name} does not say how large its pixels are, so neither will the result.", "warning"
            )
        )
    if slide.mpp is not None and config.format == "svs" and abs(slide.mpp[0] / slide.mpp[1] - 1) > 1e-3:
        emit(Message("An SVS holds one pixel size: the mean of both axes is written.", "warning"))
    dropped = sorted({"label", "macro"} & set(slide.associated))
    if dropped and not (config.pictures and config.format == "svs"):
        emit(Message(f"Left out: {' and '.join(dropped)} (a label may show the name of a patient)."))
    if slide.icc is not None and config.format == "ome-zarr":
        emit(
            Message(
                "OME-Zarr has no place for the ICC profile; it is kept as an attribute few programs read."
            )
        )
