"""What people are asked before something of theirs is lost or replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QMessageBox, QWidget

from napari_kdseg.jobs import Failed, Terminal
from napari_kdseg.widgets.layers.unsaved import unsaved
from napari_kdseg.widgets.state.prediction_queue import PREDICTION

if TYPE_CHECKING:
    from napari_kdseg.widgets.state.job_handle import JobHandle
    from napari_kdseg.widgets.state.session import Session


def may_leave(session: Session) -> bool:
    """Ask before unsaved work is lost with the slide; without any, go on."""
    lost = [] if session.closed else unsaved(session.viewer)
    if not lost:
        return True
    question = (
        f"The {' and the '.join(lost)} of this slide are in no file yet and will be lost. Go on without saving?\n\n"
        "No: save them first, in the dock 1 Slide (Tissue: Keep; Annotations: Save)."
    )
    yes, no = QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.No
    return bool(QMessageBox.question(None, "Not saved", question, yes | no, no) == yes)


def offer_replacing(session: Session, handle: JobHandle[Any], end: Terminal, parent: QWidget) -> bool:
    """If the job found something good in its way, ask; on yes start it again and return ``True``."""
    if not (isinstance(end, Failed) and end.error == "InTheWayError"):
        return False
    question = f"{end.message.split('. ')[0]}. Replace it?"
    if QMessageBox.question(parent, handle.title, question) != QMessageBox.StandardButton.Yes:
        return False
    config = handle.config.model_copy(update={"overwrite": True})
    if handle.kind == PREDICTION:
        return session.predictions.add(handle.title, config) is not None
    return session.start(handle.kind, handle.title, handle.job, config) is not None
