"""What the docks of one viewer share: the slide, the models, the masks, the jobs.

State belongs to the viewer: a dock may be closed and opened again, or exist twice, and finds all as it was.
"""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QMessageBox

from napari_kdseg.errors import OutputError
from napari_kdseg.jobs import Failed
from napari_kdseg.widgets._compat import keep_llvms_apart, real_viewer
from napari_kdseg.widgets.layers.magnification import StatusLine
from napari_kdseg.widgets.layers.refresher import Arrivals
from napari_kdseg.widgets.state.background import emitting, in_background
from napari_kdseg.widgets.state.job_handle import JobHandle
from napari_kdseg.widgets.state.prediction_queue import PREDICTION, PredictionLine
from napari_kdseg.widgets.state.preferences import preferences

if TYPE_CHECKING:
    from napari_kdseg.networks import NetworkSpec
    from napari_kdseg.slides import Slide
    from napari_kdseg.slides.colour import Colours

ROLES = ("teacher", "false_pixel_assistant", "boundary_assistant", "student")
ROLE_TITLES = {
    "teacher": "Teacher",
    "false_pixel_assistant": "False-pixel-aware assistant",
    "boundary_assistant": "Boundary-aware assistant",
    "student": "Student",
}


class LoadedModel:
    """A checkpoint chosen for a role: where it is, and what its header says."""

    def __init__(self, path: Path, spec: NetworkSpec, parameters: int | None):
        self.path = path
        self.spec = spec
        self.parameters = parameters


class Session(QObject):
    """The state of one viewer. Its signals are emitted in the GUI thread."""

    slide_changed = Signal(object)
    slide_identified = Signal(object)
    annotation_changed = Signal(object)
    models_changed = Signal(str)
    job_started = Signal(object)
    overlays_changed = Signal()
    overlays_restyled = Signal()
    view_changed = Signal()
    damage_found = Signal()
    _damaged = Signal(object, object)

    def __init__(self, viewer: Any):
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self.slide: Slide | None = None
        self.slide_identity: str | None = None
        self.store: Path | None = None
        self.annotation: str | None = None
        self.models: dict[str, LoadedModel] = {}
        self.jobs: dict[str, JobHandle] = {}
        self.outline = True
        self.corrected_view = "stage"
        self.refreshing = False
        self.network_colours: Colours = "stored"
        self._told_damage: int | None = None
        self.arrivals = Arrivals(viewer, self)
        self._damaged.connect(self._on_damage, Qt.ConnectionType.QueuedConnection)
        camera = viewer.scene.camera
        for event in (camera.events.center, camera.events.zoom, viewer.canvas.events.size):
            event.connect(self._on_view)
        self.status_line = StatusLine(self)
        self.predictions = PredictionLine(self)
        viewer.layers.events.inserted.connect(lambda event: self._take(event.value))
        for layer in viewer.layers:
            self._take(layer)

    @property
    def viewer(self) -> Any:
        """The viewer this state belongs to."""
        return self._viewer()

    # -- slide -------------------------------------------------------------------------------------

    def open_slide(
        self,
        path: str,
        *,
        annotation: str | None = None,
        mpp: float | tuple[float, float] | None = None,
        on_failed: Any = None,
    ) -> None:
        """Open a slide off the GUI thread, then show it in place of the present one; ask if work by hand would be lost.

        Parameters
        ----------
        path, mpp
            As for :func:`~napari_kdseg.slides.open_slide`.
        annotation
            Its mask, as for :func:`~napari_kdseg.slides.open_annotation`.
        on_failed
            Receives the sentence of the notification, too.
        """
        from napari_kdseg.widgets.layers.unsaved import may_leave

        if may_leave(self.viewer):
            self._show(path, annotation, mpp, on_failed)
        elif on_failed is not None:
            on_failed("The slide stays as it is. Save what was drawn or painted, then open the other one.")

    def _show(self, path: str, annotation: str | None, mpp: Any, on_failed: Any) -> None:
        def work() -> Any:
            from napari_kdseg.slides import open_slide
            from napari_kdseg.widgets.layers.mask_layers import slide_layers

            return slide_layers(open_slide(path, mpp=mpp), annotation)

        def show(made: Any) -> None:
            from napari_kdseg.widgets.layers.mask_layers import show_slide

            if self.viewer is not None:
                show_slide(self.viewer, made)

        in_background(work, show, on_failed)

    def give_scale(self, mpp: tuple[float, float], on_failed: Any = None) -> None:
        """Take ``mpp`` (y, x) as the size of the slide's pixels, keep it for the next time, and show the slide anew.

        Where it cannot be kept it counts until the slide is closed, which is said.
        """
        from napari_kdseg.widgets.layers.unsaved import may_leave

        slide, annotation = self.slide, self.annotation
        if slide is None or not may_leave(self.viewer):
            return

        def keep() -> None:
            from napari_kdseg.slides.sidecar import keep_mpp

            try:
                keep_mpp(slide, mpp)
            except OutputError as error:
                show_warning(f"{error} It counts until you close the slide.")

        def show(_kept: None) -> None:
            self._show(slide.path, annotation, mpp, on_failed)

        in_background(keep, show, on_failed)

    def _take(self, layer: Any) -> None:
        """Follow a layer of ours, whoever added it: our docks, napari's reader, a sample."""
        if "kdseg_role" in layer.metadata:
            layer.events.visible.connect(self._on_restyled)
            layer.events.opacity.connect(self._on_restyled)
        slide = layer.metadata.get("kdseg_slide")
        if slide is not None and slide is not self.slide:
            self._adopt(slide)
        annotation = layer.metadata.get("kdseg_annotation")
        if annotation is not None:
            self.set_annotation(annotation)

    def _on_damage(self, slide: int, bad: Any) -> None:
        """Say once of a slide that parts of it cannot be read."""
        if self.slide is None or id(self.slide) != slide:
            return
        if self._told_damage != slide:
            self._told_damage = slide
            show_warning(
                f"A part of {self.slide.name} cannot be read and is shown grey ({bad.reason}). Copy the file again "
                "from where it came from."
            )
        self.damage_found.emit()

    def _on_view(self, _event: Any) -> None:
        self.view_changed.emit()

    def _on_restyled(self, _event: Any) -> None:
        self.overlays_restyled.emit()

    def _adopt(self, slide: Slide) -> None:
        self.slide = slide
        self.slide_identity = None
        self.store = None
        self.annotation = None
        self.network_colours = "stored"
        slide.on_bad_tile(emitting(self, "_damaged", id(slide)))
        self.slide_changed.emit(slide)
        self.annotation_changed.emit(None)
        if slide.bad_tiles:  # found while it was opened
            self._on_damage(id(slide), slide.bad_tiles[0])

        def found(identity: str) -> None:
            if self.slide is slide:
                self.slide_identity = identity
                self.refresh_masks()
                self.slide_identified.emit(slide)

        in_background(slide.identity, found)

    def set_annotation(self, source: str | None) -> None:
        """Take ``source`` (a mask file or a ``synthetic:`` address) as the annotation of this slide."""
        self.annotation = source
        self.annotation_changed.emit(source)

    # -- models ------------------------------------------------------------------------------------

    def set_model(self, role: str, model: LoadedModel | None) -> None:
        """Fill or clear the card of ``role``."""
        if model is None:
            self.models.pop(role, None)
        else:
            self.models[role] = model
        self.models_changed.emit(role)

    # -- masks and jobs ----------------------------------------------------------------------------

    def masks_path(self) -> Path | None:
        """Where the masks of this slide are kept, or ``None`` while the slide is still being identified."""
        if self.store is not None:
            return self.store
        if self.slide is None or self.slide_identity is None:
            return None
        stem = (
            "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(self.slide.name).stem)[:60]
            or "slide"
        )
        return preferences().masks_folder / f"{stem}-{self.slide_identity[:8]}.ome.zarr"

    def refresh_masks(self) -> None:
        """Show the masks of this slide as they are on disk now."""
        from napari_kdseg.widgets.layers.overlays import refresh

        refresh(self)

    def offer_replacing(self, handle: JobHandle, end: Any, parent: Any) -> bool:
        """If the job found something good in its way, ask; on yes start it again and return ``True``."""
        if not (isinstance(end, Failed) and end.error == "InTheWayError"):
            return False
        question = f"{end.message.split('. ')[0]}. Replace it?"
        if QMessageBox.question(parent, handle.title, question) != QMessageBox.StandardButton.Yes:
            return False
        config = handle.config.model_copy(update={"overwrite": True})
        if handle.kind == PREDICTION:
            return self.predictions.add(handle.title, config) is not None
        return self.start(handle.kind, handle.title, handle.job, config) is not None

    def start(self, kind: str, title: str, job: str, config: Any) -> JobHandle | None:
        """Start a job of this kind, unless one of the same kind is still running.

        Parameters
        ----------
        kind
            Place it takes: ``"distil"``, ``"correct"``, or a role.
        title
            For people.
        job
            The job as ``"module:function"``, imported where it runs: torch never loads on the GUI thread.
        config
            What to do.
        """
        present = self.jobs.get(kind)
        if present is not None and present.alive:
            show_info(f"{present.title} is still running. Stop it first, or wait for it.")
            return None
        handle = JobHandle(kind, title, job, config, in_process=preferences().jobs_in_process, parent=self)
        self.jobs[kind] = handle
        self.job_started.emit(handle)
        return handle


def given_mpp(slide: Slide) -> float | None:
    """The scale that a person gave, not the file: jobs open the file themselves and need to be told."""
    return slide.mpp[0] if slide.mpp is not None and slide.mpp != slide.metadata.mpp else None


_SESSIONS: weakref.WeakKeyDictionary[Any, Session] = weakref.WeakKeyDictionary()


def session_of(viewer: Any) -> Session:
    """Return the one session of ``viewer``, made on first use."""
    viewer = real_viewer(viewer)
    if viewer not in _SESSIONS:
        keep_llvms_apart()
        _SESSIONS[viewer] = Session(viewer)
    return _SESSIONS[viewer]
