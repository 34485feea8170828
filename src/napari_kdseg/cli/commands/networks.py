"""The command that lists networks: what each one is for, its size, its cost, and how fast it is here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from napari_kdseg.cli.app import app
from napari_kdseg.cli.costs import measured
from napari_kdseg.networks import RecommendedNetwork, recommended_networks
from napari_kdseg.networks.recommended import COST_SIDE

_WIDTH_OF_FILES = 170


@app.command()
def networks(
    as_json: Annotated[
        bool, typer.Option("--json", help="Everything that is known of them, as JSON.")
    ] = False,
    measure: Annotated[
        bool | None,
        typer.Option(
            help="Measure the speed of all of them again, or of none. Otherwise, that of those not measured here yet."
        ),
    ] = None,
) -> None:
    """List the networks: role, parameters, multiply-adds, images a second on this computer, and source.

    Any other architecture and encoder of segmentation-models-pytorch may be named as well, as in linknet/resnet50.
    """
    choices = recommended_networks()
    speeds = _speeds(choices, measure)
    if as_json:
        print(json.dumps([_facts(choice, speeds) for choice in choices], indent=2))
        return
    wide = Console()
    if not wide.is_terminal:
        wide = Console(width=_WIDTH_OF_FILES)
    wide.print(_table(choices, speeds))
    for choice in choices:
        if choice.printed:
            wide.print(f"{choice.name}: {choice.printed.describe()}", highlight=False, soft_wrap=True)
    wide.print(
        "A network without a slash is written here after its paper; the others are architecture/encoder of "
        "segmentation-models-pytorch, of which any pair may be named.",
        highlight=False,
        soft_wrap=True,
    )


def _speeds(choices: Sequence[RecommendedNetwork], measure: bool | None) -> dict[str, float]:
    """Images a second, of those that are known or measured now."""
    what = {None: "missing", True: "all", False: "none"}[measure]
    costs = measured([choice.name for choice in choices], side=COST_SIDE, measure=what).costs
    return {name: cost.images_per_s for name, cost in costs.items()}


def _table(choices: Sequence[RecommendedNetwork], speeds: dict[str, float]) -> Table:
    table = Table(title=f"Cost and speed: one image, 3 x {COST_SIDE} x {COST_SIDE}", title_justify="left")
    for heading in ("name", "role"):
        table.add_column(heading, no_wrap=True)
    for heading in ("parameters", "multiply-adds", "images/s here"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what it is", ratio=2)
    table.add_column("source", ratio=1)
    for choice in choices:
        speed = speeds.get(choice.name)
        table.add_row(
            choice.name,
            choice.role,
            f"{choice.parameters / 1e6:.3f} M",
            f"{choice.multiply_adds / 1e9:.2f} G",
            "not measured" if speed is None else f"{speed:.3g}",
            choice.description,
            choice.source,
        )
    return table


def _facts(choice: RecommendedNetwork, speeds: dict[str, float]) -> dict[str, Any]:
    return asdict(choice) | {
        "image": [3, COST_SIDE, COST_SIDE],
        "images_per_second": speeds.get(choice.name),
        "printed_in_words": choice.printed and choice.printed.describe(),
    }
