"""What a TIFF says of its scale: OME-XML, ImageJ's unit, or resolution tags; and the tags that are worth showing."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import tifffile

from napari_kdseg.slides.geometry import Pair
from napari_kdseg.slides.readers.tiff.ome import ome_mpp
from napari_kdseg.slides.scale import length_um

NO_UNIT, INCH, CENTIMETRE = 1, 2, 3


def scale_of(
    tif: tifffile.TiffFile, key: tifffile.TiffPage, pixels: ElementTree.Element | None
) -> Pair | None:
    """Return micrometres per pixel (y, x) as the file says them, believable or not."""
    if pixels is not None:
        return ome_mpp(pixels)
    return _imagej_mpp(tif, key) or _resolution_mpp(key)


def _imagej_mpp(tif: tifffile.TiffFile, key: tifffile.TiffPage) -> Pair | None:
    """Return the scale of ImageJ: its resolution tags count pixels per the unit of its description."""
    said = tif.imagej_metadata or {} if tif.is_imagej else {}
    unit = length_um(said.get("unit"))
    sizes = _pixels_per_unit(key)
    return None if unit is None or sizes is None else (unit / sizes[0], unit / sizes[1])


def _resolution_mpp(key: tifffile.TiffPage) -> Pair | None:
    units = {INCH: 25400.0, CENTIMETRE: 1e4}
    tag = key.tags.get("ResolutionUnit")
    sizes = _pixels_per_unit(key)
    unit = None if tag is None else units.get(tag.value)
    return None if unit is None or sizes is None else (unit / sizes[0], unit / sizes[1])


def _pixels_per_unit(key: tifffile.TiffPage) -> Pair | None:
    """Return YResolution and XResolution, if both are positive numbers."""
    sizes = []
    for name in ("YResolution", "XResolution"):
        tag = key.tags.get(name)
        try:
            above, below = tag.value if tag is not None else (0, 1)
            sizes.append(above / below)
        except (TypeError, ValueError, ZeroDivisionError):
            return None
    return (sizes[0], sizes[1]) if all(math.isfinite(size) and size > 0 for size in sizes) else None


def properties(key: tifffile.TiffPage) -> dict[str, str]:
    """Return the tags that are worth showing."""
    tags = (
        "ImageDescription",
        "Software",
        "Make",
        "Model",
        "DateTime",
        "XResolution",
        "YResolution",
        "ResolutionUnit",
    )
    return {f"tiff.{name}": str(key.tags[name].value) for name in tags if name in key.tags}
