"""Commands about slides: conversion, synthetic slides, annotations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_kdseg.cli.app import app
from napari_kdseg.cli.options import options_of
from napari_kdseg.cli.running import run
from napari_kdseg.errors import ConfigurationError
from napari_kdseg.masks.export.config import ConvertAnnotationsConfig
from napari_kdseg.slides.formats import written_endings
from napari_kdseg.slides.writing.config import ConvertConfig, SynthConfig

if TYPE_CHECKING:
    from napari_kdseg.slides.writing.convert import ConvertedSlide

annotation_commands = typer.Typer(help="Outlines and masks of slides.", no_args_is_help=True)
app.add_typer(annotation_commands, name="annotations")


@app.command()
@options_of(ConvertConfig, flags={"mpp": "--slide-mpp"})
def convert(
    slide: Annotated[str, typer.Argument(help="The slide.")],
    output: Annotated[Path, typer.Argument(help=f"Name ending in {written_endings()}.")],
    *,
    settings: dict[str, Any],
) -> None:
    """Write a slide as pyramidal TIFF, OME-TIFF, OME-Zarr or SVS, with its scale and colour profile."""
    from napari_kdseg.slides.writing.convert import convert as job

    config = ConvertConfig.model_validate({"slide": slide, "output": output, **settings})
    _print_written(run(job, config, resumable=False))


@app.command()
@options_of(SynthConfig, without=("width", "height"))
def synth(
    output: Annotated[Path, typer.Argument(help=f"Name ending in {written_endings()}.")],
    size: Annotated[str, typer.Option(help="Width x height in pixels.")] = "20000x16000",
    *,
    settings: dict[str, Any],
) -> None:
    """Write a synthetic slide with its exact masks: labels of an OME-Zarr, or TIFF files beside it."""
    from napari_kdseg.slides.writing.synthesise import synthesise

    width, height = _size(size)
    masks = tuple(name for name in settings["masks"] if name != "none")
    config = SynthConfig.model_validate(
        {"output": output, "width": width, "height": height, **settings, "masks": masks}
    )
    result = run(synthesise, config, resumable=False)
    _print_written(result.slide)
    for name, place in result.masks.items():
        print(f"  {name} mask: {place}")


@annotation_commands.command("convert")
@options_of(
    ConvertAnnotationsConfig,
    flags={
        "source_bounds": "--source-bounds/--no-source-bounds",
        "target_bounds": "--target-bounds/--no-target-bounds",
    },
)
def convert_annotations(
    source: Annotated[
        Path, typer.Argument(help="*.geojson, *.geojson.gz, *.xml; PNG or TIFF mask; OME-Zarr label.")
    ],
    target: Annotated[Path, typer.Argument(help="*.geojson, *.geojson.gz, *.xml; *.tif; *.ome.zarr.")],
    *,
    settings: dict[str, Any],
) -> None:
    """Convert annotations between QuPath, ASAP, ImageScope, TIFF masks and OME-Zarr labels."""
    from napari_kdseg.masks.export.annotations import convert_annotations as job

    config = ConvertAnnotationsConfig.model_validate({"source": source, "target": target, **settings})
    result = run(job, config)
    count = "a mask" if result.shapes is None else f"{result.shapes} annotations"
    print(f"{target}: {count}, classes {', '.join(result.classes) or 'none'}")


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.partition("x")
    if not (cross and width.isdigit() and height.isdigit()):
        raise ConfigurationError(f"A size is width x height in pixels, as in 20000x16000, not {text!r}.")
    return int(width), int(height)


def _print_written(written: ConvertedSlide) -> None:
    height, width = written.shapes[0]
    print(
        f"{written.output}: {width:,} x {height:,}, {len(written.shapes)} levels, {written.bytes / 1e6:,.1f} MB"
    )
