"""The command that says what something is: a slide, a run folder, a network, a folder of tiles."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from napari_kdseg.cli.app import AllowCode, app
from napari_kdseg.cli.costs import measured, print_costs
from napari_kdseg.cli.options import options_of
from napari_kdseg.errors import ConfigurationError, KdsegError
from napari_kdseg.inference import CostConfig
from napari_kdseg.networks.checkpoints.formats import is_checkpoint
from napari_kdseg.slides.annotations.suffixes import is_annotation_file

ReadAs = Literal["rgb", "channels", "grey", "file"]


@app.command()
@options_of(CostConfig, without=("networks", "measure", "channels", "classes", "threads"))
def info(
    paths: Annotated[
        list[str],
        typer.Argument(help="Slides, runs, folders of tiles, checkpoints, networks such as unet/resnet34."),
    ],
    cost: Annotated[bool, typer.Option(help="Measure what networks cost here; two are compared.")] = True,
    area: Annotated[float, typer.Option(help="Tissue that seconds are told for, in mm².")] = 100.0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    read_as: Annotated[
        ReadAs | None,
        typer.Option(
            "--as", help="What the numbers of a slide mean, kept with it; 'file' leaves it to the file."
        ),
    ] = None,
    white: Annotated[
        float | None,
        typer.Option(help="The stored value that is white, kept with the slide: 4095 of 12 bits."),
    ] = None,
    slide_mpp: Annotated[
        float | None, typer.Option(help="Micrometres per pixel of a slide, kept with it.")
    ] = None,
    allow_code: AllowCode = None,  # noqa: ARG001 - what is named is allowed while options are read
    *,
    settings: dict[str, Any],
) -> None:
    """Say what a slide, a run, a network or a folder of tiles is: scale, reader; classes; costs; what was decided."""
    _keep(paths, read_as, white, slide_mpp)
    facts = {path: [] if _is_name(path) else _facts(path) for path in paths}
    networks = [path for path in paths if _is_name(path) or is_checkpoint(path)] if cost else []
    costs = measured(networks, **settings) if networks else None
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


def _keep(paths: list[str], read_as: ReadAs | None, white: float | None, mpp: float | None) -> None:
    """Keep with every slide what a person says of it."""
    if read_as is None and white is None and mpp is None:
        return
    from napari_kdseg.slides import open_slide
    from napari_kdseg.slides.sidecar import keep_mpp, keep_reading

    for path in paths:
        with open_slide(path) as slide:
            if read_as is not None or white is not None:
                kind = slide.asked.kind if read_as is None else None if read_as == "file" else read_as
                keep_reading(slide, kind, None if read_as == "file" else white or slide.asked.white)
            if mpp is not None:
                slide.mpp = mpp
                keep_mpp(slide, slide.mpp)


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


def _facts(path: str) -> list[tuple[str, str]]:
    file = Path(path)
    if is_annotation_file(file):
        return _annotation_facts(file)
    if (file / "images").is_dir() and (file / "masks").is_dir():
        from napari_kdseg.training import DataConfig
        from napari_kdseg.training.tiles.data import told

        return list(told(DataConfig(folder=file)).items())
    if is_checkpoint(file):
        from napari_kdseg.networks import count_parameters, load

        checkpoint = load(file)
        spec = checkpoint.spec.model_dump(exclude={"versions", "options"})
        return [
            *((n, str(v)) for n, v in spec.items()),
            ("parameters", f"{count_parameters(checkpoint.module):,}"),
            *(("decided", note) for note in checkpoint.notes),
        ]
    if (file / "config.json").is_file():
        return _run_facts(file)
    from napari_kdseg.slides import describe_in_full, open_slide

    with open_slide(path) as slide:
        return describe_in_full(slide)


def _annotation_facts(place: Path) -> list[tuple[str, str]]:
    from napari_kdseg.slides import read_annotations

    shapes = read_annotations(place)
    kinds = Counter(shape.class_name or "no class" for shape in shapes)
    xml = place.name.lower().endswith((".xml", ".annotations"))
    corner = "slide" if xml else "scanned area where its slide has one, as in QuPath, else of the slide"
    return [
        ("objects", f"{len(shapes):,}, {sum(shape.has_area for shape in shapes):,} with an area"),
        ("classes", ", ".join(f"{name} ({count:,})" for name, count in kinds.items()) or "none"),
        ("counts from", f"the corner of the {corner}"),
        *((f"note {number}", note) for number, note in enumerate(shapes.notes, start=1)),
    ]


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
