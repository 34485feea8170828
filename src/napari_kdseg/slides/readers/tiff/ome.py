"""The XML of an OME-TIFF: in the file itself, or in a companion beside it; and what it says of each picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import tifffile

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.geometry import Pair
from napari_kdseg.slides.scale import length_um

MAX_COMPANION_BYTES = 64 * 2**20


def open_tiff(path: Path) -> tifffile.TiffFile:
    """Open a TIFF, with the XML of its companion file where its own says that the description is there.

    Raises
    ------
    SlideError
        If the companion is not there.
    """
    tif = tifffile.TiffFile(path)
    root = ome_root(tif)
    only = None if root is None else root.find("{*}BinaryOnly")
    if only is None:
        return tif
    tif.close()
    name = Path(only.get("MetadataFile", "")).name
    companion = path.with_name(name)
    if not name or not companion.is_file():
        raise SlideError(
            f"{path.name} holds pixels only: what they are is written in {name or 'another file'}, which is not beside "
            "it. Put both into one folder."
        )
    if companion.stat().st_size > MAX_COMPANION_BYTES:
        raise SlideError(f"{name} is larger than any description of a slide. Choose another file.")
    if companion.suffix.lower() in (".tif", ".tiff", ".btf"):
        with tifffile.TiffFile(companion) as master:
            text = master.ome_metadata or ""
    else:
        text = _decoded(companion.read_bytes())
    return tifffile.TiffFile(path, omexml=_without_declaration(text))


def ome_root(tif: tifffile.TiffFile) -> ElementTree.Element | None:
    """Return the OME element of an OME-TIFF, if its XML can be read.

    The text is parsed, not its bytes: what the declaration says of the encoding is often wrong.
    """
    if not tif.is_ome or not tif.ome_metadata or "<!ENTITY" in tif.ome_metadata:
        return None
    try:
        return ElementTree.fromstring(_without_declaration(tif.ome_metadata))
    except ElementTree.ParseError:
        return None


def pixels_of(
    root: ElementTree.Element | None, series: Sequence[tifffile.TiffPageSeries]
) -> list[ElementTree.Element | None]:
    """Return the Pixels element of every series; tifffile leaves out images it cannot find pages for."""
    images = [] if root is None else root.findall("{*}Image")
    if len(images) == len(series):
        return [image.find("{*}Pixels") for image in images]
    found = []
    for each in series:
        image = next((image for image in images if _fits(image, each)), None)
        if image is not None:
            images.remove(image)
        found.append(None if image is None else image.find("{*}Pixels"))
    return found


def missing_files(root: ElementTree.Element | None, folder: Path) -> list[str]:
    """Return the names of the files that hold pages of an OME-TIFF and are not beside it."""
    uuids = [] if root is None else root.iter()
    names = {each.get("FileName", "") for each in uuids if each.tag.endswith("UUID")}
    return sorted(name for name in names if name and not (folder / name).is_file())


def ome_mpp(pixels: ElementTree.Element) -> Pair | None:
    """Return micrometres per pixel (y, x), if both are said in a known unit."""
    sizes = []
    for axis in "YX":
        unit = length_um(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        try:
            size = float(pixels.get(f"PhysicalSize{axis}", "nan")) * (unit or math.nan)
        except ValueError:
            return None
        sizes.append(size)
    return (sizes[0], sizes[1]) if all(math.isfinite(size) and size > 0 for size in sizes) else None


def ome_channels(pixels: ElementTree.Element | None) -> tuple[str, ...]:
    """Return what each channel is called, by its name or its dye; empty where neither is said."""
    channels = [] if pixels is None else pixels.findall("{*}Channel")
    return tuple(each.get("Name") or each.get("Fluor") or "" for each in channels)


def significant_bits(pixels: ElementTree.Element | None) -> int:
    """Return how many bits of every number count, or 0 if that is not said."""
    text = "" if pixels is None else pixels.get("SignificantBits", "")
    return int(text) if text.isdigit() else 0


def _fits(image: ElementTree.Element, series: tifffile.TiffPageSeries) -> bool:
    pixels = image.find("{*}Pixels")
    if pixels is None or (image.get("Name") or series.name) != series.name:
        return False
    size = dict(zip(series.axes, series.shape, strict=True))
    return all(pixels.get(f"Size{axis}") == str(size.get(axis)) for axis in "YX")


def _decoded(data: bytes) -> str:
    for encoding in ("utf-8-sig", "utf-16"):
        try:
            return data.decode(encoding)
        except UnicodeError:
            continue
    return data.decode("cp1252", errors="replace")


def _without_declaration(text: str) -> str:
    text = text.lstrip("\ufeff \t\r\n")
    return text.partition("?>")[2].strip() if text.startswith("<?xml") else text.strip()
