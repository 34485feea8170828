"""The Slide dock says which picture of a file is the slide and what its numbers mean, and lets both be chosen."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_kdseg.slides import open_slide
from napari_kdseg.slides.address import Asked
from napari_kdseg.widgets.binding import session_of

WAIT = 20_000


@pytest.fixture
def scan(tmp_path):
    """A macro, then a slide of 12 bits in 16 that does not say so."""
    path = tmp_path / "scan.ome.tif"
    random = np.random.default_rng(0)
    with tifffile.TiffWriter(path, ome=True) as tif:
        macro = random.integers(150, 256, (60, 90, 3), dtype=np.uint8)
        tif.write(macro, photometric="rgb", metadata={"axes": "YXS", "Name": "macro"})
        pixels = random.integers(3000, 4096, (240, 320, 3)).astype(np.uint16)
        tif.write(pixels, photometric="rgb", tile=(64, 64), metadata={"axes": "YXS", "Name": "tissue"})
    return path


def test_picture_and_numbers_are_said_and_chosen(viewer, dock, qtbot, scan):
    slide_dock, session = dock("1 Slide"), session_of(viewer)
    box = slide_dock.reading

    def shown(action) -> None:
        before = session.slide
        action()
        qtbot.waitUntil(lambda: session.slide is not before, timeout=WAIT)
        qtbot.waitUntil(lambda: slide_dock.thumbnail.isVisible(), timeout=WAIT)

    shown(lambda: slide_dock.open(str(scan)))
    assert box.series.currentText() == "2 of 2 (largest): tissue, 320 x 240"
    assert box.kind.currentText() == "as the file says"
    assert "does not say which value is white" in box.note.text()
    assert box.white.value() == 4095
    shown(box.use.click)
    assert session.slide.asked == Asked(white=4095.0)
    assert session.slide.path == str(scan)
    assert box.note.text() == "RGB, 16 bit, 4095 is white (you said so)"
    with open_slide(scan) as again:  # it is kept
        assert again.asked == Asked(white=4095.0)

    def choose(combo, index) -> None:
        combo.setCurrentIndex(index)
        combo.activated.emit(index)

    shown(lambda: choose(box.kind, box.kind.findData("channels")))
    assert [layer.name.rpartition(": ")[2] for layer in viewer.layers] == [
        "channel 1",
        "channel 2",
        "channel 3",
    ]
    shown(lambda: choose(box.kind, 0))
    assert session.slide.brightfield
    shown(lambda: choose(box.series, 0))
    assert session.slide.path == f"{scan}?series=1"
    assert session.slide.shape == (60, 90)
    assert box.note.text() == "RGB, 8 bit"
    shown(lambda: choose(box.series, 1))
    assert session.slide.path == str(scan)
