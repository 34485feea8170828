"""One network of the team: its checkpoint, what its header says, and the buttons that put it to work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils.notifications import show_warning
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QVBoxLayout

from napari_kdseg.errors import CodeNotAllowedError, WeightsOnlyError
from napari_kdseg.jobs import Done, Failed, Message, Terminal
from napari_kdseg.widgets.models_dock.prediction_row import PredictionRow
from napari_kdseg.widgets.parts.controls import button, clear, heading, row, swatch
from napari_kdseg.widgets.parts.export_model_box import ExportModelBox
from napari_kdseg.widgets.parts.network_questions import AllowCodeQuestion, WeightsQuestion
from napari_kdseg.widgets.parts.note import Note
from napari_kdseg.widgets.parts.path_row import PathRow
from napari_kdseg.widgets.parts.wording import duration
from napari_kdseg.widgets.state.background import in_background
from napari_kdseg.widgets.state.loaded_models import (
    CHECKPOINT_PATTERNS,
    ROLE_TITLES,
    LoadedModel,
    adopt_weights,
    describe,
    read_model,
)
from napari_kdseg.widgets.state.preferences import allow_preferred_code, preferences
from napari_kdseg.widgets.state.session import Session
from napari_kdseg.widgets.state.team import misfit

if TYPE_CHECKING:
    from napari_kdseg.inference.running.planning import Plan
    from napari_kdseg.networks import NetworkSpec

#: Networks that segment slides; the assistants only correct.
SHOWN = ("teacher", "student")


class NetworkCard(QFrame):
    """A card.

    Signals
    -------
    wanted(str, bool)
        This role is to segment what is on screen, or the whole slide.
    """

    wanted = Signal(str, bool)

    def __init__(self, session: Session, role: str):
        super().__init__()
        self.session, self.role = session, role
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.column = QVBoxLayout(self)
        self.column.setContentsMargins(8, 4, 8, 6)
        self.column.setSpacing(4)
        self.column.addWidget(heading(ROLE_TITLES[role] + ("" if role in SHOWN else " (optional)")))
        self.path = PathRow(
            "Checkpoint (.safetensors, .pt, .onnx)", patterns=CHECKPOINT_PATTERNS, remember="checkpoint"
        )
        self.path.chosen.connect(self._load)
        self.column.addWidget(self.path)
        self.facts = Note()
        self.column.addWidget(self.facts)
        self.readiness = Note()
        self.column.addWidget(self.readiness)
        self.legend = QHBoxLayout()
        self.column.addLayout(self.legend)
        self.problem = Note()
        self.column.addWidget(self.problem)
        self.question = AllowCodeQuestion()
        self.weights = WeightsQuestion()
        self.column.addWidget(self.question)
        self.column.addWidget(self.weights)
        if role in SHOWN:
            self._build_actions()
            self.export = ExportModelBox(session)
            self.column.addWidget(self.export)

    def _build_actions(self) -> None:
        self.here = button(
            "Show here", "Segment what is on screen now", lambda: self.wanted.emit(self.role, False)
        )
        self.whole = button(
            "Show on whole slide",
            "Segment the whole slide where it has tissue: what is on screen first, also when you move on",
            lambda: self.wanted.emit(self.role, True),
        )
        self.actions = row(self.here, self.whole)
        self.column.addWidget(self.actions)
        self.running = PredictionRow(self.session, self.role)
        self.running.said.connect(self._on_message)
        self.running.ended.connect(self._on_end)
        self.column.addWidget(self.running)

    def _load(self, path: str, notes: tuple[str, ...] = ()) -> None:
        self.problem.say("")
        self.question.hide()
        self.weights.hide()
        self.facts.say(f"Reading {Path(path).name} …")
        allow_preferred_code()

        def failed(sentence: str) -> None:
            self.show_model()
            self.problem.warn(sentence)

        def read() -> LoadedModel | CodeNotAllowedError | WeightsOnlyError:
            try:
                return read_model(Path(path))
            except (CodeNotAllowedError, WeightsOnlyError) as question:
                return question

        def loaded(model: LoadedModel | CodeNotAllowedError | WeightsOnlyError) -> None:
            if not isinstance(model, LoadedModel):
                self._ask(path, model)
                return
            self.session.set_model(self.role, replace(model, notes=(*notes, *model.notes)))
            sentence = misfit(self.session, self.role, model)
            if sentence:
                show_warning(sentence)

        in_background(read, loaded, failed)

    def _ask(self, path: str, about: CodeNotAllowedError | WeightsOnlyError) -> None:
        """Ask what only a person can say: that code may be run, or what weights belong to."""
        self.show_model()
        self.path.set_path(path)
        if isinstance(about, CodeNotAllowedError):
            self.question.ask([about.code], lambda: self._load(path))
        else:
            self.weights.ask(Path(path), lambda spec: self._adopt(Path(path), spec))

    def _adopt(self, path: Path, spec: NetworkSpec) -> None:
        self.weights.say("Reading the weights …")
        folder = preferences().networks_folder

        def adopted(result: tuple[Path, tuple[str, ...]]) -> None:
            kept, notes = result
            self.path.set_path(kept)
            self._load(str(kept), notes)

        in_background(lambda: adopt_weights(path, spec, folder), adopted, self.weights.warn)

    def show_model(self) -> None:
        """Show the model of this card's role as the session has it now."""
        model = self.session.models.get(self.role)
        self.problem.say("")
        self.readiness.say("")
        self.facts.say(describe(model) if model else "")
        self._show_classes(model)
        if model is not None:
            self.path.set_path(model.path)
            self.problem.warn(misfit(self.session, self.role, model))
        if self.role in SHOWN:
            ready = model is not None and self.session.slide is not None
            self.actions.setVisible(model is not None)
            self.export.show_checkpoint(None if model is None else model.path)
            self.here.setEnabled(ready)
            self.whole.setEnabled(ready)

    def _show_classes(self, model: LoadedModel | None) -> None:
        from napari_kdseg.widgets.layers.colours import class_colour

        clear(self.legend)
        if model is not None:
            for index, name in list(enumerate(model.spec.classes))[1:8]:
                self.legend.addWidget(swatch(class_colour(index, model.spec.colours)))
                self.legend.addWidget(QLabel(name))
            self.legend.addStretch(1)

    def show_plan(self, plan: Plan, seconds: float | None = None) -> None:
        """Show how the network is run on this slide, and what the whole of it would take."""
        takes = "" if seconds is None else f"About {duration(seconds)} for this slide. "
        how = "Tiles blended" if plan.context.blended else f"Context {plan.context.halo} px"
        self.readiness.say(f"{takes}{how}, tiles {plan.tile} px, {plan.arithmetic}.")
        self.readiness.setToolTip(plan.describe())

    def _on_message(self, message: Message) -> None:
        (self.problem.warn if message.level == "warning" else self.readiness.say)(message.text)

    def _on_end(self, end: Terminal) -> None:
        if isinstance(end, Failed):
            self.problem.warn(end.message)
        elif isinstance(end, Done):
            self.show_plan(end.result.masks[self.role].plan)
