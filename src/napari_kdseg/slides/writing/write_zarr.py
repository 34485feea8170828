"""Pyramids of tiles as OME-Zarr: 0.4 (zarr 2) or 0.5 (zarr 3), zstd, a chunk a tile; masks as labels of the image."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numcodecs
import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from napari_kdseg.slides.geometry import Pair
from napari_kdseg.slides.writing import ome_zarr
from napari_kdseg.slides.writing.pyramid import Pyramid

Version = Literal["0.4", "0.5"]


def write_image(
    folder: Path,
    pyramid: Pyramid,
    *,
    version: Version,
    name: str,
    mpp: Pair | None,
    compressed: bool = True,
    icc: bytes | None = None,
    channel_names: Sequence[str] = (),
    progress: Callable[[], None] = lambda: None,
) -> None:
    """Write an image with axes c, y, x into a new folder.

    Parameters
    ----------
    folder
        Does not exist yet.
    version
        Of OME-Zarr.
    name
        Of the slide.
    mpp
        Micrometres per level-0 pixel (y, x).
    compressed
        With zstd; raw chunks otherwise.
    icc
        ICC profile. OME-Zarr has no place for one: it is kept in the attribute ``kdseg``, base64.
    channel_names
        One per channel.
    progress
        Called after every tile; may raise to stop.
    """
    rgb = pyramid.channels == 3 and pyramid.dtype == np.uint8
    omero = ome_zarr.rgb_channels() if rgb else {"channels": [{"label": label} for label in channel_names]}
    image = ome_zarr.multiscales(name, pyramid.downsamples, mpp, channels=True, kind="mean", version=version)
    ome: dict[str, Any] = {"multiscales": image, "omero": omero}
    about = {} if icc is None else {"kdseg": {"icc_profile": base64.b64encode(icc).decode()}}
    group = _group(folder, ome, version, about)
    _write_levels(group, pyramid, version, compressed, progress, channel_axis=True)


def write_label(
    image: Path,
    name: str,
    pyramid: Pyramid,
    *,
    version: Version,
    mpp: Pair | None,
    classes: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
    progress: Callable[[], None] = lambda: None,
) -> None:
    """Write a mask of classes into ``image/labels/name``, on the coordinates of the image."""
    labels = image / "labels"
    names = sorted([*(_labels_of(labels, version) if labels.is_dir() else ()), name])
    _group(labels, {"labels": names}, version)
    ome = {
        "multiscales": ome_zarr.multiscales(name, pyramid.downsamples, mpp, kind="nearest", version=version),
        "image-label": ome_zarr.image_label(classes, colours),
    }
    group = _group(labels / name, ome, version)
    _write_levels(group, pyramid, version, True, progress, channel_axis=False)


def _group(
    folder: Path, ome: dict[str, Any], version: Version, about: dict[str, Any] | None = None
) -> zarr.Group:
    """Open or make a group and describe it: 0.5 keeps the description under ``ome``, 0.4 at the root."""
    attributes = {"ome": {"version": version, **ome}} if version == "0.5" else ome
    group = zarr.open_group(folder, mode="a", zarr_format=3 if version == "0.5" else 2)
    group.attrs.update({**attributes, **(about or {})})
    return group


def _labels_of(folder: Path, version: Version) -> list[str]:
    attributes = dict(zarr.open_group(folder, mode="r").attrs)
    return (attributes["ome"] if version == "0.5" else attributes)["labels"]


def _write_levels(
    group: zarr.Group,
    pyramid: Pyramid,
    version: Version,
    compressed: bool,
    progress: Callable[[], None],
    *,
    channel_axis: bool,
) -> None:
    leading = (pyramid.channels,) if channel_axis else ()
    options: dict[str, Any]
    if version == "0.5":
        codec: Any = ZstdCodec(level=1)
        options = {"dimension_names": ("c", "y", "x")[-len(leading) - 2 :]}
    else:
        codec = numcodecs.Zstd(level=1)
        options = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    for index, level in enumerate(pyramid.levels):
        array = group.create_array(
            str(index),
            shape=(*leading, *level.shape),
            chunks=(*leading, min(pyramid.tile, level.shape[0]), min(pyramid.tile, level.shape[1])),
            dtype=pyramid.dtype,
            compressors=codec if compressed else None,
            **options,
        )
        for (y, x), pixels in pyramid.tiles(index):
            height, width = pixels.shape[:2]
            block = np.moveaxis(pixels, 2, 0) if channel_axis else pixels[..., 0]
            array[..., y : y + height, x : x + width] = block
            progress()
