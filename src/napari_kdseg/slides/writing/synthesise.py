"""A synthetic slide written to disk, with its exact masks beside it (a job)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from napari_kdseg.colours import CLASSES
from napari_kdseg.jobs import Control, Emit, Started
from napari_kdseg.slides.annotations.annotation import Annotation
from napari_kdseg.slides.annotations.opening import open_annotation
from napari_kdseg.slides.formats import written_suffix
from napari_kdseg.slides.opening import open_slide
from napari_kdseg.slides.pixels.cache import TileCache
from napari_kdseg.slides.writing.convert import (
    CACHE_BYTES,
    ConvertConfig,
    Converted,
    WriteConfig,
    write_slide,
)
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
from napari_kdseg.synthetic.address import Look, format_address

MaskName = Literal["tissue", "gland", "tumour", "classes"]
BACKGROUND = (0, 0, 0)


class SynthConfig(WriteConfig):
    """A synthetic slide, and how it is written.

    Attributes
    ----------
    width, height
        Pixels of level 0.
    seed
        Another seed is another tissue.
    mpp
        Micrometres per pixel.
    stain
        Number of the laboratory that stained it.
    folds, pen, blur
        Whether there are folds, pen on the glass, and fields out of focus.
    masks
        Which masks to write: as labels of an OME-Zarr, or as TIFF files beside any other format.
    """

    width: int = Field(20_000, ge=1, le=2**24)
    height: int = Field(16_000, ge=1, le=2**24)
    seed: int = 0
    mpp: float = Field(0.25, ge=0.01, le=100)
    stain: int = Field(0, ge=0)
    folds: bool = True
    pen: bool = True
    blur: bool = True
    masks: tuple[MaskName, ...] = ("gland",)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.masks)) < len(self.masks):
            raise ValueError("every mask can be written once")
        return self

    def address(self, mask: str = "gland") -> str:
        """Return the address of the slide that is meant, with one of its masks."""
        look = Look(self.seed, self.mpp, self.stain, self.folds, self.pen, self.blur)
        return format_address((self.height, self.width), look, mask)

    def mask_path(self, name: str) -> Path:
        """Return where a mask goes that is a file of its own."""
        stem = self.output.name[: -len(written_suffix(self.output))]
        return self.output.with_name(f"{stem}.{name}.tif")


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

    slide: Converted
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
    return Synthesised(Converted(output, shapes, size_on_disk(output)), where)


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
