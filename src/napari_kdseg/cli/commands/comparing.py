"""The command that compares masks of a slide: tables in a folder, and the few figures that decide in the terminal."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from napari_kdseg.cli.app import Region, app, region_of
from napari_kdseg.cli.options import options_of
from napari_kdseg.cli.running import run as run_job
from napari_kdseg.comparison.config import CompareConfig

if TYPE_CHECKING:
    from napari_kdseg.comparison import CompareResult, PairScores


@app.command()
@options_of(CompareConfig, without=("slide",))
def compare(
    slide: Annotated[str, typer.Argument(help="The slide.")],
    region: Region = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON instead of tables.")
    ] = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Compare masks of a slide: where they differ, by how much, and in which regions."""
    from napari_kdseg.comparison import compare as job
    from napari_kdseg.comparison.written import summary, write_results

    config = CompareConfig.model_validate({"slide": slide, "region": region_of(region), **settings})
    result = run_job(job, config)
    files = write_results(result)
    if as_json:
        print(json.dumps(summary(result), indent=2))
        return
    terminal = Console()
    for scores in result.scores:
        terminal.print(_score_table(scores, result))
    terminal.print(_region_table(result))
    for file in files:
        print(file)


def _score_table(scores: PairScores, result: CompareResult) -> Table:
    """Return the scores of two masks, with the name of what they were compared to."""
    unit, area = ("px", "px") if result.masks.slide_mpp is None else ("µm", "mm²")
    truth = "" if scores.first == "reference" else f" (the {scores.first} is not the truth)"
    table = Table(title=f"{scores.second} compared to {scores.first}{truth}")
    heads = ("Dice", "IoU", f"HD95 {unit}", f"within {result.tolerance:g} {unit}")
    for head in ("class", *heads, f"{scores.first} {area}", f"{scores.second} {area}"):
        table.add_column(head, justify="left" if head == "class" else "right")
    reach = f"> {result.reach * result.masks.spacing:.3g}"
    for row in scores.by_class:
        distance = reach if math.isinf(row.hd95) else _said(row.hd95, ".1f")
        areas = (_said(row.area_first, ".4g"), _said(row.area_second, ".4g"))
        table.add_row(row.name, _said(row.dice), _said(row.iou), distance, _said(row.nsd), *areas)
    sure = "" if math.isnan(scores.calibration) else f"; calibration error {scores.calibration:.3f}"
    table.caption = (
        f"the same class at {_said(100 * scores.agreement, '.2f')} % of {scores.pixels:,} pixels{sure}"
    )
    return table


def _region_table(result: CompareResult) -> Table:
    """Return how many regions there are of each kind, and the largest."""
    from napari_kdseg.comparison.written import regions_summary

    unit = "px" if result.masks.slide_mpp is None else "mm²"
    table = Table(title="regions at which they differ")
    for head in ("kind", "regions", f"area {unit}", f"largest {unit}", "at (y, x)"):
        table.add_column(head, justify="left" if head == "kind" else "right")
    column = "area_px" if result.masks.slide_mpp is None else "area_mm2"
    for row in regions_summary(result.regions):
        largest = result.regions.filtered(kinds=[row["kind"]]).ranked("area_mm2")
        size, place = "", ""
        if len(largest):
            size = f"{float(largest.column(column)[0]):.4g}"
            place = "{}, {}".format(*largest.at(0).inside)
        area = row["pixels"] if row["area_mm2"] is None else row["area_mm2"]
        table.add_row(row["name"], f"{row['regions']:,}", f"{area:.4g}", size, place)
    return table


def _said(value: float, form: str = ".4f") -> str:
    return "-" if math.isnan(value) else format(value, form)
