"""Dock 3, Distil: make a better student. Four steps down the page; then curves, log, pause, stop, resume."""

from __future__ import annotations

import copy
import datetime
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from qtpy.QtWidgets import QComboBox, QFileDialog, QPlainTextEdit, QProgressBar, QVBoxLayout, QWidget

from napari_kdseg.errors import ConfigurationError, KdsegError, explain
from napari_kdseg.training import (
    AugmentationConfig,
    DataConfig,
    DistillConfig,
    NetworkChoice,
    OptimiserConfig,
)
from napari_kdseg.widgets.background import JobHandle, in_background
from napari_kdseg.widgets.form import SettingsForm
from napari_kdseg.widgets.models_dock import CHECKPOINT_PATTERNS, load_run
from napari_kdseg.widgets.parts import (
    Dock,
    Fold,
    Note,
    PathRow,
    button,
    clear,
    combo,
    last_folder,
    remember_folder,
    row,
)
from napari_kdseg.widgets.preferences import preferences

TEACHERS = (
    "unet/resnet34",
    "unet/resnet18",
    "unetplusplus/resnet34",
    "deeplabv3plus/resnet50",
    "segformer/mit_b2",
)
STUDENTS = ("enet", "unet/mobilenet_v2", "deeplabv3plus/mobilenet_v2", "segformer/mit_b0")
DATA_FIELDS = ("labels", "input_size", "validation_fraction", "test_fraction", "mpp", "limit")
RUN_FIELDS = (
    "teacher_epochs",
    "epochs",
    "batch_size",
    "sampling",
    "augment",
    "patience",
    "device",
    "precision",
    "seed",
    "deterministic",
)


class DistilDock(Dock):
    """Describe a distillation, start it in the background, and follow it."""

    def __init__(self, napari_viewer: Any):
        super().__init__(napari_viewer)
        self.job: JobHandle | None = None
        self.base: dict[str, Any] = {}
        self.problem = Note()
        self._build_data()
        self._build_networks()
        self._build_method()
        self._build_run()
        self._build_progress()
        self.column.addStretch(1)
        self.session.job_started.connect(self._on_job)
        self.session.annotation_changed.connect(lambda _source: self._offer_cutting())
        self._offer_cutting()
        if "distil" in self.session.jobs:
            self._on_job(self.session.jobs["distil"])

    # -- the four steps ----------------------------------------------------------------------------

    def _step(self, title: str) -> QVBoxLayout:
        section = Fold(title)
        self.column.addWidget(section)
        self.steps = [*getattr(self, "steps", []), section]
        return section.content

    def _build_data(self) -> None:
        step = self._step("1  Data")
        self.folder = PathRow("Folder with images/ and masks/", folder=True, remember="data")
        self.folder.chosen.connect(self.look_at_data)
        self.data_note = Note(
            "Images and masks are paired by name; a manifest.csv may give split, class and patient."
        )
        self.data_form = SettingsForm(DataConfig, only=DATA_FIELDS)
        self.cut = button(
            "Cut tiles from this slide", "Make a training folder from the annotated slide", self.cut_tiles
        )
        for widget in (self.folder, self.data_note, self.cut, self.data_form.native):
            step.addWidget(widget)

    def _build_networks(self) -> None:
        step = self._step("2  Teacher and student")
        self.networks: dict[str, tuple[QComboBox, PathRow]] = {}
        for role, names in (("teacher", TEACHERS), ("student", STUDENTS)):
            choice = combo(
                "Architecture and encoder, as in unet/resnet34; any of segmentation-models-pytorch, or enet",
                *names,
            )
            choice.setEditable(True)
            note = "trained here unless you give one" if role == "teacher" else "optional, to start from"
            path = PathRow(
                f"{role.capitalize()} checkpoint ({note})",
                patterns=CHECKPOINT_PATTERNS,
                remember="checkpoint",
            )
            self.networks[role] = (choice, path)
            step.addWidget(Note(role.capitalize()))
            step.addWidget(choice)
            step.addWidget(path)

    def _build_method(self) -> None:
        from napari_kdseg.distillation import method_names

        step = self._step("3  Method")
        self.method = combo(
            "How the student learns from the teacher; methods add up: type cwd+kd", *method_names()
        )
        self.method.setEditable(True)
        self.method.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.method_note = Note()
        self.advanced = Fold("Advanced: constants of the method", open=False)
        self.method_form: SettingsForm | None = None
        for widget in (self.method, self.method_note, self.advanced):
            step.addWidget(widget)
        self.method.currentTextChanged.connect(self._show_method)
        self._show_method(self.method.currentText())

    def _build_run(self) -> None:
        step = self._step("4  Run")
        self.output = PathRow("Run folder", folder=True, remember="run")
        self.output.set_path(self._fresh_folder())
        self.run_form = SettingsForm(DistillConfig, only=RUN_FIELDS)
        self.optimiser_form = SettingsForm(OptimiserConfig)
        self.augmentation_form = SettingsForm(AugmentationConfig)
        training = Fold("Advanced: optimiser and augmentation", open=False)
        for form in (self.optimiser_form, self.augmentation_form):
            training.content.addWidget(form.native)
        for widget in (self.output, self.run_form.native, training):
            step.addWidget(widget)
        self.start_button = button("Start", "Start the distillation in the background", self.start)
        self.resume_button = button("Resume…", "Go on with a run that was stopped", self._browse_run)
        self.column.addWidget(row(self.start_button, self.resume_button))
        self.column.addWidget(
            row(
                button("Save settings…", "As a JSON file that 'kdseg distill' runs unchanged", self._save),
                button("Load settings…", "From a JSON file", self._load),
            )
        )
        self.column.addWidget(self.problem)

    def _build_progress(self) -> None:
        from napari_kdseg.widgets.curves import Curves

        self.running = QWidget()
        layout = QVBoxLayout(self.running)
        layout.setContentsMargins(0, 0, 0, 0)
        self.state = Note()
        self.progress = QProgressBar()
        self.pause = button("Pause", "Wait after this batch", self.pause_or_resume)
        self.stop_button = button("Stop", "Stop after this batch; the run can be resumed", self.stop)
        self.controls = row(self.pause, self.stop_button)
        self.curves = Curves()
        self.log = QPlainTextEdit()
        self.log.setReadOnly(True)
        self.log.setMaximumBlockCount(1000)
        self.log.setMinimumHeight(110)
        self.use = button(
            "Use this student",
            "Load teacher, assistants and student of this run into 2 Models",
            self.use_student,
        )
        for widget in (self.state, self.progress, self.controls, self.use, self.curves, self.log):
            layout.addWidget(widget)
        self.running.hide()
        self.column.addWidget(self.running)

    # -- data --------------------------------------------------------------------------------------

    def look_at_data(self, folder: str) -> None:
        """Pair and count the tiles of ``folder`` off the GUI thread, and say what was found."""
        self.folder.set_path(folder)
        self.data_note.say("Looking at the tiles …")

        def work() -> str:
            from napari_kdseg.training.data import describe

            return describe(DataConfig(folder=Path(folder), **self.data_form.values()))

        in_background(work, self.data_note.say, self.data_note.warn)

    def _offer_cutting(self) -> None:
        self.cut.setVisible(self.session.slide is not None and self.session.annotation is not None)

    def cut_tiles(self) -> None:
        """Cut a training folder from the annotated slide, then look at it."""
        session = self.session
        slide, source = session.slide, session.annotation
        if slide is None or source is None:
            return
        folder = preferences().runs_folder.parent / "tiles" / f"{Path(slide.name).stem}-{_now()}"
        self.data_note.say("Cutting tiles …")

        def work() -> Path:
            from napari_kdseg.slides import open_annotation
            from napari_kdseg.training.patches import cut_tiles

            cut_tiles(slide, open_annotation(source, slide), folder)
            return folder

        in_background(work, lambda made: self.look_at_data(str(made)), self.data_note.warn)

    # -- method ------------------------------------------------------------------------------------

    def _show_method(self, name: str) -> None:
        from napari_kdseg.distillation import get_method

        try:
            method = get_method(name)
        except ConfigurationError as error:  # also half a name, while it is being typed
            self.method_note.warn(explain(error))
            return
        needs = f" Needs {', '.join(method.needs)}." if method.needs else ""
        self.method_note.say(f"{method.sentence}{needs}\n{method.equation}\n{method.reference}".rstrip())
        self.method_form = SettingsForm(method.settings_class)
        self.method_form.fill(method.settings().model_dump())
        clear(self.advanced.content)
        self.advanced.content.addWidget(self.method_form.native)

    # -- configuration -----------------------------------------------------------------------------

    def configuration(self) -> DistillConfig:
        """Build the configuration from the form.

        Raises
        ------
        pydantic.ValidationError
            If a field does not work; :func:`~napari_kdseg.errors.explain` puts it into words.
        """
        values = copy.deepcopy(self.base)  # what the form does not show stays as it was loaded
        values.update(self.run_form.values())
        values["data"] = {**values.get("data", {}), "folder": self.folder.path(), **self.data_form.values()}
        values["optimiser"] = self.optimiser_form.values()
        values["augmentation"] = self.augmentation_form.values()
        for role in self.networks:
            values[role] = self._network(role, values.get(role, {}))
        values["method"] = self.method.currentText()
        values["settings"] = self.method_form.values() if self.method_form else {}
        values["output"] = self.output.path()
        return DistillConfig.model_validate(values)

    def _network(self, role: str, before: dict[str, Any]) -> dict[str, Any]:
        choice, path = self.networks[role]
        if path.path():
            return {"checkpoint": path.path()}
        architecture = choice.currentText().strip()
        same = architecture == before.get("architecture")
        return {"architecture": architecture, "options": before.get("options", {}) if same else {}}

    def fill(self, config: DistillConfig) -> None:
        """Show ``config`` in the form."""
        values = config.model_dump()
        self.base = config.model_dump(mode="json")
        self.folder.set_path(config.data.folder)
        self.data_form.fill(values["data"])
        for role, (choice, path) in self.networks.items():
            network = getattr(config, role)
            path.set_path(network.checkpoint or "")
            if network.architecture:
                choice.setCurrentText(network.architecture)
        self.method.setCurrentText(config.method)
        if self.method_form is not None:
            self.method_form.fill(config.settings)
        self.optimiser_form.fill(values["optimiser"])
        self.augmentation_form.fill(values["augmentation"])
        self.run_form.fill(values)
        self.output.set_path(config.output)

    def _save(self) -> None:
        config = self._valid_configuration()
        if config is None:
            return
        path, _ = QFileDialog.getSaveFileName(
            self, "Save settings", last_folder("config") + "/distill.json", "JSON (*.json)"
        )
        if path:
            remember_folder("config", path)
            self._guarded(lambda: config.save(path))

    def _load(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Load settings", last_folder("config"), "JSON (*.json)")
        if path:
            remember_folder("config", path)
            self._guarded(lambda: self.fill(DistillConfig.load(path)))

    def _valid_configuration(self) -> DistillConfig | None:
        if not self.folder.path():
            self.problem.warn("Choose the folder of images and masks first (step 1).")
            return None
        try:
            return self.configuration()
        except ValidationError as error:
            self.problem.warn(explain(error))
            return None

    def _guarded(self, action: Any) -> None:
        self.problem.say("")
        try:
            action()
        except (KdsegError, ValidationError) as error:
            self.problem.warn(explain(error))

    # -- running -----------------------------------------------------------------------------------

    def start(self) -> JobHandle | None:
        """Start what the form describes."""
        self.problem.say("")
        config = self._valid_configuration()
        return None if config is None else self._launch(config)

    def resume(self, folder: str) -> JobHandle | None:
        """Go on with the run in ``folder`` from where it stopped."""
        self.problem.say("")
        try:
            config = DistillConfig.load(Path(folder) / "config.json")
        except KdsegError as error:
            self.problem.warn(explain(error))
            return None
        config.output = Path(folder)
        self.fill(config)
        return self._launch(config)

    def stop(self) -> None:
        """Ask the run to stop after this batch."""
        if self.job is not None:
            self.stop_button.setText("Stopping…")
            self.stop_button.setEnabled(False)
            self.job.cancel()

    def pause_or_resume(self) -> None:
        """Pause a working run, wake a paused one."""
        if self.job is not None:
            self.job.pause_or_resume()

    def _launch(self, config: DistillConfig) -> JobHandle | None:
        title = f"{config.method} of {_network(config.student)}"
        return self.session.start("distil", title, "napari_kdseg.training:distill", config)

    def _browse_run(self) -> None:
        folder = QFileDialog.getExistingDirectory(
            self, "Run folder to resume", str(preferences().runs_folder)
        )
        if folder:
            self.resume(folder)

    def _fresh_folder(self) -> Path:
        return preferences().runs_folder / f"run-{_now()}"

    # -- following ---------------------------------------------------------------------------------

    def _on_job(self, job: JobHandle) -> None:
        if job.kind != "distil":
            return
        self.job = job
        self.curves.clear()
        self.log.clear()
        self.running.show()
        self.use.hide()
        for section in self.steps:
            section.open(False)
        self._set_running(job.alive)
        self.state.say("Preparing …")
        self.progress.setRange(0, 0)
        job.events.connect(self._on_events)
        job.ended.connect(self._on_end)
        self._refill(job)
        self._on_events(job.history)
        if not job.alive:
            self._on_end(job.running.end)

    def _refill(self, job: JobHandle) -> None:
        """Draw the curve of the steps before this job was started, when it resumes a run."""
        from napari_kdseg.training.run_folder import read_history

        in_background(partial(read_history, job.config.output), self.curves.take, lambda _sentence: None)

    def _set_running(self, running: bool) -> None:
        self.start_button.setEnabled(not running)
        self.resume_button.setEnabled(not running)
        self.controls.setVisible(running)
        self.progress.setVisible(running)
        self.pause.setText("Pause")
        self.stop_button.setText("Stop")
        self.stop_button.setEnabled(True)

    def _on_events(self, events: list[Any]) -> None:
        from napari_kdseg.jobs import Message, Paused, Resumed, Validated

        self.curves.take(events)
        for event in events:
            if isinstance(event, Message):
                self.log.appendPlainText(event.text)
            elif isinstance(event, Validated):
                scores = ", ".join(f"{name} {value:.3f}" for name, value in event.metrics.items())
                self.log.appendPlainText(
                    f"{event.stage.replace('_', ' ')}, epoch {event.epoch}/{event.epochs}: {scores}"
                )
            elif isinstance(event, Paused | Resumed):
                self.pause.setText("Resume" if isinstance(event, Paused) else "Pause")
        step = self.job.latest if self.job else None
        if step is not None:
            self.progress.setRange(0, step.total)
            self.progress.setValue(step.done)
            terms = ", ".join(f"{name} {value:.3g}" for name, value in step.values.items() if name != "lr")
            self.state.say(f"{step.stage.replace('_', ' ')}, step {step.done} of {step.total}: {terms}")

    def _on_end(self, end: Any) -> None:
        from napari_kdseg.jobs import Cancelled, Failed

        self._set_running(False)
        if isinstance(end, Failed):
            self.state.warn(end.message)
            self.log.appendPlainText(end.details)
        elif isinstance(end, Cancelled):
            self.state.say("Stopped. Everything so far is kept; Resume goes on from here.")
        else:
            self.state.say(f"Done. {_result(end.result)}")
            self.use.show()
            self.output.set_path(self._fresh_folder())

    def use_student(self) -> None:
        """Load the networks of the finished run into the Models dock."""
        if self.job is not None:
            load_run(self.session, Path(self.job.config.output), self.problem.warn)


def _now() -> str:
    return datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")


def _network(choice: NetworkChoice) -> str:
    return choice.architecture or Path(str(choice.checkpoint)).stem


def _result(result: Any) -> str:
    scores = [
        f"{role.replace('_', ' ')} Dice {metrics['val_dice']:.3f}"
        for role, metrics in result.metrics.items()
        if "val_dice" in metrics
    ]
    return "On the validation set: " + ", ".join(scores) + "." if scores else ""
