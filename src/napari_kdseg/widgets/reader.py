"""napari's reader contribution: drag a slide into the window."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tifffile
from napari import current_viewer

from napari_kdseg.slides import open_slide
from napari_kdseg.slides.formats import suffixes
from napari_kdseg.slides.readers.tiff.check import MAX_PAGES
from napari_kdseg.widgets.binding import session_of
from napari_kdseg.widgets.layers.placement import LayerTuple
from napari_kdseg.widgets.layers.slide_layers import slide_layers
from napari_kdseg.widgets.state.background import wait_for


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerTuple]] | None:
    """Return a reader for ``path`` if it is a slide, ``None`` if it is not.

    A TIFF is a slide when any picture in it is tiled or larger than 4096 px; others stay with napari's own reader.
    """
    if isinstance(path, list):
        if len(path) != 1:
            return None
        path = path[0]
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix in suffixes("scanner", "instance") or (suffix in suffixes("folder") and file.is_dir()):
        return read_slide
    if suffix in suffixes("tiff") and _is_slide_tiff(file):
        return read_slide
    return None


def _is_slide_tiff(path: Path) -> bool:
    try:
        with tifffile.TiffFile(path) as tif:
            pages = (tif.pages[index].aspage() for index in range(min(len(tif.pages), MAX_PAGES)))
            return any(page.is_tiled or max(page.imagewidth, page.imagelength) > 4096 for page in pages)
    except Exception:
        return False  # not a readable TIFF: let napari say so


def read_slide(path: str | list[str], annotation: str | None = None) -> list[LayerTuple]:
    """Open the slide and return its lazy layers: one RGB layer or one a channel, and the annotation if given."""

    def work() -> list[LayerTuple]:
        return slide_layers(open_slide(path[0] if isinstance(path, list) else path), annotation)

    made = wait_for(work)
    viewer = current_viewer()
    if viewer is not None:
        session_of(viewer)  # it brings finer tiles to the screen when they arrive, also where no dock is open
    return made
