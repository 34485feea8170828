"""A comparison as files: tables for other programs, and a summary of all that it was made of."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_kdseg.codes import DIFFERENCES, Difference
from napari_kdseg.comparison.compared.class_mapping import as_assignments
from napari_kdseg.comparison.regions.objects import EDGES_UM2, found_by_size
from napari_kdseg.comparison.regions.table import RegionTable
from napari_kdseg.comparison.scores.bands import band_edges
from napari_kdseg.comparison.scores.table import PairScores
from napari_kdseg.comparison.whole_slide import CompareResult
from napari_kdseg.errors import OutputError, explain
from napari_kdseg.files import write_whole
from napari_kdseg.training.scores.overlap import overlap_scores

Rows = list[dict[str, Any]]


def write_results(result: CompareResult) -> list[Path]:
    """Write the tables of a comparison and its summary into its folder; return the files.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    tables = {
        "confusion.csv": [row for scores in result.scores for row in confusion_rows(scores, result)],
        "scores.csv": [row for scores in result.scores for row in score_rows(scores, result)],
        "scenarios.csv": scenario_rows(result),
    }
    files = [result.output / name for name in ("regions.csv", *tables, "summary.json")]
    try:
        result.regions.write_csv(files[0])
        for name, rows in tables.items():
            write_whole(result.output / name, as_csv(rows))
        write_whole(files[-1], json.dumps(summary(result), indent=2).encode())
    except OSError as error:
        raise OutputError(f"The tables could not be written to {result.output}. {explain(error)}") from error
    return files


def confusion_rows(scores: PairScores, result: CompareResult) -> Rows:
    """Return a row for each pair of classes that occurs: pixels, area, and of the mapped pair regions."""
    mapped = is_mapped(scores, result)
    cells = regions_by_cell(result.regions, len(scores.classes)) if mapped else None
    rows = []
    for a, b in np.argwhere(scores.confusion).tolist():
        pixels = int(scores.confusion[a, b])
        rows.append(
            {
                "first": scores.first,
                "second": scores.second,
                "first_class": scores.classes[a],
                "second_class": scores.classes[b],
                "pixels": pixels,
                "area_mm2": _area(pixels, result),
                "regions": int(cells[a, b]) if cells is not None and a != b else None,
                "left_out_px": int(scores.left_out[a, b]) if scores.left_out is not None else None,
            }
        )
    return rows


def regions_by_cell(table: RegionTable, classes: int) -> np.ndarray:
    """Count regions by pair of classes, int64 ``[C, C]``."""
    cells = table.column("first_class").astype(np.intp) * classes + table.column("second_class")
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def score_rows(scores: PairScores, result: CompareResult) -> Rows:
    """Return a row a class, and one of all classes but background."""
    unit, reach = _unit(result), _reach(result)
    rows = []
    for score in scores.by_class:
        rows.append(
            {
                "first": scores.first,
                "second": scores.second,
                "class": score.name,
                "dice": score.dice,
                "iou": score.iou,
                f"hd95_{unit}": score.hd95,
                f"hd95_more_than_{unit}": reach if math.isinf(score.hd95) else None,
                f"nsd_{result.tolerance:g}{unit}": score.nsd,
                "area_first": score.area_first,
                "area_second": score.area_second,
                "area_unit": "px" if result.masks.slide_mpp is None else "mm2",
                "ece": None,
            }
        )
    every = dict.fromkeys(rows[0]) | {"first": scores.first, "second": scores.second, "class": "all"}
    rows.append(every | {"dice": scores.mean_dice, "ece": scores.calibration})
    return rows


def scenario_rows(result: CompareResult) -> Rows:
    """Return the scores by distance from borders and by size of objects, with how many each is made of."""
    bands = [row for scores in result.scores for row in _band_rows(scores, result)]
    return bands + [row for role, table in result.objects.items() for row in _size_rows(role, table, result)]


def _band_rows(scores: PairScores, result: CompareResult) -> Rows:
    """Dice of each class in each band; the number is that of the pixels that either mask gives the class."""
    if scores.bands is None:
        return []
    edges = (0.0, *band_edges(result.masks.spacing), math.inf)
    rows = []
    for band, counts in enumerate(scores.bands):
        both, first, second = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
        dice = overlap_scores(both, second, first)["dice"]
        for value in range(1, len(scores.classes)):
            number = int(first[value] + second[value] - both[value])
            if number:
                rows.append(
                    _scenario("distance from border", scores.first, scores.second, scores.classes[value])
                    | {"from": edges[band], "to": edges[band + 1], "unit": _unit(result)}
                    | {"number": number, "of": "pixels", "score": "dice", "value": float(dice[value])}
                )
    return rows


def _size_rows(role: str, table: RegionTable, result: CompareResult) -> Rows:
    """Share of the objects that were found, and mean share of each object that was."""
    truth = (result.masks.mask("reference") or result.masks.masks[0]).role
    edges = (0.0, *EDGES_UM2, math.inf)
    unit = "px" if result.masks.slide_mpp is None else "um2"
    rows = []
    for value, size, number, found, share in found_by_size(table, result.masks.spacing**2):
        base = _scenario("size of object", truth, role, table.class_name(value))
        base |= {"from": edges[size], "to": edges[size + 1], "unit": unit, "number": number, "of": "objects"}
        rows.append(base | {"score": "objects found", "value": found / number})
        rows.append(base | {"score": "mean share found", "value": share})
    return rows


def _scenario(name: str, first: str, second: str, label: str) -> dict[str, Any]:
    return {"scenario": name, "first": first, "second": second, "class": label}


def summary(result: CompareResult) -> dict[str, Any]:
    """Return the comparison as JSON: what was compared, on which grid, and every score."""
    masks = result.masks
    truth = masks.mask("reference")
    return {
        "compared_to": truth.role if truth is not None else masks.masks[0].role,
        "compared_to_is": "a reference" if truth is not None else "no truth: one of the masks themselves",
        "masks": {
            mask.role: {"name": mask.name, "classes": as_assignments(mask, masks.classes), **mask.made_by}
            for mask in masks.masks
        },
        "classes": list(masks.classes),
        "grid": {"downsample": masks.downsample, "shape": masks.shape, "um_per_pixel": _um(result)},
        "notes": list(masks.notes),
        "tolerance": {"value": result.tolerance, "unit": _unit(result)},
        "contours_followed_to": {"value": _reach(result), "unit": _unit(result)},
        "regions": regions_summary(result.regions),
        "scores": [_scores(scores, result) for scores in result.scores],
        "scenarios": _plain(scenario_rows(result)),
        "made_by": result.regions.about.made_by,
    }


def regions_summary(table: RegionTable) -> list[dict[str, Any]]:
    """Count the regions of each kind and add up their areas."""
    rows = []
    for kind in list(DIFFERENCES)[1:]:
        own = table.rows[table.column("kind") == kind]
        area = float(own["area_mm2"].sum()) if table.about.mpp is not None else None
        rows.append(
            {
                "kind": int(kind),
                "name": table.kind_name(Difference(kind)),
                "regions": len(own),
                "pixels": int(own["area_px"].sum()),
                "area_mm2": area,
            }
        )
    return rows


def _scores(scores: PairScores, result: CompareResult) -> dict[str, Any]:
    return {
        "first": scores.first,
        "second": scores.second,
        "pixels": scores.pixels,
        "area_mm2": _area(scores.pixels, result),
        "agreement": _number(scores.agreement),
        "mean_dice": _number(scores.mean_dice),
        "calibration_error": _number(scores.calibration),
        "confusion": scores.confusion.tolist(),
        "left_out": None if scores.left_out is None else scores.left_out.tolist(),
        "by_class": _plain(score_rows(scores, result)[:-1]),
    }


def is_mapped(scores: PairScores, result: CompareResult) -> bool:
    """Tell whether scores are of the pair whose regions were found."""
    return (scores.first, scores.second) == tuple(mask.role for mask in result.masks.pair)


def as_csv(rows: Sequence[dict[str, Any]]) -> bytes:
    """Return rows as a CSV file with a head; what cannot be said is empty."""
    text = io.StringIO()
    columns = list(rows[0]) if rows else ["nothing"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_plain(rows))
    return text.getvalue().encode()


def _plain(rows: Iterable[dict[str, Any]]) -> Rows:
    return [{key: _number(value) for key, value in row.items()} for row in rows]


def _number(value: Any) -> Any:
    """JSON and CSV know neither NaN nor infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _area(pixels: int, result: CompareResult) -> float | None:
    return None if result.masks.pixel_mm2 is None else pixels * result.masks.pixel_mm2


def _unit(result: CompareResult) -> str:
    return "px" if result.masks.slide_mpp is None else "um"


def _um(result: CompareResult) -> float | None:
    return None if result.masks.slide_mpp is None else result.masks.spacing


def _reach(result: CompareResult) -> float:
    return result.reach * result.masks.spacing
