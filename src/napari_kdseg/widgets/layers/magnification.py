"""Magnification in the microscope's words: 10x is one micrometre a pixel on the screen.

The line in the corner of the canvas ("5x, mpp 0.50") stands beside napari's scale bar.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_kdseg.slides import Slide
    from napari_kdseg.widgets.state.session import Session

UM_AT_10X = 1.0


def magnification_of(zoom: float) -> float:
    """Return the magnification at ``zoom`` screen pixels a micrometre."""
    return 10.0 * zoom * UM_AT_10X


def zoom_for(magnification: float) -> float:
    """Return the screen pixels a micrometre that make ``magnification``."""
    return magnification / (10.0 * UM_AT_10X)


def native_magnification(slide: Slide) -> float | None:
    """Return the magnification at which one pixel of the scan is one on the screen, if the slide has a scale."""
    return None if slide.mpp is None else 10.0 * UM_AT_10X / min(slide.mpp)


def in_words(magnification: float) -> str:
    """Return ``"40x"``, ``"2.5x"``, ``"0.08x"``: two figures where it is not round."""
    digits = 0 if magnification >= 9.95 else 1 if magnification >= 0.95 else 2
    text = f"{magnification:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}x"


def corner_text(slide: Slide, zoom: float) -> str:
    """Return the line in the corner of the canvas, for ``zoom`` screen pixels a unit of the layers."""
    if slide.mpp is None:
        return "no scale: lengths in pixels"
    mpp_y, mpp_x = slide.mpp
    mpp = f"{mpp_x:.3g}" if abs(mpp_x - mpp_y) < 1e-6 else f"{mpp_x:.3g} x {mpp_y:.3g}"
    return f"{in_words(magnification_of(zoom))}   mpp {mpp}"


class MagnificationText:
    """Keeps the line in the corner in step with the camera; a text that is not ours is left alone.

    Parameters
    ----------
    session
        Whose viewer and slide.
    """

    def __init__(self, session: Session):
        self._session = session
        self._text = ""
        session.view_changed.connect(self.renew)
        session.slide_changed.connect(self.renew)

    def renew(self, _slide: Slide | None = None) -> None:
        """Show the line as it is now."""
        viewer, slide = self._session.viewer, self._session.slide
        overlay = viewer.canvas.overlays.text
        if overlay.text not in ("", self._text):
            return
        text = "" if slide is None else corner_text(slide, viewer.scene.camera.zoom)
        if text == self._text == overlay.text:
            return
        self._text = overlay.text = text
        overlay.position = "bottom_right"
        overlay.visible = bool(text)
