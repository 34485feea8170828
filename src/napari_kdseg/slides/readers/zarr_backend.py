"""OME-Zarr images and labels: 0.4 (zarr 2) and 0.5 (zarr 3, also sharded), with axes (t, z,) c, y, x or y, x, c.

Specification: ngff.openmicroscopy.org.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.address import Asked
from napari_kdseg.slides.geometry import Pair
from napari_kdseg.slides.readers.backend import Level, Metadata, block_of, plane_in_words, sampled
from napari_kdseg.slides.readers.meaning.deciding import decide
from napari_kdseg.slides.readers.meaning.stored import Stored
from napari_kdseg.slides.readers.pictures import Picture, choose_picture, fine_to_coarse, in_words, largest
from napari_kdseg.slides.readers.refusals import DamagedError, NotSupportedError, refusal
from napari_kdseg.slides.scale import length_um

MAX_SERIES = 1000
MAX_CHUNK_PIXELS = 4096**2
MAX_CHUNK_BYTES = 512 * 2**20
MAX_PIXELS = 2**40


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a zarr group."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs", ".zmetadata"))


@dataclass(frozen=True)
class ZarrImage:
    """One multiscale image.

    Attributes
    ----------
    group
        It belongs to.
    axes
        Their names, one letter each, lower case.
    arrays
        Its levels, from fine to coarse.
    datasets
        What is said of each level.
    said
        What is said of the image.
    """

    group: zarr.Group
    axes: list[str]
    arrays: list[zarr.Array]
    datasets: list[dict[str, Any]]
    said: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels (height, width) of the finest level."""
        shape = self.arrays[0].shape
        return shape[self.axes.index("y")], shape[self.axes.index("x")]


class ZarrBackend:
    """Read the arrays of one multiscale image of an OME-Zarr group: the largest, or the series that was asked for.

    Raises
    ------
    SlideError
        If the folder holds no OME-Zarr image.
    """

    def __init__(self, path: Path, asked: Asked | None = None):
        asked = asked or Asked()
        try:
            pictures = _pictures(zarr.open_group(path, mode="r"))
            chosen = choose_picture(pictures, asked.series)
            image = pictures[chosen].content
            self._arrays, self._axes = image.arrays, image.axes
            self.metadata = self._describe(image, asked)
            self.metadata.icc = _icc(image.group)
        except (SlideError, DamagedError, NotSupportedError) as error:
            raise refusal(path, error) from error
        except Exception as error:  # zarr raises errors of many types on malformed metadata
            raise SlideError(
                f"The folder {path.name} is no OME-Zarr image that can be read. Choose the folder that holds the "
                "multiscales, usually the one ending in .zarr; if it is that one, copy it again."
            ) from error
        self.metadata.pictures = tuple(each.title for each in pictures)
        self.metadata.series, self.metadata.default_series = chosen, largest(pictures)
        self.metadata.picture = in_words(pictures, chosen)

    def read_tile(self, level: int, row: int, column: int) -> np.ndarray:
        """Read one block of chunks of all channels."""
        pixels = self._read(level, row, column)
        return pixels if self._convert is None else self._convert(pixels)

    def _read(self, level: int, row: int, column: int) -> np.ndarray:
        there = self._levels[level]
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

    def _describe(self, image: ZarrImage, asked: Asked) -> Metadata:
        attributes = _ome(image.group)
        y, x = self._axes.index("y"), self._axes.index("x")
        shape0 = self._arrays[0].shape
        levels: list[Level] = []
        for array in self._arrays:
            _check_size(array, y, x)
            chunk = (array.chunks[y], array.chunks[x])
            tile = block_of(chunk) if math.prod(chunk) <= MAX_CHUNK_PIXELS else (1024, 1024)
            downsample = (shape0[y] / array.shape[y], shape0[x] / array.shape[x])
            levels.append(Level((array.shape[y], array.shape[x]), downsample, tile))
        self._convert = None
        self._levels = tuple(levels)
        stored = _stored(image, attributes)
        meaning = decide(stored, asked, sampled(self._read, levels))
        self._convert = meaning.convert
        return Metadata(
            reader="zarr",
            reason="It is an OME-Zarr image.",
            compression=_compression(self._arrays[0]),
            levels=self._levels,
            mpp=_mpp(image),
            properties={
                "ome-zarr.name": str(image.said.get("name", "")),
                "ome-zarr.version": _version(image.said, attributes),
            },
            plane=plane_in_words(
                {axis: size for axis, size in zip(self._axes, shape0, strict=True) if axis not in "cyx"}
            ),
            **meaning.facts(),
        )


def _stored(image: ZarrImage, attributes: dict[str, Any]) -> Stored:
    """Return what is said of the numbers: names of channels, no photometric."""
    array = image.arrays[0]
    described = attributes.get("omero", {}).get("channels", [])
    dtype = np.dtype(array.dtype)
    return Stored(
        array.shape[image.axes.index("c")] if "c" in image.axes else 1,
        dtype,
        bits=1 if dtype == np.bool_ else 0,
        names=tuple(str(channel.get("label") or "") for channel in described),
    )


def _compression(array: zarr.Array) -> str:
    """Name the codecs of an array as zarr does: ``"zstd"``, ``"blosc"``."""
    names = [type(codec).__name__.removesuffix("Codec").lower() for codec in array.compressors]
    return ", ".join(names) or "none"


def _check_size(array: zarr.Array, y: int, x: int) -> None:
    """Refuse what would fill the memory: a chunk is decoded whole, however little of it is looked at."""
    if min(array.shape) < 1 or array.shape[y] * array.shape[x] > MAX_PIXELS:
        raise DamagedError(f"it claims {array.shape[x]} x {array.shape[y]} pixels")
    needed = math.prod(array.chunks) * np.dtype(array.dtype).itemsize
    if needed > MAX_CHUNK_BYTES:
        raise NotSupportedError(f"its chunks are of {needed / 2**30:.1f} GB each")


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


def _pictures(group: zarr.Group) -> list[Picture[ZarrImage]]:
    """Return the images of a group, or of the groups in a bioformats2raw container."""
    groups = [group]
    if "multiscales" not in _ome(group) and "bioformats2raw.layout" in _ome(group):
        groups = _series(group)
    pictures = []
    for each in groups:
        for said in _ome(each)["multiscales"]:
            image = _image(each, said)
            pictures.append(Picture(image.shape, image, str(said.get("name") or "")))
    return pictures


def _series(group: zarr.Group) -> list[zarr.Group]:
    """Return the image groups of a container: those that it lists, else 0, 1, 2 ... as long as there are any."""
    listed = _ome(group["OME"]).get("series") if "OME" in group else None  # type: ignore[arg-type]
    names = [str(name) for name in listed or range(MAX_SERIES)][:MAX_SERIES]
    found = []
    for name in names:
        if name not in group:
            break
        found.append(group[name])
    return found  # type: ignore[return-value]


def _image(group: zarr.Group, said: dict[str, Any]) -> ZarrImage:
    """Return an image with its levels from fine to coarse, in whatever order they are listed."""
    pairs = [(group[dataset["path"]], dataset) for dataset in said["datasets"]]
    axes = _axes(said, pairs[0][0].ndim)  # type: ignore[union-attr]
    y, x = axes.index("y"), axes.index("x")
    pairs = fine_to_coarse(pairs, lambda pair: (pair[0].shape[y], pair[0].shape[x]))  # type: ignore[union-attr]
    return ZarrImage(group, axes, [pair[0] for pair in pairs], [pair[1] for pair in pairs], said)  # type: ignore[misc]


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
    axes = [str(axis["name"] if isinstance(axis, dict) else axis).lower() for axis in given]
    if len(axes) != ndim or not {"y", "x"} <= set(axes) or axes.index("y") > axes.index("x"):
        raise NotSupportedError(f"its axes {axes} are not understood")
    return axes


def _mpp(image: ZarrImage) -> Pair | None:
    """Return micrometres per pixel of the finest level: scales of the image and of the dataset multiply."""
    described = [axis for axis in image.said.get("axes", []) if isinstance(axis, dict)]
    unit = {str(axis["name"]).lower(): axis.get("unit") for axis in described}
    sizes = []
    for axis in ("y", "x"):
        size = length_um(unit.get(axis)) or math.nan
        for owner in (image.said, image.datasets[0]):
            for transform in owner.get("coordinateTransformations", []):
                if transform.get("type") == "scale":
                    size *= float(transform["scale"][image.axes.index(axis)])
        sizes.append(size)
    return (sizes[0], sizes[1]) if all(math.isfinite(size) and size > 0 for size in sizes) else None
