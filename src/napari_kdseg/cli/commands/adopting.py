"""Command that makes a checkpoint of weights which do not say what they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_kdseg.cli.app import AllowCode, app
from napari_kdseg.errors import ConfigurationError


@app.command()
def adopt(
    weights: Annotated[
        Path, typer.Argument(help="Weights: .pth, .pt, .ckpt, .safetensors, a smp folder, a MONAI bundle.")
    ],
    target: Annotated[Path, typer.Argument(help="The checkpoint to write (.safetensors).")],
    architecture: Annotated[
        str, typer.Option(help="What they belong to: unet/resnet34, python:mypackage.models:MyNet ...")
    ],
    classes: Annotated[
        str, typer.Option(help="Names of the classes, background first, with commas between.")
    ],
    mpp: Annotated[float | None, typer.Option(help="Micrometres a pixel it was trained at.")] = None,
    input_size: Annotated[int | None, typer.Option(help="Side of the tiles it was trained on.")] = None,
    in_channels: Annotated[int, typer.Option(help="Channels of the image.")] = 3,
    mean: Annotated[str | None, typer.Option(help="Mean of each channel, of values from 0 to 1.")] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation of each channel.")] = None,
    multiple: Annotated[
        int | None, typer.Option(help="What sides of an image must be a multiple of.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="A setting of the architecture: width=32; again for more.")
    ] = None,
    allow_code: AllowCode = None,  # noqa: ARG001 - what is named is allowed while options are read
) -> None:
    """Say once what weights of another program are, and keep that with them: then they open everywhere."""
    from napari_kdseg.networks import NetworkSpec, load, save
    from napari_kdseg.networks.options import read_options

    numbers = {"mean": _numbers("--mean", mean), "std": _numbers("--std", std)}
    spec = NetworkSpec(
        architecture=architecture,
        in_channels=in_channels,
        classes=tuple(name.strip() for name in classes.split(",")),
        mpp=mpp,
        input_size=input_size,
        multiple=multiple,
        options=read_options(option or []),
        **{key: value for key, value in numbers.items() if value is not None},
    )
    if not spec.segments:
        raise ConfigurationError(
            f"{architecture} is an encoder and segments nothing. Give it to 'kdseg distill' as it is: --teacher "
            f"{architecture}={weights.name}."
        )
    checkpoint = load(weights, expect=spec)
    print(f"{save(target, checkpoint.module, checkpoint.spec)}: {checkpoint.spec.describe()}")
    for note in checkpoint.notes:
        print(f"  {note}")


def _numbers(name: str, text: str | None) -> Any:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigurationError(f"{name} wants numbers with commas between, not {text!r}.") from error
