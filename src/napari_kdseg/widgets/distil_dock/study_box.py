"""Compare methods: a study of the data and networks of the Distil dock, its table of progress, and its report."""

from __future__ import annotations

import datetime
from pathlib import Path

from pydantic import ValidationError
from qtpy.QtCore import QUrl, Signal
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFormLayout,
    QHeaderView,
    QLineEdit,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_kdseg.errors import ConfigurationError, explain
from napari_kdseg.jobs import Cancelled, Done, Event, Failed, Message, Paused, Resumed, Terminal
from napari_kdseg.study import StudyConfig
from napari_kdseg.study.progress import StudyProgress
from napari_kdseg.training import DistillConfig
from napari_kdseg.widgets.parts.controls import button, row
from napari_kdseg.widgets.parts.fold import Fold
from napari_kdseg.widgets.parts.note import Note
from napari_kdseg.widgets.parts.path_row import PathRow
from napari_kdseg.widgets.parts.wording import duration
from napari_kdseg.widgets.state.job_handle import JobHandle
from napari_kdseg.widgets.state.preferences import preferences
from napari_kdseg.widgets.state.session import Session

COLUMNS = ("method", "runs", "test Dice", "now")
SHARED = (
    "teacher_epochs",
    "batch_size",
    "optimiser",
    "augment",
    "augmentation",
    "sampling",
    "device",
    "precision",
)
"""Settings of a distillation that a study has under the same name."""


class StudyBox(Fold):
    """Asks what is compared, starts it in the background, and follows it.

    Signals
    -------
    asked()
        The study shall start: the dock calls :meth:`start` with what its form says.
    """

    asked = Signal()

    def __init__(self, session: Session):
        super().__init__("Compare methods", open=False)
        self.session = session
        self.job: JobHandle | None = None
        self.pages: tuple[Path, ...] = ()
        self.methods = _line(
            "alone, kd, plc-kd", "Methods, with commas; 'alone' is the student without a teacher"
        )
        self.shares = _line("10, 100", "Shares of the labelled training tiles in percent, with commas")
        self.seeds = _line("0, 1, 2", "Each method is run once with each seed; their spread is in the table")
        self.steps = _line("800", "Steps of every student")
        self.output = PathRow("Folder of the study", folder=True, remember="study")
        self.output.set_path(_fresh_folder())
        self.problem, self.state = Note(), Note()
        self.go = button(
            "Compare", "Train all in the background; the same folder again goes on", self.asked.emit
        )
        self.pause = button("Pause", "Wait after this batch", self._pause)
        self.stop = button("Stop", "Stop after this batch; the same folder again goes on", self._stop)
        self.report = button("Open the report", "Tables, curves and tests, in the browser", self.open_report)
        self.controls = row(self.pause, self.stop)
        self.table = _table()
        self._lay_out()
        self._set_running(False)
        self.report.hide()
        session.job_started.connect(self._on_job)
        if "study" in session.jobs:
            self._on_job(session.jobs["study"])

    def _lay_out(self) -> None:
        about = Note(
            "With the data, networks, batch and training of the steps above: every method with every share and seed, "
            "then one report."
        )
        form = QWidget()
        lines = QFormLayout(form)
        lines.setContentsMargins(0, 0, 0, 0)
        for title, line in (
            ("Methods", self.methods),
            ("Labels (%)", self.shares),
            ("Seeds", self.seeds),
            ("Steps", self.steps),
        ):
            lines.addRow(title, line)
        for widget in (
            about, form, self.output, self.go, self.problem, self.state, self.controls, self.table, self.report,
        ):  # fmt: skip
            self.content.addWidget(widget)

    # -- starting ---------------------------------------------------------------------------------------------------

    def configuration(self, like: DistillConfig) -> StudyConfig:
        """Build the study of the fields here and the form of a distillation.

        Raises
        ------
        ConfigurationError
            If a field holds anything but numbers, or names no method.
        pydantic.ValidationError
            If a setting does not work.
        """
        values = like.model_dump()
        data = values["data"]
        if not data["test_fraction"]:
            del data["test_fraction"]  # a study needs test tiles, and takes its own default
        return StudyConfig.model_validate(
            {
                **{name: values[name] for name in SHARED},
                "task": like.data.folder.name or "segmentation",
                "data": data,
                "teachers": [values["teacher"]],
                "students": [values["student"]],
                "methods": [name.strip() for name in self.methods.text().split(",") if name.strip()],
                "label_fractions": [share / 100 for share in _numbers(self.shares, "Labels")],
                "seeds": [int(seed) for seed in _numbers(self.seeds, "Seeds")],
                "steps": int(_numbers(self.steps, "Steps")[0]),
                "output": self.output.path(),
            }
        )

    def start(self, like: DistillConfig) -> JobHandle | None:
        """Start the study in the background; what does not work is said here."""
        self.problem.say("")
        try:
            config = self.configuration(like)
        except (ConfigurationError, ValidationError) as error:
            self.problem.warn(explain(error))
            return None
        return self.session.start("study", "Comparison of methods", "napari_kdseg.study.job:study", config)

    # -- the study --------------------------------------------------------------------------------------------------

    def _on_job(self, job: JobHandle) -> None:
        if job.kind != "study":
            return
        self.job = job
        self.open(True)
        self.state.say("Looking at the tiles …")
        self._set_running(job.alive)
        self.report.hide()
        job.events.connect(self._on_events)
        job.ended.connect(self._on_end)
        self._on_events(job.history)
        if job.running.end is not None and not job.alive:
            self._on_end(job.running.end)

    def _on_events(self, events: list[Event]) -> None:
        progress = [event for event in events if isinstance(event, StudyProgress)]
        if progress:
            self.show_progress(progress[-1])
        for event in events:
            if isinstance(event, Message) and event.level == "warning":
                self.problem.say(event.text)
            elif isinstance(event, Paused | Resumed):
                self.pause.setText("Resume" if isinstance(event, Paused) else "Pause")

    def show_progress(self, progress: StudyProgress) -> None:
        """Fill the table: one row a method."""
        left = "" if progress.seconds_left is None else f", about {duration(progress.seconds_left)} left"
        self.state.say(f"{progress.done} of {len(progress.runs)} runs{left}")
        states = progress.by_method()
        self.table.setRowCount(len(states))
        for line, state in enumerate(states):
            dice = "" if state.test_dice is None else f"{state.test_dice:.3f}"
            for column, text in enumerate((state.method, f"{state.done}/{state.planned}", dice, state.now)):
                item = QTableWidgetItem(text)
                item.setToolTip(text)
                self.table.setItem(line, column, item)

    def _on_end(self, end: Terminal) -> None:
        self._set_running(False)
        if isinstance(end, Failed):
            self.problem.warn(end.message)
        elif isinstance(end, Cancelled):
            self.state.say("Stopped. Finished runs are kept; Compare with the same folder goes on.")
        elif isinstance(end, Done):
            self.state.say(f"Done: {end.result.done} of {end.result.planned} runs.")
            self.pages = end.result.pages
            self.report.show()

    def open_report(self) -> None:
        """Show the report of the finished study in the browser."""
        for page in self.pages:
            if page.suffix == ".html":
                QDesktopServices.openUrl(QUrl.fromLocalFile(str(page)))

    def _pause(self) -> None:
        if self.job is not None:
            self.job.pause_or_resume()

    def _stop(self) -> None:
        if self.job is not None:
            self.stop.setText("Stopping…")
            self.stop.setEnabled(False)
            self.job.cancel()

    def _set_running(self, running: bool) -> None:
        self.controls.setVisible(running)
        self.table.setVisible(self.job is not None)
        self.go.setEnabled(not running)
        self.pause.setText("Pause")
        self.stop.setText("Stop")
        self.stop.setEnabled(True)


def _line(text: str, tooltip: str) -> QLineEdit:
    line = QLineEdit(text)
    line.setToolTip(tooltip)
    line.setMinimumWidth(90)
    return line


def _table() -> QTableWidget:
    table = QTableWidget(0, len(COLUMNS))
    table.setHorizontalHeaderLabels(COLUMNS)
    table.verticalHeader().hide()
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setMinimumWidth(0)
    table.setMinimumHeight(140)
    for column in range(3):
        table.horizontalHeader().setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
    table.horizontalHeader().setSectionResizeMode(3, QHeaderView.ResizeMode.Stretch)
    return table


def _numbers(line: QLineEdit, title: str) -> list[float]:
    try:
        numbers = [float(text) for text in line.text().split(",") if text.strip()]
    except ValueError as error:
        raise ConfigurationError(
            f"{title}: {line.text()!r} are no numbers. Write them with commas."
        ) from error
    if not numbers:
        raise ConfigurationError(f"{title}: write at least one number.")
    return numbers


def _fresh_folder() -> Path:
    return preferences().runs_folder.parent / "studies" / f"study-{datetime.datetime.now():%Y-%m-%d-%H%M%S}"
