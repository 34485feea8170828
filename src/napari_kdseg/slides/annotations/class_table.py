"""Names and colours of classes inside mask files: in the metadata of an OME-Zarr, in the description of a TIFF."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tifffile
import zarr
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from napari_kdseg.slides.annotations.model import Colour

Table = dict[int, tuple[str, Colour | None]]
"""Name and colour by class index."""


def format_class_table(classes: Sequence[str], colours: Sequence[Colour]) -> str:
    """Put names and colours into the description of an OME-TIFF."""
    items = [{"name": name, "color": list(colour)} for name, colour in zip(classes, colours, strict=True)]
    return json.dumps({"classes": items}, ensure_ascii=False)


def tiff_class_table(path: Path) -> Table:
    """Read what :func:`format_class_table` wrote; empty for any other TIFF."""
    with tifffile.TiffFile(path) as tif:
        text = tif.ome_metadata
    try:
        described = fromstring(text or "<none/>", forbid_dtd=True).findtext("{*}Image/{*}Description")
        items = json.loads(described or "")["classes"]
        return {index: (str(item["name"]), _rgb(item.get("color"))) for index, item in enumerate(items)}
    except (SyntaxError, DefusedXmlException, ValueError, LookupError, TypeError, AttributeError):
        return {}  # somebody else's description


def zarr_class_colours(path: Path) -> dict[int, Colour]:
    """Read the colours that an OME-Zarr label gives to its values; empty if it gives none that can be read."""
    attributes: Mapping[str, Any] = dict(zarr.open_group(path, mode="r").attrs)
    items = attributes.get("ome", attributes).get("image-label", {}).get("colors", [])
    try:
        found = {int(item["label-value"]): _rgb(item.get("rgba")) for item in items}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}
    return {index: colour for index, colour in found.items() if colour is not None}


def _rgb(values: Any) -> Colour | None:
    if values is None:
        return None
    red, green, blue = (int(value) & 255 for value in values[:3])
    return red, green, blue
