"""Commands about trained networks: the way out of this program, and the way in for ONNX files of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_kdseg.cli.app import app
from napari_kdseg.cli.options import options_of
from napari_kdseg.cli.running import run
from napari_kdseg.errors import ConfigurationError
from napari_kdseg.inference.export import ExportModelConfig


@app.command("export-model")
@options_of(ExportModelConfig, flags={"formats": "--as"})
def export_model(
    checkpoint: Annotated[Path, typer.Argument(help="The trained network.")],
    output: Annotated[Path, typer.Argument(help="Folder for the files; made if there is none.")],
    *,
    settings: dict[str, Any],
) -> None:
    """Write a network for other programs, compared with PyTorch, with a card that says what it is (README.md)."""
    from napari_kdseg.inference.export import export_model as job

    config = ExportModelConfig.model_validate({"checkpoint": checkpoint, "output": output, **settings})
    result = run(job, config, resumable=False)
    for file in result.files:
        difference = result.differences.get(file.suffix[1:])
        print(
            f"{file}"
            + ("" if difference is None else f"  (differs from PyTorch by at most {difference:.1e})")
        )


@app.command("describe-onnx")
def describe_onnx(
    source: Annotated[Path, typer.Argument(help="ONNX file of another program.")],
    output: Annotated[Path, typer.Argument(help="The copy that says what it is.")],
    classes: Annotated[str, typer.Option(help="Names in the order of its output, background first.")],
    mean: Annotated[str, typer.Option(help="Of each channel, of pixels from 0 to 1.")] = "",
    std: Annotated[str, typer.Option(help="Likewise. Default: ImageNet's.")] = "",
    mpp: Annotated[float | None, typer.Option(help="µm per pixel it was trained at.")] = None,
    channels: Annotated[int, typer.Option(help="Of its images.")] = 3,
    multiple: Annotated[
        int, typer.Option(help="What height and width must be multiples of; 32 is safe for most.")
    ] = 32,
    overwrite: Annotated[bool, typer.Option(help="Replace the copy, if there is one.")] = False,
) -> None:
    """Copy an ONNX file of another program with what is needed to predict with it: classes, mean, std, scale."""
    from napari_kdseg.inference.export import describe_onnx as describe
    from napari_kdseg.networks import NetworkSpec
    from napari_kdseg.networks.foreign.onnx_network import OnnxNetwork

    spec = NetworkSpec(
        architecture="onnx",
        in_channels=channels,
        classes=tuple(name.strip() for name in classes.split(",")),
        mean=_numbers(mean),
        std=_numbers(std),
        mpp=mpp,
    )
    facts = describe(source, output, spec, multiple, overwrite=overwrite)
    sees = "the whole image" if facts.radius is None else f"{facts.radius} px around every pixel"
    print(f"{output}: {spec.describe()}; sees {sees}")
    for note in OnnxNetwork(output).notes:
        print(f"  {note}")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ConfigurationError(
            f"{text!r} is no list of numbers with commas, such as 0.5,0.5,0.5."
        ) from error
