"""Dock 2, Models, answers: who segments it. A card each for teacher, assistants and student."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_warning
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QProgressBar, QVBoxLayout

from napari_kdseg.widgets.background import JobHandle, in_background
from napari_kdseg.widgets.parts import (
    Dock,
    Note,
    PathRow,
    button,
    clear,
    combo,
    duration,
    heading,
    row,
    swatch,
)
from napari_kdseg.widgets.session import ROLE_TITLES, ROLES, LoadedModel, Session, given_mpp

CHECKPOINT_PATTERNS = "Checkpoints (*.safetensors *.pt *.pth);;All files (*)"
SHOWN = ("teacher", "student")
REFRESH_SECONDS = 0.5


class ModelsDock(Dock):
    """Load the networks and let them segment what is on screen or the whole slide."""

    def __init__(self, napari_viewer: Any):
        super().__init__(napari_viewer)
        self.hint = Note()
        self.column.addWidget(self.hint)
        self.run = PathRow("Run folder of a distillation", folder=True, remember="run")
        self.run.chosen.connect(lambda path: load_run(self.session, Path(path), self.hint.warn))
        self.column.addWidget(self.run)
        self.cards = {role: ModelCard(self, role) for role in ROLES}
        for card in self.cards.values():
            self.column.addWidget(card)
        self.column.addWidget(heading("Compute on"))
        self.device = combo("auto takes a CUDA GPU when there is one, else the CPU", "auto", "cpu", "cuda")
        self.precision = combo(
            "bfloat16 is faster where the hardware has it; auto decides", "auto", "float32", "bfloat16"
        )
        self.column.addWidget(row(self.device, self.precision))
        self.column.addStretch(1)
        self.session.models_changed.connect(self._on_models)
        self.session.slide_changed.connect(lambda _slide: self._on_models())
        self.session.job_started.connect(self._on_job)
        for job in self.session.jobs.values():
            self._on_job(job)
        self._on_models()

    def _on_models(self, _role: str = "") -> None:
        for card in self.cards.values():
            card.show_model()
        if not self.session.models:
            self.hint.say("Give a run folder to load its whole team, or drop a checkpoint on a card.")
        elif self.session.slide is None:
            self.hint.say("Open a slide to see what they make of it.")
        else:
            self.hint.say("")

    def _on_job(self, handle: JobHandle) -> None:
        card = self.cards.get(handle.kind)
        if card is not None:
            card.follow(handle)


class ModelCard(QFrame):
    """One network: its checkpoint, what its header says, and the buttons that put it to work."""

    def __init__(self, dock: ModelsDock, role: str):
        super().__init__()
        self.dock, self.role, self.session = dock, role, dock.session
        self.job: JobHandle | None = None
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.column = QVBoxLayout(self)
        self.column.setContentsMargins(8, 4, 8, 6)
        self.column.setSpacing(4)
        self.column.addWidget(heading(ROLE_TITLES[role] + ("" if role in SHOWN else " (optional)")))
        self.path = PathRow(
            "Checkpoint (.safetensors, .pt)", patterns=CHECKPOINT_PATTERNS, remember="checkpoint"
        )
        self.path.chosen.connect(self._load)
        self.column.addWidget(self.path)
        self.facts = Note()
        self.column.addWidget(self.facts)
        self.legend = QHBoxLayout()
        self.column.addLayout(self.legend)
        self.problem = Note()
        self.column.addWidget(self.problem)
        if role in SHOWN:
            self._build_actions()

    def _build_actions(self) -> None:
        self.here = button("Show here", "Segment what is on screen now", lambda: self.predict(whole=False))
        self.whole = button(
            "Show on whole slide",
            "Segment the whole slide, what has tissue",
            lambda: self.predict(whole=True),
        )
        self.actions = row(self.here, self.whole)
        self.column.addWidget(self.actions)
        self.progress = QProgressBar()
        self.progress.setTextVisible(True)
        self.cancel = button("Cancel", "Stop after this tile; what is done stays", self._cancel)
        self.progress_row = row(self.progress, self.cancel, stretch=0)
        self.progress_row.hide()
        self.column.addWidget(self.progress_row)

    # -- the checkpoint ----------------------------------------------------------------------------

    def _load(self, path: str) -> None:
        self.problem.say("")
        self.facts.say(f"Reading {Path(path).name} …")

        def failed(sentence: str) -> None:
            self.show_model()
            self.problem.warn(sentence)

        def loaded(model: LoadedModel) -> None:
            self.session.set_model(self.role, model)
            sentence = misfit(self.session, self.role, model)
            if sentence:
                show_warning(sentence)

        in_background(lambda: read_model(Path(path)), loaded, failed)

    def show_model(self) -> None:
        """Show the model of this card's role as the session has it now."""
        model = self.session.models.get(self.role)
        self.problem.say("")
        self.facts.say(describe(model) if model else "")
        self._show_classes(model)
        if model is not None:
            self.path.set_path(model.path)
            self.problem.warn(misfit(self.session, self.role, model))
        if self.role in SHOWN:
            ready = model is not None and self.session.slide is not None
            self.actions.setVisible(model is not None)
            self.here.setEnabled(ready)
            self.whole.setEnabled(ready)

    def _show_classes(self, model: LoadedModel | None) -> None:
        from napari_kdseg.widgets.colours import class_colour

        clear(self.legend)
        if model is not None:
            for index, name in list(enumerate(model.spec.classes))[1:8]:
                self.legend.addWidget(swatch(class_colour(index, model.spec.colours)))
                self.legend.addWidget(QLabel(name))
            self.legend.addStretch(1)

    # -- predicting --------------------------------------------------------------------------------

    def predict(self, *, whole: bool) -> JobHandle | None:
        """Start the prediction of what is on screen, or of the whole slide."""
        from napari_kdseg.inference import PredictConfig
        from napari_kdseg.widgets.layers import visible_region

        slide, model, output = (
            self.session.slide,
            self.session.models.get(self.role),
            self.session.masks_path(),
        )
        if slide is None or model is None:
            return None
        if output is None:
            self.problem.warn("The slide is still being identified; try again in a moment.")
            return None
        region = None if whole else visible_region(self.dock.viewer, slide)
        if region is not None and min(region[2:]) <= 0:
            self.problem.warn("The slide is not on screen. Press Home to see it.")
            return None
        config = PredictConfig(
            slide=str(slide.path),
            slide_mpp=given_mpp(slide),
            colours=self.session.network_colours,
            networks={self.role: model.path},
            output=output,
            region=region,
            device=self.dock.device.currentText(),
            precision=self.dock.precision.currentText(),
        )
        title = f"{ROLE_TITLES[self.role]} on {slide.name}"
        return self.session.start(self.role, title, "napari_kdseg.inference:predict", config)

    def follow(self, job: JobHandle) -> None:
        """Show the progress of a prediction of this card."""
        self.job = job
        self.started = self.shown = time.monotonic()
        self.problem.say("")
        self.progress.setRange(0, 0)
        self.progress.setFormat("loading the network …")
        self.cancel.setText("Cancel")
        self.cancel.setEnabled(True)
        self.progress_row.setVisible(job.alive)
        self.here.setEnabled(not job.alive)
        self.whole.setEnabled(not job.alive)
        job.events.connect(self._on_events)
        job.ended.connect(self._on_end)

    def _on_events(self, events: list[Any]) -> None:
        from napari_kdseg.jobs import Message

        for event in events:
            if isinstance(event, Message):
                self.problem.say(event.text)
        step = self.job.latest if self.job else None
        if step is None:
            return
        left = (time.monotonic() - self.started) / max(step.done, 1) * (step.total - step.done)
        speed = step.values.get("mpx_per_s", 0.0)
        self.progress.setRange(0, step.total)
        self.progress.setValue(step.done)
        self.progress.setFormat(
            f"{step.done} of {step.total} tiles, {speed:.1f} Mpx/s, {duration(left)} left"
        )
        if time.monotonic() - self.shown > REFRESH_SECONDS:
            self._show_masks()

    def _on_end(self, end: Any) -> None:
        from napari_kdseg.jobs import Failed

        self.progress_row.hide()
        self.show_model()
        if self.job is not None and self.session.offer_replacing(self.job, end, self):
            return
        if isinstance(end, Failed):
            self.problem.warn(end.message)
        self._show_masks()

    def _show_masks(self) -> None:
        self.shown = time.monotonic()
        self.session.refresh_masks()

    def _cancel(self) -> None:
        if self.job is not None:
            self.cancel.setText("Cancelling…")
            self.cancel.setEnabled(False)
            self.job.cancel()


def read_model(path: Path) -> LoadedModel:
    """Read the header of a checkpoint and count its parameters (off the GUI thread)."""
    from napari_kdseg.networks import count_parameters, load

    checkpoint = load(path)
    return LoadedModel(path, checkpoint.spec, count_parameters(checkpoint.module))


def load_run(session: Session, folder: Path, on_failed: Any = None) -> None:
    """Load every network of a run folder into its card."""

    def work() -> dict[str, LoadedModel]:
        from napari_kdseg.errors import CheckpointError

        found = {role: folder / "checkpoints" / f"{role}.safetensors" for role in ROLES}
        models = {role: read_model(path) for role, path in found.items() if path.is_file()}
        if not models:
            raise CheckpointError(
                f"{folder.name} holds no checkpoints. A run folder has a folder 'checkpoints' with "
                "teacher.safetensors in it."
            )
        return models

    def show(models: dict[str, LoadedModel]) -> None:
        for role, model in models.items():
            session.set_model(role, model)

    in_background(work, show, on_failed)


def describe(model: LoadedModel) -> str:
    """The facts of a network in one or two lines."""
    spec = model.spec
    mpp = f"trained at {spec.mpp:g} µm per pixel" if spec.mpp else "no training scale recorded"
    scores = [f"validation Dice {spec.metrics['val_dice']:.3f}"] if "val_dice" in spec.metrics else []
    return ", ".join([spec.architecture, f"{model.parameters / 1e6:.2f} M parameters", mpp, *scores])


def misfit(session: Session, role: str, model: LoadedModel) -> str:
    """What of this card does not fit the other cards or the slide, with the mend; empty when all fits."""
    for other_role, other in session.models.items():
        if other_role != role and len(other.spec.classes) != len(model.spec.classes):
            return (
                f"This checkpoint has {len(model.spec.classes)} classes, the {ROLE_TITLES[other_role].lower()} "
                f"card has {len(other.spec.classes)}. Choose another checkpoint for one of them."
            )
    slide = session.slide
    if slide is not None and not slide.brightfield and model.spec.in_channels == 3:
        return (
            "This network sees the three colours of a stained slide, but the slide is fluorescence. What it makes of "
            "it means nothing unless it was trained on such slides."
        )
    if slide is not None and slide.mpp is None and model.spec.mpp:
        return "The slide has no scale, so this network runs at level 0. Give the scale under 1 Slide to change that."
    if slide is not None and slide.mpp and not model.spec.mpp:
        return "This network does not say at which scale it was trained, so it runs at level 0."
    return ""
