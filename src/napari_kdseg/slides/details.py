"""What ``kdseg info`` says of a slide: levels, scale, how it is compressed, which reader takes it and why, hash."""

from __future__ import annotations

from pathlib import Path

import tifffile
import zarr

from napari_kdseg.slides.describe import describe
from napari_kdseg.slides.slide import Slide
from napari_kdseg.slides.tiff_check import is_tiff, quiet_tifffile
from napari_kdseg.slides.zarr_backend import is_zarr

REASONS = {
    "tifffile": "a plain or OME-TIFF, whose tiles are decoded directly.",
    "zarr": "an OME-Zarr folder.",
    "pillow": "a single picture without levels.",
}
"""Where a backend does not say why it is the one."""


def details(slide: Slide) -> list[tuple[str, str]]:
    """The facts of a slide for the command line, a (name, text) pair each; the hash takes a moment."""
    facts = describe(slide)
    reason = slide.metadata.reason or REASONS.get(slide.reader, "")
    vendor = slide.properties.get("openslide.vendor")
    if vendor is not None and not slide.metadata.reason:
        reason = f"the format of {vendor} scanners, which OpenSlide knows."
    facts = [(name, f"{text}: {reason}" if name == "Read by" and reason else text) for name, text in facts]
    if not any(name == "Scale" for name, _ in facts):
        facts.append(("Scale", "not in the file; give it with --slide-mpp, or in the Slide dock"))
    facts.append(("Codec", codec(slide)))
    if slide.channels != 3:
        facts.append(("Channels", f"{', '.join(slide.channel_names)} ({slide.dtype})"))
    for index, level in enumerate(slide.levels):
        (height, width), (tall, wide) = level.shape, level.tile
        factor = level.downsample[1]
        where = (
            f"blocks of {wide} x {tall}" if index < len(slide.metadata.levels) else "averaged when looked at"
        )
        facts.append((f"Level {index}", f"{width:,} x {height:,}, 1/{factor:.6g}, {where}"))
    facts.append(("ICC profile", f"{len(slide.icc):,} bytes" if slide.icc else "none"))
    facts.append(("Pictures", ", ".join(slide.associated) or "none"))
    facts.append(("Hash", slide.identity()))
    return facts


def codec(slide: Slide) -> str:
    """Say how the pixels of level 0 are compressed, and in which tiles."""
    if slide.reader == "synthetic":
        return "none, every tile is computed"
    path = Path(slide.path)
    if path.is_dir():
        return _zarr_codec(path) if is_zarr(path) else "DICOM, as in its instances"
    if not is_tiff(path):
        return f"of {slide.properties.get('openslide.vendor', path.suffix.lstrip('.').upper() or 'unknown')}"
    with quiet_tifffile(), tifffile.TiffFile(path) as tif:
        page = tif.series[0].levels[0].keyframe
        cut = (
            f"tiles of {page.tilewidth} x {page.tilelength}"
            if page.is_tiled
            else f"strips of {page.rowsperstrip} rows"
        )
        return f"{tifffile.COMPRESSION(page.compression).name.lower()}, {cut}"


def _zarr_codec(path: Path) -> str:
    for _, array in zarr.open_group(path, mode="r").arrays():
        names = [type(each).__name__.removesuffix("Codec").lower() for each in array.compressors]
        return f"{', '.join(names) or 'none'}, chunks of {' x '.join(map(str, array.chunks))}"
    return "unknown"
