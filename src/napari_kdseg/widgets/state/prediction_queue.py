"""Predictions of one viewer: one after another, what is on screen first, and networks made ready beforehand."""

from __future__ import annotations

from typing import Any

from napari.utils.notifications import show_info
from qtpy.QtCore import QObject, Signal

from napari_kdseg.widgets.state.job_handle import JobHandle
from napari_kdseg.widgets.state.preferences import preferences

PREDICTION = "predict"


class PredictionLine(QObject):
    """Predictions that run and wait. Each follows the view: what is looked at comes first.

    Signals
    -------
    added(JobHandle)
        A prediction was lined up; it may have to wait.
    """

    added = Signal(object)

    def __init__(self, session: Any):
        super().__init__(session)
        self._session = session
        self.jobs: list[JobHandle] = []
        self._getting_ready: JobHandle | None = None
        session.view_changed.connect(self._follow_view)

    def add(self, title: str, config: Any) -> JobHandle | None:
        """Line up a prediction (a ``PredictConfig``); ``None`` if just that one is in the line already."""
        if any(job.config == config for job in self.jobs):
            show_info("This prediction is running or waiting already.")
            return None
        handle = JobHandle(
            PREDICTION,
            title,
            "napari_kdseg.inference:predict",
            config,
            in_process=preferences().jobs_in_process,
            parent=self,
            begin=False,
        )
        handle.ended.connect(lambda _end: self._leave(handle))
        self.jobs.append(handle)
        self.added.emit(handle)
        self._begin_next()
        return handle

    def ahead_of(self, handle: JobHandle) -> int:
        """How many predictions are before this one."""
        return self.jobs.index(handle) if handle in self.jobs else 0

    def get_ready(self, config: Any) -> JobHandle:
        """Load and measure what a prediction needs, so that the first click shows a mask at once."""
        if self._getting_ready is not None and self._getting_ready.alive:
            self._getting_ready.cancel()
        title = "getting the networks ready"
        self._getting_ready = JobHandle("ready", title, "napari_kdseg.inference:prepare", config, parent=self)
        return self._getting_ready

    def stop(self) -> list[JobHandle]:
        """Ask everything to stop, what waits first; return what may still be running."""
        found = [*reversed(self.jobs), *([self._getting_ready] if self._getting_ready else [])]
        for handle in found:
            handle.cancel()
        return found

    def _begin_next(self) -> None:
        if self.jobs and self.jobs[0].waiting:
            handle = self.jobs[0]
            handle.begin()
            self._follow_view()
            self._session.job_started.emit(handle)

    def _leave(self, handle: JobHandle) -> None:
        if handle in self.jobs:
            self.jobs.remove(handle)
        self._begin_next()

    def _follow_view(self) -> None:
        from napari_kdseg.widgets.layers.mask_layers import visible_region

        session = self._session
        if session.slide is None or session.viewer is None:
            return
        for handle in self.jobs:
            if not handle.waiting and handle.config.slide == str(session.slide.path):
                handle.running.control.look_at(visible_region(session.viewer, session.slide))
