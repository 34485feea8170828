"""Dock 3, Distil: make a better student. Four steps down the page; then curves, log, pause, stop, resume."""

from __future__ import annotations

import copy
import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from qtpy.QtWidgets import QComboBox, QFileDialog, QVBoxLayout

from napari_kdseg.errors import ConfigurationError, KdsegError, explain
from napari_kdseg.inference import CostConfig, Subject
from napari_kdseg.jobs import Done, Terminal
from napari_kdseg.training import (
    AugmentationConfig,
    DataConfig,
    DistillConfig,
    NetworkChoice,
    OptimiserConfig,
    resume_config,
)
from napari_kdseg.widgets.distil_dock.network_rows import NetworkRows
from napari_kdseg.widgets.distil_dock.study_box import StudyBox
from napari_kdseg.widgets.parts.controls import button, clear, combo, row
from napari_kdseg.widgets.parts.cost_box import CostBox
from napari_kdseg.widgets.parts.dock import Dock
from napari_kdseg.widgets.parts.export_model_box import ExportModelBox
from napari_kdseg.widgets.parts.fold import Fold
from napari_kdseg.widgets.parts.form import SettingsForm
from napari_kdseg.widgets.parts.network_questions import AllowCodeQuestion
from napari_kdseg.widgets.parts.note import Note
from napari_kdseg.widgets.parts.path_row import PathRow
from napari_kdseg.widgets.state.background import in_background, wait_for
from napari_kdseg.widgets.state.job_handle import JobHandle
from napari_kdseg.widgets.state.loaded_models import code_to_allow
from napari_kdseg.widgets.state.preferences import allow_preferred_code, preferences
from napari_kdseg.widgets.state.remembered import last_folder, remember_folder
from napari_kdseg.widgets.state.team import load_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.viewer import Viewer

DATA_FIELDS = ("labels", "value_255", "input_size", "validation_fraction", "test_fraction", "mpp", "limit")
RUN_FIELDS = (
    "teacher_epochs",
    "epochs",
    "batch_size",
    "sampling",
    "weigh_classes",
    "augment",
    "patience",
    "remember_teacher",
    "previews",
    "device",
    "precision",
    "seed",
    "deterministic",
)


class DistilDock(Dock):
    """Describe a distillation, start it in the background, and follow it."""

    def __init__(self, napari_viewer: Viewer):
        super().__init__(napari_viewer)
        self.base: dict[str, Any] = {}
        self.problem = Note()
        self._build_data()
        self._build_networks()
        self._build_method()
        self._build_run()
        self._build_progress()
        self.column.addStretch(1)
        self.session.job_started.connect(self._on_job)
        self.session.annotation_changed.connect(self._offer_cutting)
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
        self.networks = NetworkRows()
        self.cost = CostBox(self.session)
        step.addWidget(self.networks)
        step.addWidget(self.cost)
        for choice in (self.networks.teacher, self.networks.student):
            choice.changed.connect(self._show_cost)
        self._show_cost()

    def _show_cost(self) -> None:
        """Have teacher and student measured and shown beside each other, unless a run needs the machine."""
        networks = {}
        for role, choice in (("teacher", self.networks.teacher), ("student", self.networks.student)):
            try:
                values = choice.values()
            except KdsegError:  # options that are not written out yet; starting says what is wrong with them
                continue
            name = str(values.get("checkpoint") or values["architecture"])
            if name:
                networks[role] = Subject(network=name, options=values.get("options", {}))
        running = "distil" in self.session.jobs and self.session.jobs["distil"].alive
        self.cost.want(CostConfig(networks=networks) if len(networks) == 2 and not running else None)

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
        self.question = AllowCodeQuestion()
        self.column.addWidget(self.question)
        self.study = StudyBox(self.session)
        self.study.asked.connect(self.compare)
        self.column.addWidget(self.study)

    def _build_progress(self) -> None:
        from napari_kdseg.widgets.distil_dock.run_progress import RunProgress

        self.run_progress = RunProgress()
        self.run_progress.running_changed.connect(self._on_running)
        self.run_progress.wanted.connect(self.use_student)
        self.column.addWidget(self.run_progress)
        self.export = ExportModelBox(self.session)
        self.export.show_checkpoint(None)
        self.column.addWidget(self.export)

    # -- data --------------------------------------------------------------------------------------

    def look_at_data(self, folder: str) -> None:
        """Pair and count the tiles of ``folder`` off the GUI thread, and say what was found."""
        self.folder.set_path(folder)
        self.data_note.say("Looking at the tiles …")

        def work() -> str:
            from napari_kdseg.training.tiles.data import describe

            return describe(DataConfig(folder=Path(folder), **self.data_form.values()))

        in_background(work, self.data_note.say, self.data_note.warn)

    def _offer_cutting(self, _source: str | None = None) -> None:
        self.cut.setVisible(self.session.slide is not None and self.session.annotation is not None)

    def cut_tiles(self) -> None:
        """Cut a training folder from the annotated slide, then look at it."""
        session = self.session
        slide, source, colours = session.slide, session.annotation, session.network_colours
        bounds = session.annotation_bounds
        if slide is None or source is None:
            return
        folder = preferences().runs_folder.parent / "tiles" / f"{Path(slide.name).stem}-{_now()}"
        self.data_note.say("Cutting tiles …")

        def work() -> Path:
            from napari_kdseg.slides import open_annotation, with_colours
            from napari_kdseg.training.tiles.patches import cut_tiles

            annotation = open_annotation(source, slide, bounds=bounds)
            cut_tiles(with_colours(slide, colours), annotation, folder)
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
        pydantic.ValidationError, KdsegError
            If a field does not work; :func:`~napari_kdseg.errors.explain` puts it into words.
        """
        values = copy.deepcopy(self.base)  # what the form does not show stays as it was loaded
        values.update(self.run_form.values())
        values["data"] = {**values.get("data", {}), "folder": self.folder.path(), **self.data_form.values()}
        values["optimiser"] = self.optimiser_form.values()
        values["augmentation"] = self.augmentation_form.values()
        values.update(self.networks.values())
        values["method"] = self.method.currentText()
        values["settings"] = self.method_form.values() if self.method_form else {}
        values["output"] = self.output.path()
        return DistillConfig.model_validate(values)

    def fill(self, config: DistillConfig) -> None:
        """Show ``config`` in the form."""
        values = config.model_dump()
        self.base = config.model_dump(mode="json")
        self.folder.set_path(config.data.folder)
        self.data_form.fill(values["data"])
        self.networks.fill(config.teacher, config.student, config.more_teachers)
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
            self._guarded(lambda: wait_for(lambda: config.save(path)))

    def _load(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Load settings", last_folder("config"), "JSON (*.json)")
        if path:
            remember_folder("config", path)
            self._guarded(lambda: self.fill(wait_for(lambda: DistillConfig.load(path))))

    def _valid_configuration(self) -> DistillConfig | None:
        if not self.folder.path():
            self.problem.warn("Choose the folder of images and masks first (step 1).")
            return None
        try:
            return self.configuration()
        except (KdsegError, ValidationError) as error:
            self.problem.warn(explain(error))
            return None

    def _guarded(self, action: Callable[[], object]) -> None:
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

    def compare(self) -> JobHandle | None:
        """Start a study of several methods with the data and networks of the form."""
        self.problem.say("")
        config = self._valid_configuration()
        return None if config is None else self.study.start(config)

    def resume(self, folder: str) -> JobHandle | None:
        """Go on with the run in ``folder`` from where it stopped."""
        self.problem.say("")
        try:
            config = wait_for(lambda: resume_config(folder))
        except KdsegError as error:
            self.problem.warn(explain(error))
            return None
        self.fill(config)
        return self._launch(config)

    def _launch(self, config: DistillConfig) -> JobHandle | None:
        allow_preferred_code()
        self.question.hide()
        if needed := wait_for(lambda: code_to_allow([*config.teachers.values(), config.student])):
            self.question.ask(needed, lambda: self._launch(config))
            return None
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

    # -- the run -----------------------------------------------------------------------------------

    def _on_job(self, job: JobHandle) -> None:
        if job.kind != "distil":
            return
        for section in self.steps:
            section.open(False)
        self.cost.stop()
        self.export.show_checkpoint(None)
        self.run_progress.follow(job)
        job.ended.connect(self._on_end)

    def _on_running(self, running: bool) -> None:
        self.start_button.setEnabled(not running)
        self.resume_button.setEnabled(not running)

    def _on_end(self, end: Terminal) -> None:
        if isinstance(end, Done):
            self.output.set_path(self._fresh_folder())
            self.export.show_checkpoint(end.result.checkpoints.get("student"))

    def use_student(self) -> None:
        """Load the networks of the finished run into the Models dock."""
        if self.run_progress.job is not None:
            load_run(self.session, Path(self.run_progress.job.config.output), self.problem.warn)


def _now() -> str:
    return datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")


def _network(choice: NetworkChoice) -> str:
    return choice.architecture or Path(str(choice.checkpoint)).stem
