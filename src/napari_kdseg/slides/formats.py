"""The one table of the formats of slides: what they are called, and what the names of their files end in.

What a file *is*, its content tells (:mod:`napari_kdseg.slides.readers.choosing`). Its name tells only what is offered:
in dialogs, to napari, in a folder that is gone through; and which format a slide is written in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from napari_kdseg.errors import ConfigurationError

Kind = Literal["scanner", "instance", "tiff", "folder", "picture"]
WrittenFormat = Literal["svs", "ome-tiff", "tiff", "ome-zarr"]


@dataclass(frozen=True)
class SlideFormat:
    """One format.

    Attributes
    ----------
    title
        What people call it.
    suffixes
        What names end in, lower case; one that is written ends in the first.
    kind
        What a file of such a name is: ``"scanner"``: a slide. ``"instance"``: one of the files in a folder that are a
        slide together. ``"tiff"``: a slide or an ordinary image, as its header tells. ``"folder"``: a slide, if it is
        a folder. ``"picture"``: an ordinary image, a slide only where it is named; its title is what Pillow calls it.
    written
        What :mod:`napari_kdseg.slides.writing` makes of a slide when the name of the output ends so, if anything.
    """

    title: str
    suffixes: tuple[str, ...]
    kind: Kind
    written: WrittenFormat | None = None


FORMATS = (
    SlideFormat("SVS", (".svs",), "scanner", "svs"),
    SlideFormat("NDPI", (".ndpi",), "scanner"),
    SlideFormat("VMS", (".vms", ".vmu"), "scanner"),
    SlideFormat("MRXS", (".mrxs",), "scanner"),
    SlideFormat("SCN", (".scn",), "scanner"),
    SlideFormat("BIF", (".bif",), "scanner"),
    SlideFormat("SVSLIDE", (".svslide",), "scanner"),
    SlideFormat("CZI", (".czi",), "scanner"),
    SlideFormat("QPTIFF", (".qptiff",), "scanner"),
    SlideFormat("DICOM", (".dcm",), "instance"),
    SlideFormat("OME-TIFF", (".ome.tif", ".ome.tiff"), "tiff", "ome-tiff"),
    SlideFormat("TIFF", (".tif", ".tiff", ".btf"), "tiff", "tiff"),
    SlideFormat("OME-Zarr", (".ome.zarr", ".zarr"), "folder", "ome-zarr"),
    SlideFormat("PNG", (".png",), "picture"),
    SlideFormat("JPEG", (".jpg", ".jpeg"), "picture"),
    SlideFormat("BMP", (".bmp",), "picture"),
)
FILES: tuple[Kind, ...] = ("scanner", "instance", "tiff", "picture")
"""What is a file: all but folders."""

_WRITTEN = {suffix: each.written for each in FORMATS if each.written is not None for suffix in each.suffixes}


def titles(*kinds: Kind) -> tuple[str, ...]:
    """Return what the formats of these kinds are called; of all kinds, if none is named."""
    return tuple(each.title for each in FORMATS if not kinds or each.kind in kinds)


def suffixes(*kinds: Kind) -> tuple[str, ...]:
    """Return what the names of these kinds end in, as ``Path.suffix`` gives it: ``".zarr"``, not ``".ome.zarr"``."""
    found = (Path(f"a{suffix}").suffix for each in FORMATS if each.kind in kinds for suffix in each.suffixes)
    return tuple(dict.fromkeys(found))


def patterns(*kinds: Kind) -> tuple[str, ...]:
    """Return the patterns of file names for these kinds, ``"*.svs"``, for dialogs and for napari."""
    return tuple(f"*{suffix}" for suffix in suffixes(*kinds))


def written_endings() -> str:
    """Say what the name of a slide to be written may end in, for people: ``".svs, .ome.tif, .tif or .ome.zarr"``."""
    *first, last = (each.suffixes[0] for each in FORMATS if each.written)
    return f"{', '.join(first)} or {last}"


def written_suffix(output: Path) -> str:
    """Return the ending of a name that says which format to write, lower case.

    Raises
    ------
    ConfigurationError
        If it says none.
    """
    name = output.name.lower()
    found = [suffix for suffix in _WRITTEN if name.endswith(suffix) and name != suffix]
    if not found:
        raise ConfigurationError(
            f"{output.name} does not say which format to write. End it in {written_endings()}."
        )
    return max(found, key=len)


def written_format(output: Path) -> WrittenFormat:
    """Return the format that a name asks for.

    Raises
    ------
    ConfigurationError
        If it asks for none that can be written.
    """
    return _WRITTEN[written_suffix(output)]
