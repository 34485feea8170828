"""Commands about slides: conversion, synthetic slides, annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_kdseg.cli.app import SlideMpp, app
from napari_kdseg.cli.running import run
from napari_kdseg.errors import ConfigurationError
from napari_kdseg.slides.formats import written_endings

annotation_commands = typer.Typer(help="Outlines and masks of slides.", no_args_is_help=True)
app.add_typer(annotation_commands, name="annotations")

Compression = Annotated[
    str, typer.Option(help="jpeg, deflate, lzw, zstd or none; auto: JPEG for TIFF of RGB, zstd for OME-Zarr.")
]
Quality = Annotated[int, typer.Option(help="Of JPEG, 1 to 100.")]
TileSide = Annotated[int | None, typer.Option(help="Side of a tile; 256, or 512 for OME-Zarr.")]
LevelStep = Annotated[
    int | None, typer.Option(help="How much coarser each level is: 2, or 4 as scanners have it (SVS).")
]
OmeZarr = Annotated[str, typer.Option(help="Version of OME-Zarr: 0.5 or 0.4.")]
Overwrite = Annotated[bool, typer.Option(help="Replace what is there.")]


@app.command()
def convert(
    slide: Annotated[str, typer.Argument(help="The slide.")],
    output: Annotated[Path, typer.Argument(help=f"Name ending in {written_endings()}.")],
    compression: Compression = "auto",
    quality: Quality = 85,
    tile: TileSide = None,
    step: LevelStep = None,
    ome_zarr: OmeZarr = "0.5",
    slide_mpp: SlideMpp = None,
    pictures: Annotated[
        bool, typer.Option(help="Keep label and macro in an SVS; a label may show the name of a patient.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Write a slide as pyramidal TIFF, OME-TIFF, OME-Zarr or SVS, with its scale and colour profile."""
    from napari_kdseg.slides.writing.convert import ConvertConfig
    from napari_kdseg.slides.writing.convert import convert as job

    config = ConvertConfig.model_validate(
        {
            "slide": slide, "output": output, "compression": compression, "quality": quality, "tile": tile,
            "step": step, "ome_zarr": ome_zarr, "mpp": slide_mpp, "pictures": pictures, "overwrite": overwrite,
        }
    )  # fmt: skip
    _print_written(run(job, config, resumable=False))


@app.command()
def synth(
    output: Annotated[Path, typer.Argument(help=f"Name ending in {written_endings()}.")],
    size: Annotated[str, typer.Option(help="Width x height in pixels.")] = "20000x16000",
    seed: Annotated[int, typer.Option(help="Another seed is another tissue.")] = 0,
    mpp: Annotated[float, typer.Option(help="Pixel size in µm; 0.25 is 40x.")] = 0.25,
    stain: Annotated[int, typer.Option(help="Number of the laboratory that stains it.")] = 0,
    folds: Annotated[bool, typer.Option(help="Folds of the tissue.")] = True,
    pen: Annotated[bool, typer.Option(help="Pen on the glass.")] = True,
    blur: Annotated[bool, typer.Option(help="Fields out of focus.")] = True,
    masks: Annotated[
        str, typer.Option(help="Masks to write, with commas: tissue, gland, tumour, classes; or none.")
    ] = "gland",
    compression: Compression = "auto",
    quality: Quality = 85,
    tile: TileSide = None,
    step: LevelStep = None,
    ome_zarr: OmeZarr = "0.5",
    overwrite: Overwrite = False,
) -> None:
    """Write a synthetic slide with its exact masks: labels of an OME-Zarr, or TIFF files beside it."""
    from napari_kdseg.slides.writing.synthesise import SynthConfig, synthesise

    width, height = _size(size)
    config = SynthConfig.model_validate(
        {
            "output": output, "width": width, "height": height, "seed": seed, "mpp": mpp, "stain": stain,
            "folds": folds, "pen": pen, "blur": blur, "compression": compression, "quality": quality,
            "masks": [name for name in masks.split(",") if name not in ("", "none")],
            "tile": tile, "step": step, "ome_zarr": ome_zarr, "overwrite": overwrite,
        }
    )  # fmt: skip
    result = run(synthesise, config, resumable=False)
    _print_written(result.slide)
    for name, place in result.masks.items():
        print(f"  {name} mask: {place}")


@annotation_commands.command("convert")
def convert_annotations(
    source: Annotated[
        Path, typer.Argument(help="*.geojson, *.geojson.gz, *.xml; PNG or TIFF mask; OME-Zarr label.")
    ],
    target: Annotated[Path, typer.Argument(help="*.geojson, *.geojson.gz, *.xml; *.tif; *.ome.zarr.")],
    slide: Annotated[
        str | None, typer.Option(help="The slide they lie on; needed to make a mask of outlines.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names in the order of their indices: background,tumour,stroma.")
    ] = None,
    outside: Annotated[
        int | None, typer.Option(help="Outside of all outlines: 0 background, 255 not annotated.")
    ] = None,
    overlap: Annotated[
        str, typer.Option(help="On top where outlines overlap: smaller or later.")
    ] = "smaller",
    xml: Annotated[str, typer.Option(help="Program that an *.xml is for: asap or imagescope.")] = "asap",
    source_bounds: Annotated[
        bool, typer.Option("--source-bounds", help="IN counts from the scanned area (QuPath on MRXS).")
    ] = False,
    target_bounds: Annotated[
        bool, typer.Option("--target-bounds", help="OUT shall count from there.")
    ] = False,
    downsample: Annotated[
        float, typer.Option(help="Width of a pixel of the mask in pixels of the slide.")
    ] = 1.0,
    name: Annotated[str, typer.Option(help="Name of the label in an OME-Zarr.")] = "annotation",
    overwrite: Annotated[bool, typer.Option(help="Replace a file or label that is there.")] = False,
) -> None:
    """Convert annotations between QuPath, ASAP, ImageScope, TIFF masks and OME-Zarr labels."""
    from napari_kdseg.masks.export.annotations import ConvertAnnotationsConfig, convert_annotations

    config = ConvertAnnotationsConfig.model_validate(
        {
            "source": source, "target": target, "slide": slide, "outside": outside, "overlap": overlap, "xml": xml,
            "classes": None if classes is None else tuple(part.strip() for part in classes.split(",")),
            "source_bounds": source_bounds, "target_bounds": target_bounds, "downsample": downsample,
            "name": name, "overwrite": overwrite,
        }
    )  # fmt: skip
    result = run(convert_annotations, config)
    count = "a mask" if result.shapes is None else f"{result.shapes} annotations"
    print(f"{target}: {count}, classes {', '.join(result.classes) or 'none'}")


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.partition("x")
    if not (cross and width.isdigit() and height.isdigit()):
        raise ConfigurationError(f"A size is width x height in pixels, as in 20000x16000, not {text!r}.")
    return int(width), int(height)


def _print_written(written: Any) -> None:
    height, width = written.shapes[0]
    print(
        f"{written.output}: {width:,} x {height:,}, {len(written.shapes)} levels, {written.bytes / 1e6:,.1f} MB"
    )
