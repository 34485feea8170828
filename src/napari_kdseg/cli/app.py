"""The command, its terminal, and the options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from napari_kdseg.errors import ConfigurationError

app = typer.Typer(
    name="kdseg",
    help="Knowledge distillation of pathology segmentation networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(stderr=True)

Region = Annotated[
    str | None, typer.Option(help="y,x,height,width in level-0 pixels; the whole slide when absent.")
]
SlideMpp = Annotated[float | None, typer.Option(help="Pixel size of a slide whose file names none, in µm.")]


def _allow(names: list[str] | None) -> list[str] | None:
    from napari_kdseg.networks import allow_code

    for name in names or []:
        allow_code(name)
    return names


AllowCode = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-code",
        help="Run this code of yours: mypackage.models:MyNet, or a whole package. Give it for code you trust alone.",
        callback=_allow,
    ),
]


def region_of(text: str | None) -> tuple[int, int, int, int] | None:
    """Read what ``--region`` says; ``None`` stays ``None``."""
    if text is None:
        return None
    try:
        y, x, height, width = (int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigurationError(f"A region is y,x,height,width in level-0 pixels, not {text!r}.") from error
    return y, x, height, width
