"""Predictions of one viewer: one after another, what is on screen first, and networks made ready beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.utils.notifications import show_info
from qtpy.QtCore import QObject, Signal

from napari_kdseg.widgets.state.connections import connect
from napari_kdseg.widgets.state.job_handle import JobHandle
from napari_kdseg.widgets.state.preferences import preferences

if TYPE_CHECKING:
    from napari_kdseg.inference import PredictConfig
    from napari_kdseg.jobs import Terminal
    from napari_kdseg.widgets.state.camera import Region

PREDICTION = "predict"


class PredictionQueue(QObject):
    """Predictions that run and wait. Those of the slide on screen begin with what is looked at.

    Signals
    -------
    added(JobHandle)
        A prediction was queued; it may have to wait.
    begun(JobHandle)
        It is its turn.
    """

    added = Signal(object)
    begun = Signal(object)

    def __init__(self, parent: QObject):
        super().__init__(parent)
        self.jobs: list[JobHandle[PredictConfig]] = []
        self._getting_ready: JobHandle[PredictConfig] | None = None

    def add(self, title: str, config: PredictConfig) -> JobHandle[PredictConfig] | None:
        """Queue a prediction; ``None`` if just that one is in the queue already."""
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
        connect(handle.ended, self._leave, handle)
        self.jobs.append(handle)
        self.added.emit(handle)
        self._begin_next()
        return handle

    def ahead_of(self, handle: JobHandle[PredictConfig]) -> int:
        """How many predictions are before this one."""
        return self.jobs.index(handle) if handle in self.jobs else 0

    def get_ready(self, config: PredictConfig) -> JobHandle[PredictConfig]:
        """Load and measure what a prediction needs, so that the first click shows a mask at once."""
        if self._getting_ready is not None and self._getting_ready.alive:
            self._getting_ready.cancel()
        title = "getting the networks ready"
        self._getting_ready = JobHandle("ready", title, "napari_kdseg.inference:prepare", config, parent=self)
        return self._getting_ready

    def look_at(self, slide: str, region: Region) -> None:
        """Tell the predictions that run on the slide of this path what of it is on screen."""
        for handle in self.jobs:
            if not handle.waiting and handle.config.slide == slide:
                handle.running.control.look_at(region)

    def stop(self) -> list[JobHandle[PredictConfig]]:
        """Ask everything to stop, what waits first; return what may still be running."""
        found = [*reversed(self.jobs), *([self._getting_ready] if self._getting_ready else [])]
        for handle in found:
            handle.cancel()
        return found

    def _begin_next(self) -> None:
        if self.jobs and self.jobs[0].waiting:
            self.jobs[0].begin()
            self.begun.emit(self.jobs[0])

    def _leave(self, handle: JobHandle[PredictConfig], _end: Terminal) -> None:
        if handle in self.jobs:
            self.jobs.remove(handle)
        self._begin_next()
