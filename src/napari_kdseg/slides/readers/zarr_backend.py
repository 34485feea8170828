"""OME-Zarr images and labels: 0.4 (zarr 2) and 0.5 (zarr 3, also sharded), with axes (t, z,) c, y, x or y, x, c.

Specification: ngff.openmicroscopy.org.
"""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.geometry import Pair
from napari_kdseg.slides.readers.backend import Level, Metadata, block_of, plane_in_words

UNITS_UM = {
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
    "angstrom": 1e-4,
}
MAX_CHUNK_PIXELS = 4096**2
MAX_CHUNK_BYTES = 512 * 2**20
MAX_PIXELS = 2**40


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a zarr group."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs", ".zmetadata"))


class ZarrBackend:
    """Read the arrays of the first multiscale image of an OME-Zarr group.

    Raises
    ------
    SlideError
        If the folder holds no OME-Zarr image.
    """

    def __init__(self, path: Path):
        try:
            group = _image_group(zarr.open_group(path, mode="r"))
            attributes = _ome(group)
            image = attributes["multiscales"][0]
            self._arrays = [group[dataset["path"]] for dataset in image["datasets"]]
            self._axes = _axes(image, self._arrays[0].ndim)
            self.metadata = self._describe(image, attributes)
            self.metadata.icc = _icc(group)
        except Exception as error:  # zarr raises errors of many types on malformed metadata
            raise SlideError(
                f"This folder is not an OME-Zarr image that can be read: {path.name} "
                f"({type(error).__name__}: {error}). "
                "Choose the folder that holds the multiscales, usually the one ending in .zarr."
            ) from error

    def read_tile(self, level: int, row: int, column: int) -> np.ndarray:
        """Read one block of chunks of all channels."""
        there = self.metadata.levels[level]
        height, width = there.tile_shape(row, column)
        top, left = row * there.tile[0], column * there.tile[1]
        region = {"y": slice(top, top + height), "x": slice(left, left + width), "c": slice(None)}
        pixels = np.asarray(self._arrays[level][tuple(region.get(axis, 0) for axis in self._axes)])
        kept = [axis for axis in self._axes if axis in region]
        if "c" not in kept:
            return pixels[..., None]
        return np.ascontiguousarray(np.moveaxis(pixels, kept.index("c"), -1))

    def read_associated(self, name: str) -> np.ndarray:
        """OME-Zarr has none."""
        raise KeyError(name)

    def close(self) -> None:
        """Nothing is held open."""

    def _describe(self, image: dict[str, Any], attributes: dict[str, Any]) -> Metadata:
        y, x = self._axes.index("y"), self._axes.index("x")
        shape0 = self._arrays[0].shape
        levels = []
        for array in self._arrays:
            _check_size(array, y, x)
            chunk = (array.chunks[y], array.chunks[x])
            tile = block_of(chunk) if math.prod(chunk) <= MAX_CHUNK_PIXELS else (1024, 1024)
            downsample = (shape0[y] / array.shape[y], shape0[x] / array.shape[x])
            levels.append(Level((array.shape[y], array.shape[x]), downsample, tile))
        channels = shape0[self._axes.index("c")] if "c" in self._axes else 1
        dtype = np.dtype(self._arrays[0].dtype)
        rgb = channels == 3 and dtype == np.uint8
        described = attributes.get("omero", {}).get("channels", [])
        names = [channel.get("label") for channel in described] or (["red", "green", "blue"] if rgb else [])
        return Metadata(
            reader="zarr",
            reason="It is an OME-Zarr image.",
            compression=_compression(self._arrays[0]),
            levels=tuple(levels),
            channels=channels,
            dtype=dtype,
            channel_names=tuple(
                (names[i] if i < len(names) else None) or f"channel {i + 1}" for i in range(channels)
            ),
            mpp=_mpp(image, self._axes),
            brightfield=None if rgb else False,
            properties={
                "ome-zarr.name": str(image.get("name", "")),
                "ome-zarr.version": _version(image, attributes),
            },
            plane=plane_in_words(
                {axis: size for axis, size in zip(self._axes, shape0, strict=True) if axis not in "cyx"}
            ),
        )


def _compression(array: zarr.Array) -> str:
    """Name the codecs of an array as zarr does: ``"zstd"``, ``"blosc"``."""
    names = [type(codec).__name__.removesuffix("Codec").lower() for codec in array.compressors]
    return ", ".join(names) or "none"


def _check_size(array: zarr.Array, y: int, x: int) -> None:
    """Refuse what would fill the memory: a chunk is decoded whole, however little of it is looked at."""
    if min(array.shape) < 1 or array.shape[y] * array.shape[x] > MAX_PIXELS:
        raise ValueError(f"it claims {array.shape[x]} x {array.shape[y]} pixels")
    needed = math.prod(array.chunks) * np.dtype(array.dtype).itemsize
    if needed > MAX_CHUNK_BYTES:
        raise ValueError(f"its chunks are of {needed / 2**30:.1f} GB each")


def label_names(path: Path) -> dict[int, str]:
    """Return the names that an OME-Zarr label image gives to its values."""
    described = _ome(zarr.open_group(path, mode="r")).get("image-label", {}).get("properties", [])
    names = {}
    for entry in described:
        name = next((entry[key] for key in ("name", "class", "class_name", "label") if key in entry), None)
        if name is not None:
            names[int(entry["label-value"])] = str(name)
    return names


def _ome(group: zarr.Group) -> dict[str, Any]:
    """Return the OME metadata: at the root in 0.4, under ``ome`` in 0.5."""
    attributes = dict(group.attrs)
    return attributes.get("ome", attributes)


def _image_group(group: zarr.Group) -> zarr.Group:
    """Step into the first image of a bioformats2raw container."""
    attributes = _ome(group)
    if "multiscales" not in attributes and "bioformats2raw.layout" in attributes:
        return group["0"]  # type: ignore[return-value]
    return group


def _icc(group: zarr.Group) -> bytes | None:
    """Return the colour profile that ``kdseg convert`` keeps as an attribute: OME-Zarr itself has no place for it."""
    about = group.attrs.get("kdseg")
    text = about.get("icc_profile") if isinstance(about, dict) else None
    return base64.b64decode(text, validate=True) if isinstance(text, str) else None


def _version(image: dict[str, Any], attributes: dict[str, Any]) -> str:
    return str(attributes.get("version", image.get("version", "0.4")))


def _axes(image: dict[str, Any], ndim: int) -> list[str]:
    """Return the names of the axes: 0.3 gives bare names, earlier ones none and mean t, c, z, y, x."""
    given = image.get("axes", "tczyx"[-ndim:])
    axes = [axis["name"] if isinstance(axis, dict) else axis for axis in given]
    if len(axes) != ndim or not {"y", "x"} <= set(axes) or axes.index("y") > axes.index("x"):
        raise ValueError(f"its axes {axes} are not understood")
    return axes


def _mpp(image: dict[str, Any], axes: list[str]) -> Pair | None:
    """Return micrometres per pixel of the first dataset: scales of the image and of the dataset multiply."""
    unit = {axis["name"]: axis.get("unit") for axis in image.get("axes", []) if isinstance(axis, dict)}
    sizes = []
    for axis in ("y", "x"):
        size = UNITS_UM.get(str(unit.get(axis)), math.nan)
        for owner in (image, image["datasets"][0]):
            for transform in owner.get("coordinateTransformations", []):
                if transform.get("type") == "scale":
                    size *= float(transform["scale"][axes.index(axis)])
        sizes.append(size)
    return (sizes[0], sizes[1]) if all(math.isfinite(size) and size > 0 for size in sizes) else None
