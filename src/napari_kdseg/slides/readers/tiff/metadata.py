"""What a TIFF says of its scale and its channels: OME-XML, or resolution tags where they can be believed."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import tifffile

from napari_kdseg.slides.geometry import Pair

PLAUSIBLE_MPP = (0.05, 20.0)
"""Micrometres per pixel that resolution tags are believed: others are print resolutions, 72 dpi being 352.8 um."""

LENGTHS_UM = {
    "nm": 1e-3,
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "Å": 1e-4,
    "in": 25400.0,
}


def ome_pixels(tif: tifffile.TiffFile) -> ElementTree.Element | None:
    """Return the Pixels element of the first image of an OME-TIFF, if its XML can be read."""
    if not tif.is_ome or not tif.ome_metadata or "<!ENTITY" in tif.ome_metadata:
        return None
    try:
        return ElementTree.fromstring(tif.ome_metadata.encode()).find(".//{*}Pixels")
    except ElementTree.ParseError:
        return None


def ome_mpp(pixels: ElementTree.Element) -> Pair | None:
    """Return micrometres per pixel (y, x), if both are said in a known unit."""
    sizes = []
    for axis in "YX":
        unit = LENGTHS_UM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        try:
            size = float(pixels.get(f"PhysicalSize{axis}", "nan")) * (unit or math.nan)
        except ValueError:
            return None
        sizes.append(size)
    return (sizes[0], sizes[1]) if all(math.isfinite(size) and size > 0 for size in sizes) else None


def ome_channels(pixels: ElementTree.Element | None, count: int) -> list[str]:
    """Return a name for each channel."""
    named = [] if pixels is None else [channel.get("Name") for channel in pixels.findall("{*}Channel")]
    return [(named[i] if i < len(named) else None) or f"channel {i + 1}" for i in range(count)]


def resolution_mpp(key: tifffile.TiffPage) -> Pair | None:
    """Believe the resolution tags of a plain TIFF only where they are those of a microscope."""
    if not {"XResolution", "YResolution", "ResolutionUnit"} <= {tag.name for tag in key.tags}:
        return None
    if key.tags["ResolutionUnit"].value not in (2, 3):
        return None
    x, y = (1 / value if value > 0 else math.inf for value in key.get_resolution(unit="micrometer"))
    return (y, x) if all(PLAUSIBLE_MPP[0] <= side <= PLAUSIBLE_MPP[1] for side in (y, x)) else None


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
