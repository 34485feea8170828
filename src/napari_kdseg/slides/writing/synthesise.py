"""A synthetic slide written to disk, with its exact masks beside it (a job)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from napari_kdseg.colours import CLASSES
from napari_kdseg.jobs import Control, Emit, Started
from napari_kdseg.slides.annotations.annotation import Annotation
from napari_kdseg.slides.annotations.opening import open_annotation
from napari_kdseg.slides.opening import open_slide
from napari_kdseg.slides.pixels.cache import TileCache
from napari_kdseg.slides.writing.config import ConvertConfig, SynthConfig, WriteConfig
from napari_kdseg.slides.writing.convert import CACHE_BYTES, ConvertedSlide, write_slide
from napari_kdseg.slides.writing.output import (
    check_output,
    counted,
    scratch_beside,
    size_on_disk,
    written_whole,
)
from napari_kdseg.slides.writing.pyramid import Pyramid, mask_pyramid, slide_pyramid
from napari_kdseg.slides.writing.write_tiff import TiffContent, write_plain_tiff
from napari_kdseg.slides.writing.write_zarr import write_label

BACKGROUND = (0, 0, 0)


@dataclass(frozen=True)
class Synthesised:
    """What was written.

    Attributes
    ----------
    slide
        The slide.
    masks
        Where each mask is, by its name.
    """

    slide: ConvertedSlide
    masks: dict[str, Path]


def synthesise(config: SynthConfig, emit: Emit, control: Control) -> Synthesised:
    """Write a synthetic slide and its masks (a job).

    Raises
    ------
    InTheWayError, OutputError
        If something is there and may not be replaced, or it cannot be written there.
    """
    output = config.output.expanduser().absolute()
    inside = config.in_folder
    files = {} if inside else {name: config.mask_path(name).expanduser().absolute() for name in config.masks}
    for path in (output, *files.values()):
        check_output(path, config.overwrite)
    written = ConvertConfig(
        slide=config.address(),
        pictures=True,
        **config.model_dump(include=set(WriteConfig.model_fields)),
    )
    with (
        open_slide(config.address(), cache=TileCache(CACHE_BYTES)) as slide,
        scratch_beside(output) as scratch,
    ):
        tile = config.tile_side
        pyramid = slide_pyramid(slide, step=config.level_step, tile=tile, scratch=scratch)
        annotations = {name: open_annotation(config.address(name), slide) for name in config.masks}
        masks = {name: mask_pyramid(each, tile=tile, scratch=scratch) for name, each in annotations.items()}
        total = pyramid.tile_count + sum(mask.tile_count for mask in masks.values())
        emit(Started(f"Write {output.name}", total))
        progress = counted("synthesise", total, emit, control)
        with ExitStack() as stack:  # all of them appear together, or none
            image = stack.enter_context(written_whole(output, folder=inside, overwrite=config.overwrite))
            write_slide(slide, pyramid, image, written, progress)
            for name, mask in masks.items():
                if inside:
                    _write_label(image, name, mask, annotations[name], config, progress)
                    continue
                file = stack.enter_context(
                    written_whole(files[name], folder=False, overwrite=config.overwrite)
                )
                content = TiffContent(name, slide.mpp, compression="deflate", progress=progress)
                write_plain_tiff(file, mask, content)
    where: dict[str, Path] = {
        name: output / "labels" / name if inside else files[name] for name in config.masks
    }
    shapes = tuple(level.shape for level in pyramid.levels)
    return Synthesised(ConvertedSlide(output, shapes, size_on_disk(output)), where)


def _write_label(
    image: Path,
    name: str,
    mask: Pyramid,
    annotation: Annotation,
    config: SynthConfig,
    progress: Callable[[], None],
) -> None:
    write_label(
        image,
        name,
        mask,
        version=config.ome_zarr,
        mpp=(config.mpp, config.mpp),
        classes=annotation.classes,
        colours=(BACKGROUND, *CLASSES)[: len(annotation.classes)],
        progress=progress,
    )
