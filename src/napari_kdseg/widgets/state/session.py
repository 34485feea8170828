"""What the docks of one viewer share: the slide, the models, the masks, the jobs.

State belongs to the viewer: a dock may be closed and opened again, or exist twice, and finds all as it was. Nothing is
drawn and nobody is asked here: what is to be seen is a signal, and a person's answer comes from a function that docks
give.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import QObject, Qt, Signal

from napari_kdseg.errors import OutputError
from napari_kdseg.widgets.state.background import emitting, in_background
from napari_kdseg.widgets.state.camera import visible_region
from napari_kdseg.widgets.state.job_handle import JobHandle
from napari_kdseg.widgets.state.prediction_queue import PredictionQueue
from napari_kdseg.widgets.state.preferences import preferences
from napari_kdseg.widgets.state.view_settings import ViewSettings

if TYPE_CHECKING:
    from napari.viewer import Viewer
    from pydantic import BaseModel

    from napari_kdseg.slides import Slide
    from napari_kdseg.slides.address import Kind
    from napari_kdseg.slides.slide import BadTile
    from napari_kdseg.slides.views.colour import Colours
    from napari_kdseg.widgets.state.loaded_models import LoadedModel

    Config = TypeVar("Config", bound=BaseModel)

Mpp = float | tuple[float, float]
OnFailed = Callable[[str], None]


@dataclass(frozen=True)
class SlideRequest:
    """A slide that is to be shown in place of the present one.

    Attributes
    ----------
    path, mpp
        As for :func:`~napari_kdseg.slides.open_slide`.
    annotation
        Its mask, as for :func:`~napari_kdseg.slides.open_annotation`.
    on_failed
        Receives the sentence of the notification, too.
    """

    path: str
    annotation: str | None = None
    mpp: Mpp | None = None
    on_failed: OnFailed | None = None


@dataclass(frozen=True)
class AnnotationChoice:
    """An annotation of the slide that is shown.

    Attributes
    ----------
    source
        A mask, outlines, or a ``synthetic:`` address.
    bounds
        Whether a person said that its outlines count from the corner of the scanned area; ``None``: as usual.
    notes
        What was decided on reading it.
    """

    source: str
    bounds: bool | None = None
    notes: tuple[str, ...] = ()


class Session(QObject):
    """The state of one viewer. Its signals are emitted in the GUI thread.

    Signals
    -------
    slide_wanted(SlideRequest)
        A slide is to be opened and shown; :meth:`set_slide` is told when it is.
    slide_changed(Slide), slide_identified(Slide)
        Another slide is shown; its content was recognised, so that its masks can be found.
    annotation_changed(str or None), models_changed(str)
        The annotation, or the network of a role.
    job_started(JobHandle)
        A job began.
    masks_changed()
        What is on disk of the masks may be other than what is shown.
    overlays_changed(), overlays_restyled()
        Layers of masks came or went; they look otherwise.
    view_changed()
        The camera moved.
    damage_found()
        A tile of the slide cannot be read.

    Attributes
    ----------
    may_leave
        Asks a person before work by hand is lost with the slide it was done on, and returns whether to go on. Given by
        the docks; without them there is no such work.
    view_settings, hidden_classes
        How masks are looked at, which is kept; classes, by name, that are not shown at present.
    """

    slide_wanted = Signal(object)
    slide_changed = Signal(object)
    slide_identified = Signal(object)
    annotation_changed = Signal(object)
    models_changed = Signal(str)
    job_started = Signal(object)
    masks_changed = Signal()
    overlays_changed = Signal()
    overlays_restyled = Signal()
    view_changed = Signal()
    damage_found = Signal()
    _damaged = Signal(object, object)

    def __init__(self, viewer: Viewer):
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self.may_leave: Callable[[Session], bool] = lambda _session: True
        self.slide: Slide | None = None
        self.slide_identity: str | None = None
        self.store: Path | None = None
        self.annotation: str | None = None
        self.annotation_bounds: bool | None = None
        self.annotation_notes: tuple[str, ...] = ()
        self.models: dict[str, LoadedModel] = {}
        self.jobs: dict[str, JobHandle[Any]] = {}
        self.view_settings = ViewSettings.kept()
        self.hidden_classes: set[str] = set()
        self.corrected_view = "mended_by"
        self.network_colours: Colours = "stored"
        self._told_damage: int | None = None
        self._window_gone = False
        self._damaged.connect(self._on_damage, Qt.ConnectionType.QueuedConnection)
        self.predictions = PredictionQueue(self)
        self.predictions.begun.connect(self._on_prediction)
        self.view_changed.connect(self._tell_view)

    @property
    def closed(self) -> bool:
        """Whether the window is gone; what comes back from the background asks this first."""
        return self._window_gone or self._viewer() is None

    def end(self) -> None:
        """Stop everything: the window is gone, though its viewer may still be in somebody's hands."""
        self._window_gone = True
        self.predictions.stop()
        for job in self.jobs.values():
            job.cancel()

    @property
    def viewer(self) -> Viewer:
        """The viewer this state belongs to.

        Raises
        ------
        RuntimeError
            If it was closed.
        """
        viewer = self._viewer()
        if viewer is None:
            raise RuntimeError("The viewer of this session has been deleted.")
        return viewer

    # -- slide -------------------------------------------------------------------------------------

    def open_slide(
        self,
        path: str,
        *,
        annotation: str | None = None,
        mpp: Mpp | None = None,
        on_failed: OnFailed | None = None,
    ) -> None:
        """Have a slide shown in place of the present one (see :class:`SlideRequest`), unless work would be lost."""
        if self.may_leave(self):
            self.slide_wanted.emit(SlideRequest(path, annotation, mpp, on_failed))
        elif on_failed is not None:
            on_failed("The slide stays as it is. Save what was drawn or painted, then open the other one.")

    def give_scale(self, mpp: tuple[float, float], on_failed: OnFailed | None = None) -> None:
        """Take ``mpp`` (y, x) as the size of the slide's pixels, keep it for the next time, and show the slide anew.

        Where it cannot be kept it counts until the slide is closed, which is said.
        """
        slide = self.slide
        if slide is None or not self.may_leave(self):
            return
        request = SlideRequest(slide.path, self.annotation, mpp, on_failed)

        def keep() -> SlideRequest:
            from napari_kdseg.slides.sidecar import keep_mpp

            try:
                keep_mpp(slide, mpp)
            except OutputError as error:
                show_warning(f"{error} It counts until you close the slide.")
            return request

        in_background(keep, self.slide_wanted.emit, on_failed)

    def give_reading(self, kind: Kind | None, white: float | None, on_failed: OnFailed | None = None) -> None:
        """Take what a person says that the slide's numbers mean, keep it for the next time, and show the slide anew.

        Parameters
        ----------
        kind, white
            As :class:`~napari_kdseg.slides.address.Asked` has them; ``None`` leaves it to the file.
        on_failed
            Receives the sentence of the notification, too.
        """
        slide = self.slide
        if slide is None or not self.may_leave(self):
            return

        def keep() -> SlideRequest:
            from napari_kdseg.slides.address import Asked, join_address
            from napari_kdseg.slides.sidecar import keep_reading

            series = slide.asked.series
            asked = Asked(series)
            try:
                keep_reading(slide, kind, white)
            except OutputError as error:
                show_warning(f"{error} It counts until you close the slide.")
                asked = Asked(series, kind, white)
            return SlideRequest(join_address(slide.file, asked), self.annotation, given_mpp(slide), on_failed)

        in_background(keep, self.slide_wanted.emit, on_failed)

    def show_series(self, series: int, on_failed: OnFailed | None = None) -> None:
        """Show another picture of the slide's file, counted from 0, as its slide."""
        from napari_kdseg.slides.address import Asked, join_address

        slide = self.slide
        if slide is not None:
            chosen = None if series == slide.metadata.default_series else series + 1
            self.open_slide(join_address(slide.file, Asked(chosen)), on_failed=on_failed)

    def set_slide(self, slide: Slide) -> None:
        """Take ``slide``, which is shown now, as the slide of this viewer; nothing of the one before counts for it."""
        self.slide = slide
        self.slide_identity = None
        self.store = None
        self.annotation, self.annotation_bounds, self.annotation_notes = None, None, ()
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

    def set_annotation(self, choice: AnnotationChoice) -> None:
        """Take an annotation that is shown as the annotation of this slide."""
        self.annotation, self.annotation_bounds = choice.source, choice.bounds
        self.annotation_notes = choice.notes
        self.annotation_changed.emit(choice.source)

    def _on_damage(self, slide: int, bad: BadTile) -> None:
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
        """Have the masks of this slide shown as they are on disk now."""
        if not self.closed:
            self.masks_changed.emit()

    def start(self, kind: str, title: str, job: str, config: Config) -> JobHandle[Config] | None:
        """Start a job of this kind, unless one of the same kind is still running.

        Parameters
        ----------
        kind
            Of which one runs at a time: ``"distil"``, ``"correct"``, ``"export"`` ...
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

    def _on_prediction(self, handle: JobHandle[Any]) -> None:
        self._tell_view()
        self.job_started.emit(handle)

    def _tell_view(self) -> None:
        """Tell predictions what is on screen: it comes first."""
        if self.slide is not None and not self.closed and self.predictions.jobs:
            self.predictions.look_at(str(self.slide.path), visible_region(self.viewer, self.slide))


def given_mpp(slide: Slide) -> float | None:
    """The scale that a person gave, not the file: jobs open the file themselves and need to be told."""
    return slide.mpp[0] if slide.mpp is not None and slide.mpp != slide.metadata.mpp else None
