"""Commands about slides: what a file is, conversion, synthetic slides, annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_kdseg.cli.app import AllowCode, SlideMpp, app
from napari_kdseg.cli.running import run
from napari_kdseg.errors import ConfigurationError, KdsegError
from napari_kdseg.slides.formats import written_endings

annotation_commands = typer.Typer(help="Outlines and masks of slides.", no_args_is_help=True)
app.add_typer(annotation_commands, name="annotations")

CHECKPOINTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".onnx")
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
def info(
    paths: Annotated[
        list[str],
        typer.Argument(help="Slides, run folders, checkpoints, names of networks such as unet/resnet34."),
    ],
    cost: Annotated[bool, typer.Option(help="Measure what networks cost here; two are compared.")] = True,
    side: Annotated[int, typer.Option(help="Side of the images that networks are measured on.")] = 512,
    area: Annotated[float, typer.Option(help="Tissue that seconds are told for, in mm².")] = 100.0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda: where networks are measured.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    allow_code: AllowCode = None,  # noqa: ARG001 - what is named is allowed while options are read
) -> None:
    """Say what a slide, a run folder or a network is: levels, scale, reader, hash; classes; what it costs here."""
    from napari_kdseg.cli.costs import measured, print_costs

    facts = {path: [] if _is_name(path) else _facts(path) for path in paths}
    networks = [path for path in paths if _is_name(path) or _is_checkpoint(Path(path))] if cost else []
    costs = measured(networks, side, device) if networks else None
    if as_json:
        told: dict[str, dict[str, Any]] = {path: dict(found) for path, found in facts.items()}
        for path, each in (costs.costs if costs else {}).items():
            told[path]["cost"] = each.model_dump() | {"area_mm2": area, "seconds": each.seconds(area)}
        print(json.dumps(told, indent=2))
    else:
        for path, found in facts.items():
            print(f"{path}")
            for name, text in found:
                print(f"  {name + ':':<14}{text}")
        if costs is not None:
            print_costs(costs, area)
    if costs is not None and costs.problems:
        raise KdsegError(" ".join(costs.problems.values()))


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


def _is_name(path: str) -> bool:
    """Whether this names a network, as ``unet/resnet34`` or ``enet`` do, where no file has that name."""
    from napari_kdseg.networks.catalogue import split_name

    if Path(path).exists():
        return False
    try:
        split_name(path)
    except ConfigurationError:
        return False
    return True


def _is_checkpoint(place: Path) -> bool:
    return place.suffix in CHECKPOINTS or (place / "model.safetensors").is_file()


def _facts(path: str) -> list[tuple[str, str]]:
    place = Path(path)
    if (place / "config.json").is_file():
        return _run_facts(place)
    if _is_checkpoint(place):
        from napari_kdseg.networks import count_parameters, load

        checkpoint = load(place)
        spec = checkpoint.spec.model_dump(exclude={"versions", "options"})
        return [
            *((n, str(v)) for n, v in spec.items()),
            ("parameters", f"{count_parameters(checkpoint.module):,}"),
        ]
    from napari_kdseg.slides import describe_in_full, open_slide

    with open_slide(path) as slide:
        return describe_in_full(slide)


def _run_facts(folder: Path) -> list[tuple[str, str]]:
    config = json.loads((folder / "config.json").read_text())
    facts = [
        (name, str(config[name])) for name in ("method", "teacher", "student", "epochs") if name in config
    ]
    summary = folder / "report" / "summary.json"
    facts.append(
        (
            "state",
            "finished"
            if summary.is_file()
            else "not finished; kdseg distill with its config.json resumes it",
        )
    )
    if summary.is_file():
        facts += [(name, json.dumps(value)) for name, value in json.loads(summary.read_text()).items()]
    return facts


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
