"""The command that says what something is: a slide, a run folder, a network, a folder of tiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_kdseg.cli.app import AllowCode, app
from napari_kdseg.cli.costs import measured, print_costs
from napari_kdseg.cli.options import options_of
from napari_kdseg.errors import ConfigurationError, KdsegError
from napari_kdseg.inference import CostConfig

CHECKPOINTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".onnx")


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
    allow_code: AllowCode = None,  # noqa: ARG001 - what is named is allowed while options are read
    *,
    settings: dict[str, Any],
) -> None:
    """Say what a slide, a run, a network or a folder of tiles is: scale, reader; classes; costs; what was decided."""
    facts = {path: [] if _is_name(path) else _facts(path) for path in paths}
    networks = [path for path in paths if _is_name(path) or _is_checkpoint(Path(path))] if cost else []
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
    return place.suffix in CHECKPOINTS or any(
        (place / name).is_file() for name in ("model.safetensors", "pytorch_model.bin", "models/model.pt")
    )


def _facts(path: str) -> list[tuple[str, str]]:
    place = Path(path)
    if (place / "config.json").is_file() and not _is_checkpoint(place):
        return _run_facts(place)
    if (place / "images").is_dir() and (place / "masks").is_dir():
        from napari_kdseg.training import DataConfig
        from napari_kdseg.training.tiles.data import told

        return list(told(DataConfig(folder=place)).items())
    if _is_checkpoint(place):
        from napari_kdseg.networks import count_parameters, load

        checkpoint = load(place)
        spec = checkpoint.spec.model_dump(exclude={"versions", "options"})
        return [
            *((n, str(v)) for n, v in spec.items()),
            ("parameters", f"{count_parameters(checkpoint.module):,}"),
            *(("decided", note) for note in checkpoint.notes),
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
