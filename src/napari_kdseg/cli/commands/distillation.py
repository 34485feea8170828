"""Commands about distillation: the methods there are, and a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_kdseg.cli import processes as together
from napari_kdseg.cli.app import AllowCode, app
from napari_kdseg.cli.assigning import assign, assign_all
from napari_kdseg.cli.options import overrides_of
from napari_kdseg.cli.running import run
from napari_kdseg.errors import ConfigurationError
from napari_kdseg.training import DistillConfig

if TYPE_CHECKING:
    from napari_kdseg.training import DistillResult


@app.command()
def methods() -> None:
    """List the distillation methods: what each does, its equation and paper, and what it needs."""
    from napari_kdseg.distillation import METHODS

    for method in METHODS.values():
        needs = ", ".join(method.needs) or "nothing"
        print(f"{method.name}: {method.title}\n    {method.sentence}\n    {method.equation}")
        print(f"    scale: {method.scale}")
        print(f"    needs {needs}. {method.reference}".rstrip())
        if method.presets:
            print("    variants: " + ", ".join(f"{method.name}:{preset}" for preset in method.presets))
    print("\nMethods add up: cwd+kd. A variant is named after a colon: plc-kd:sc.")
    print("@2 lets a method learn from the second teacher: kd+cwd@2.")


@app.command()
@overrides_of(DistillConfig, "output", "method")
def distill(
    config: Annotated[
        Path | None, typer.Argument(help="A configuration saved by the window or by hand (JSON).")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with images/ and masks/.")] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="Architecture, a checkpoint file, or both where the file holds weights only: unet/resnet34=file.pth, "
            "foundation/uni=file.bin; again for a second one, as in 'kd+cwd@2'."
        ),
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="Architecture, a checkpoint file, or both: unet/resnet18=file.pth.")
    ] = None,
    teacher_encoder: Annotated[
        Path | None, typer.Option(help="Pretrained weights of the teacher's encoder, a local file.")
    ] = None,
    student_encoder: Annotated[
        Path | None, typer.Option(help="Pretrained weights of the student's encoder, a local file.")
    ] = None,
    new_head: Annotated[
        bool, typer.Option(help="Give checkpoints of other classes than the data a new head, trained here.")
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting by its path: epochs=20, data.input_size=256."),
    ] = None,
    allow_code: AllowCode = None,  # noqa: ARG001 - what is named is allowed while options are read
    processes: Annotated[
        int, typer.Option(min=1, help="Processes on this machine that share each batch: one a GPU.")
    ] = 1,
    *,
    settings: dict[str, Any],
) -> None:
    """Distil a student from a teacher; on several machines under torchrun."""
    from napari_kdseg.training import distill as job
    from napari_kdseg.training.processes import demand_shareable

    values: dict[str, Any] = {}
    if config is not None:
        values = DistillConfig.load(config).model_dump(mode="json")
    assign(values, "data.folder", data and str(data))
    for name, value in settings.items():
        assign(values, name, value)
    _give_networks(values, teacher or [], student, new_head=new_head)
    _give_encoder(values, "teacher", teacher_encoder, "unet/resnet34")
    _give_encoder(values, "student", student_encoder, "unet/resnet18")
    assign_all(values, set_ or ())
    if "data" not in values:
        raise ConfigurationError("Say where the tiles are: --data FOLDER, or a configuration file.")
    checked = DistillConfig.model_validate(values)
    if processes > 1 and together.count() == 1:
        demand_shareable(checked, processes)
        sys.exit(together.run_processes(processes, sys.argv[1:]))
    result = run(job, checked)
    if together.number():
        return
    _say(result)


def _say(result: DistillResult) -> None:
    """Print what came out of a run."""
    for network, metrics in result.metrics.items():
        chosen = [f"{split}_{score}" for split in ("val", "test") for score in ("dice", "iou", "tile_dice")]
        scores = ", ".join(f"{name} {metrics[name]:.4f}" for name in chosen if name in metrics)
        print(f"{network}: {scores}")
    print(f"Everything else is in {result.run / 'report'}")


def _give_networks(
    values: dict[str, Any], teachers: list[str], student: str | None, *, new_head: bool
) -> None:
    """Set the networks that were named, and have those of checkpoints begin with a new head if that is wanted."""
    if teachers:
        first, *more = (_network(choice) for choice in teachers)
        values |= {"teacher": first, "more_teachers": more}
    if student is not None:
        values["student"] = _network(student)
    for network in (values.get("teacher"), values.get("student"), *values.get("more_teachers", [])):
        if new_head and network and network.get("checkpoint"):
            network["new_head"] = True


def _give_encoder(values: dict[str, Any], name: str, weights: Path | None, example: str) -> None:
    """Have the encoder of a network begin with weights of a file."""
    if weights is None:
        return
    if not values.get(name):
        raise ConfigurationError(f"Name the {name} whose encoder these weights are for: --{name} {example}.")
    values[name]["encoder_weights"] = str(weights)


def _network(choice: str) -> dict[str, str]:
    """Read ``unet/resnet34``, ``teacher.safetensors``, or both with ``=`` between."""
    name, equals, file = choice.partition("=")
    if equals and not Path(choice).exists():
        return {"architecture": name, "checkpoint": file}
    return {"checkpoint" if Path(choice).exists() else "architecture": choice}
