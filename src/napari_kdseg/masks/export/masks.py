"""Masks for other programs (a job): QuPath outlines with measurements, areas as CSV, OME-TIFF, DICOM SEG."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_kdseg.errors import ConfigurationError, InTheWayError, KdsegError, SlideError
from napari_kdseg.files import write_whole
from napari_kdseg.jobs import Control, Emit, Message, Step
from napari_kdseg.masks.disk import writing
from napari_kdseg.masks.export.class_tiff import TILE, write_class_tiff
from napari_kdseg.masks.export.config import ExportConfig
from napari_kdseg.masks.export.dicom_seg import write_dicom_seg
from napari_kdseg.masks.export.pieces import STAGE, as_shape, measure
from napari_kdseg.masks.export.tables import COLUMNS, Row, as_csv, class_rows
from napari_kdseg.masks.metadata import read_attributes
from napari_kdseg.masks.names import meant
from napari_kdseg.masks.pyramid import MaskPyramid, open_masks
from napari_kdseg.masks.reduction import NOT_COMPUTED
from napari_kdseg.slides import bounds_origin, open_slide, tissue_of, write_annotations
from napari_kdseg.slides.geometry import Pair

SUMMARY = "summary.csv"
SUFFIXES = {"geojson": ".geojson", "csv": ".csv", "tiff": ".ome.tif", "dicom": ".seg.dcm"}
#: Levels of a TIFF end with one this small.
SMALLEST = 1024


@dataclass(frozen=True)
class _Source:
    """One mask to export."""

    store: Path
    name: str
    mask: MaskPyramid
    probabilities: MaskPyramid | None

    @property
    def stem(self) -> str:
        return self.store.name.removesuffix(".ome.zarr")


@dataclass(frozen=True)
class _Facts:
    """What is known of the slide: the corner outlines count from, and the area of its tissue in level-0 pixels."""

    origin: Pair = (0.0, 0.0)
    tissue_px: float | None = None


def export_masks(config: ExportConfig, emit: Emit, control: Control) -> list[Path]:
    """Export masks (a job).

    Parameters
    ----------
    config
        What to do.
    emit, control
        Progress, pause and cancel; what was written before stays.

    Returns
    -------
    list of Path
        The files, ``<store>.<mask>.geojson``, ``.csv``, ``.ome.tif`` and ``.seg.dcm``; and with the areas of several
        stores ``summary.csv``, one line for each slide, mask and class.

    Raises
    ------
    KdsegError
        If there is no such mask, a file is in the way, or one cannot be written. Of several stores, those that can be
        exported are, first.
    """
    stores = find_stores(config.stores)
    _check_settings(config, stores)
    files: list[Path] = []
    summary: list[Row] = []
    failed: list[KdsegError] = []
    for store in stores:
        try:
            sources, facts = _sources(config, store), _facts(config, store, emit)
            for source in sources:
                made, rows = _export_one(config, source, facts, emit, control)
                files += made
                summary += [{"slide": source.stem, "mask": source.name, **row} for row in rows]
        except KdsegError as error:
            if len(stores) == 1:
                raise
            emit(Message(f"{store.name}: {error}", "warning"))
            failed.append(error)
    if len(stores) > 1 and summary:
        with writing(SUMMARY):
            write_whole(config.output / SUMMARY, as_csv(summary, ("slide", "mask", *COLUMNS)))
        files.append(config.output / SUMMARY)
    if failed:
        raise KdsegError(
            f"{len(failed)} of {len(stores)} mask stores could not be exported, the others were. The first reason: "
            f"{failed[0]}"
        )
    return files


def find_stores(paths: Sequence[Path]) -> list[Path]:
    """Return the mask stores that ``paths`` are, or hold.

    Raises
    ------
    SlideError
        If there is none in one of them.
    """
    stores: list[Path] = []
    for path in paths:
        found = [path] if (path / "zarr.json").is_file() else sorted(_stores_below(path))
        if not found:
            raise SlideError(
                f"{path.name} is not a mask store and holds none. Choose a folder *.ome.zarr, or one with such."
            )
        stores += found
    return list(dict.fromkeys(stores))


def _stores_below(folder: Path) -> Iterator[Path]:
    for below, names, _ in os.walk(folder):
        inside = [name for name in names if name.lower().endswith(".ome.zarr")]
        yield from (Path(below) / name for name in inside)
        names[:] = [name for name in names if name not in inside]


def _check_settings(config: ExportConfig, stores: list[Path]) -> None:
    if "dicom" in config.kinds and config.slide is None:
        raise ConfigurationError("A DICOM segmentation belongs to its slide: say which one with --slide.")
    if config.slide is not None and len(stores) > 1:
        raise ConfigurationError("A slide belongs to one mask store: export its masks alone.")
    names = [store.name for store in stores]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(
            f"Several mask stores are named {twice[0]}, and so would be their files. Export them into folders of their "
            "own."
        )
    if len(stores) > 1 and not config.overwrite and (config.output / SUMMARY).exists():
        raise _in_the_way(config.output / SUMMARY)


def _sources(config: ExportConfig, store: Path) -> list[_Source]:
    masks = open_masks(store)
    segmented = [name for name, mask in masks.items() if mask.metadata.get("quantity") == "class"]
    names = [meant(name, masks) for name in config.names]
    for name in names:
        if name not in masks or not masks[name].classes:
            known = ", ".join(name for name, mask in masks.items() if mask.classes) or "none"
            raise ConfigurationError(f"{store.name} holds no mask {name!r} of classes. There is: {known}.")
    if not (names or segmented):
        raise ConfigurationError(f"{store.name} holds no masks yet. Make them with 'kdseg predict'.")
    return [
        _Source(store, name, masks[name], masks.get(f"probabilities/{name}")) for name in names or segmented
    ]


def _export_one(
    config: ExportConfig, source: _Source, facts: _Facts, emit: Emit, control: Control
) -> tuple[list[Path], list[Row]]:
    mask = source.mask
    files = {kind: config.output / f"{source.stem}.{source.name}{SUFFIXES[kind]}" for kind in config.kinds}
    if config.compress and "geojson" in files:
        files["geojson"] = files["geojson"].with_suffix(".geojson.gz")
    for file in files.values():
        if file.exists() and not config.overwrite:
            raise _in_the_way(file)
    if mask.metadata.get("status") == "unfinished":
        emit(
            Message(
                f"The mask '{source.name}' is not finished: what is not computed yet is left out.", "warning"
            )
        )
    with writing(config.output.name):
        config.output.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    if {"geojson", "csv"} & set(files):
        measured = measure(mask, source.probabilities, emit, control)
        if "geojson" in files:
            shapes = [as_shape(piece, mask, config.objects) for piece in measured.pieces]
            write_annotations(files["geojson"], shapes, origin=facts.origin, mpp=mask.mpp)
        if "csv" in files:
            rows = class_rows(measured, mask, facts.tissue_px)
            with writing(files["csv"].name):
                write_whole(files["csv"], as_csv(rows))
    if "tiff" in files:
        _write_tiff(files["tiff"], source, emit, control)
    if "dicom" in files:
        assert config.slide is not None
        write_dicom_seg(files["dicom"], mask, config.slide, emit, control)
    return list(files.values()), rows


def _facts(config: ExportConfig, store: Path, emit: Emit) -> _Facts:
    """What the slide tells, if it is given; it must be the slide of the masks."""
    known = read_attributes(store)["kdseg"]["slide"]
    if config.slide is None:
        return _Facts(_noted_origin(config, known, store.name, emit))
    with open_slide(config.slide) as slide:
        if known["identity"] != slide.identity():
            raise ConfigurationError(f"{store.name} holds masks of another slide ({known['name']}).")
        origin = (0.0, 0.0) if config.bounds is False else bounds_origin(slide)
        if "csv" not in config.kinds:
            return _Facts(origin)
        tissue = tissue_of(slide)
        return _Facts(origin, float(tissue.mask.sum() * tissue.downsample[0] * tissue.downsample[1]))


def _noted_origin(config: ExportConfig, known: dict[str, Any], name: str, emit: Emit) -> Pair:
    """Return the corner of the scanned area that a store noted of its slide; older stores did not."""
    if config.bounds is False or "geojson" not in config.kinds:
        return 0.0, 0.0
    if "bounds" in known:
        return (0.0, 0.0) if known["bounds"] is None else (known["bounds"][0], known["bounds"][1])
    if config.bounds:
        raise ConfigurationError("The scanned area is known by the slide: say which one with --slide.")
    emit(
        Message(
            f"{name} does not say which part of its slide was scanned: outlines count from the corner of the slide. If "
            "QuPath shows only a part of it, give the slide.",
            "warning",
        )
    )
    return 0.0, 0.0


def _write_tiff(file: Path, source: _Source, emit: Emit, control: Control) -> None:
    mask = source.mask
    small = [index for index, level in enumerate(mask.levels) if max(level.shape) <= SMALLEST]
    levels = mask.levels[: small[0] + 1] if small else mask.levels

    def read(level: int, y: int, x: int) -> np.ndarray:
        block = np.asarray(levels[level][y : y + TILE, x : x + TILE])
        padding: Any = [(0, TILE - side) for side in block.shape]
        return np.pad(block, padding, constant_values=NOT_COMPUTED)

    def step(done: int, total: int) -> None:
        control.check()
        emit(Step(STAGE, done, total))

    mpp, (y, x) = mask.mpp, mask.downsample
    write_class_tiff(
        file,
        [(level.shape[0], level.shape[1]) for level in levels],
        read,
        pixel_size=None if mpp is None else (mpp[0] * y, mpp[1] * x),
        name=source.stem,
        classes=mask.classes,
        colours=mask.colours,
        step=step,
    )


def _in_the_way(file: Path) -> InTheWayError:
    return InTheWayError(f"{file} is there already. Choose another folder, or allow it to be replaced.")
