"""What the jobs that write for other programs are told: pydantic models that load no library of images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from napari_kdseg.settings import setting
from napari_kdseg.slides.annotations.suffixes import XmlFlavour

Kind = Literal["geojson", "csv", "tiff", "dicom"]


class ExportConfig(BaseModel):
    """What is exported, and as what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stores: tuple[Path, ...] = setting(
        ..., "Masks", "Folders *.ome.zarr of masks, or folders that hold such folders.", min_length=1
    )
    output: Path = setting(..., "Folder", "Where the files are put; made if there is none.")
    names: tuple[str, ...] = setting(
        (), "Which", "Names of the masks, such as student. Default: all segmentations."
    )
    kinds: tuple[Kind, ...] = setting(
        ("geojson", "csv"),
        "As",
        "geojson (QuPath), csv (areas), tiff (pyramidal OME-TIFF), dicom (DICOM SEG; needs the DICOM slide).",
        min_length=1,
    )
    objects: Literal["detection", "annotation"] = setting(
        "detection",
        "Objects",
        "What outlines are in QuPath: detections are many and fast, annotations editable.",
    )
    compress: bool = setting(False, "Compress", "Write outlines as *.geojson.gz.")
    slide: str | None = setting(
        None, "Slide", "The slide they lie on: needed for dicom; adds the share of the tissue to csv."
    )
    bounds: bool | None = setting(
        None,
        "From the scanned area",
        "Outlines count from the corner of the scanned area, as QuPath shows MRXS. Default: yes, where it is known.",
    )
    overwrite: bool = setting(False, "Replace", "Replace files that are there.")


class ConvertAnnotationsConfig(BaseModel):
    """What is converted into what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Path = setting(..., "From", "*.geojson, *.geojson.gz, *.xml; PNG or TIFF mask; OME-Zarr label.")
    target: Path = setting(..., "To", "*.geojson, *.geojson.gz, *.xml; *.tif; *.ome.zarr.")
    slide: str | None = setting(None, "Slide", "The slide they lie on; needed to make a mask of outlines.")
    classes: tuple[str, ...] | None = setting(
        None, "Classes", "Names in the order of their indices, background first. Default: as they appear."
    )
    outside: Literal[0, 255] | None = setting(
        None,
        "Outside",
        "Value outside of all outlines: 0 background, 255 not annotated. Default: see the docs.",
    )
    overlap: Literal["smaller", "later"] = setting(
        "smaller", "Overlap", "Which of two overlapping outlines lies on top."
    )
    xml: XmlFlavour = setting("asap", "XML", "The program that an *.xml is for.")
    source_bounds: bool | None = setting(
        None,
        "From the scanned area",
        "The source counts from the corner of the scanned area (MRXS). Default: if it is GeoJSON, as QuPath's.",
    )
    target_bounds: bool | None = setting(
        None, "To the scanned area", "The result shall count from there. Default: if it is GeoJSON."
    )
    downsample: float = setting(
        1.0, "Downsample", "Width of a pixel of a mask in pixels of the slide.", ge=1, allow_inf_nan=False
    )
    name: str = setting("annotation", "Label", "Name of the label in an OME-Zarr.", min_length=1)
    overwrite: bool = setting(False, "Replace", "Replace a file or label that is there.")
