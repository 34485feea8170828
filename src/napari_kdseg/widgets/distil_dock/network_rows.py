"""Which networks a distillation is about: teacher, student, and further teachers."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QLineEdit, QVBoxLayout, QWidget

from napari_kdseg.errors import KdsegError
from napari_kdseg.networks import recommended_networks
from napari_kdseg.networks.checkpoints.formats import read_spec, resolve
from napari_kdseg.networks.foreign.foundation import encoder_of
from napari_kdseg.networks.options import read_options, write_options
from napari_kdseg.networks.recommended import COST_SIDE
from napari_kdseg.training import NetworkChoice
from napari_kdseg.widgets.parts.controls import button, clear, combo
from napari_kdseg.widgets.parts.fold import Fold
from napari_kdseg.widgets.parts.form import SettingsForm
from napari_kdseg.widgets.parts.note import Note
from napari_kdseg.widgets.parts.path_row import PathRow
from napari_kdseg.widgets.state.background import wait_for
from napari_kdseg.widgets.state.loaded_models import CHECKPOINT_PATTERNS

_LISTED = {choice.name: choice for choice in recommended_networks()}
_ENCODERS = ("foundation/uni", "foundation/uni2-h", "foundation/virchow2", "foundation/h-optimus-0")


def _offered(first: str, role: str) -> tuple[str, ...]:
    """Names for a role; the first one is what the list begins with."""
    return (first, *(name for name, choice in _LISTED.items() if choice.role == role and name != first))


TEACHERS = (*_offered("unet/resnet18", "teacher"), *_ENCODERS)
STUDENTS = _offered("enet", "student")


class NetworkRow(QWidget):
    """One network: an architecture, or a checkpoint; and the input size, if it is not that of the data.

    Signals
    -------
    changed()
        Another network was named.
    """

    changed = Signal()

    def __init__(self, title: str, offered: tuple[str, ...], note: str):
        super().__init__()
        self.architecture = combo(
            "A network of the papers, such as enet or transunet; architecture/encoder of segmentation-models-pytorch, "
            "any of them, as in unet/resnet34; a class of your own as python:mypackage.models:MyNet; a foundation "
            "encoder, which teaches features: foundation/uni",
            *offered,
        )
        self.architecture.setEditable(True)
        self.architecture.setMaxVisibleItems(len(offered))
        for index, name in enumerate(offered):
            self.architecture.setItemData(index, _about(name), Qt.ItemDataRole.ToolTipRole)
        self.checkpoint = PathRow(
            f"{title} checkpoint ({note})", patterns=CHECKPOINT_PATTERNS, remember="checkpoint"
        )
        self.encoder_weights = PathRow(
            "Pretrained weights of the encoder (optional)",
            patterns=CHECKPOINT_PATTERNS,
            remember="checkpoint",
        )
        self.options = QLineEdit()
        self.options.setPlaceholderText("Options of the architecture, as in width=32; depth=4")
        self.options.setToolTip("What its class or function takes beside channels and classes")
        self.form = SettingsForm(NetworkChoice, only=("input_size", "new_head"))
        self.form.widgets["input_size"].native.setPlaceholderText("as the data")
        self._kept: dict[str, Any] = {}
        self._looked_at: dict[str, bool] = {}
        self.architecture.currentTextChanged.connect(lambda _name: self.changed.emit())
        self.checkpoint.edit.textChanged.connect(lambda _path: self.changed.emit())
        self.options.editingFinished.connect(self.changed)
        self.beside = Fold("Options and pretrained encoder", open=False)
        for widget in (self.options, self.encoder_weights):
            self.beside.content.addWidget(widget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (
            Note(title),
            self.architecture,
            self.checkpoint,
            self.form.native,
            self.beside,
        ):
            layout.addWidget(widget)

    def values(self) -> dict[str, Any]:
        """Say what :class:`NetworkChoice` is made of."""
        values = {**self._kept, **self.form.values()}
        checkpoint = self.checkpoint.path()
        if checkpoint:
            values["checkpoint"] = checkpoint
            if not self._weights_only(checkpoint):
                return values
        elif self.encoder_weights.path():
            values["encoder_weights"] = self.encoder_weights.path()
        name = self.architecture.currentText().strip()
        typed = [option for option in self.options.text().split(";") if option.strip()]
        return {"architecture": name, "options": read_options(typed), **values}

    def _weights_only(self, checkpoint: str) -> bool:
        """Whether a file does not say what it is, so that the architecture chosen above says it; reads its header."""
        if checkpoint not in self._looked_at:
            try:
                self._looked_at[checkpoint] = wait_for(lambda: read_spec(resolve(checkpoint)) is None)
            except KdsegError:  # the run says what is wrong with it
                return False
        return self._looked_at[checkpoint]

    def fill(self, choice: NetworkChoice) -> None:
        """Show ``choice``."""
        self.checkpoint.set_path(choice.checkpoint or "")
        self.encoder_weights.set_path(choice.encoder_weights or "")
        self._kept = choice.model_dump(include={"mean", "std", "multiple"}, exclude_none=True)
        self.form.fill(choice.model_dump())
        self.options.setText(write_options(choice.options))
        self.beside.open(bool(choice.options or choice.encoder_weights))
        if choice.architecture:
            self.architecture.setCurrentText(choice.architecture)


class NetworkRows(QWidget):
    """Teacher, student, and as many further teachers as are added."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = NetworkRow("Teacher", TEACHERS, "trained here unless you give one")
        self.student = NetworkRow("Student", STUDENTS, "optional, to start from")
        self.further = Fold("Further teachers", open=False)
        self.more = QVBoxLayout()
        self.further.content.addWidget(
            Note("A method learns from the second teacher where its name says so, as in kd+cwd@2.")
        )
        self.further.content.addLayout(self.more)
        self.further.content.addWidget(
            button("Add a teacher", "One more network for methods to learn from", self._add)
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.teacher, self.student, self.further):
            layout.addWidget(widget)

    @property
    def rows(self) -> list[NetworkRow]:
        """Further teachers, from the second on."""
        return [self.more.itemAt(index).widget() for index in range(self.more.count())]

    def values(self) -> dict[str, Any]:
        """Fields of :class:`~napari_kdseg.training.DistillConfig`."""
        return {
            "teacher": self.teacher.values(),
            "student": self.student.values(),
            "more_teachers": [row.values() for row in self.rows],
        }

    def fill(
        self, teacher: NetworkChoice, student: NetworkChoice, more: tuple[NetworkChoice, ...] = ()
    ) -> None:
        """Show the networks of a configuration."""
        self.teacher.fill(teacher)
        self.student.fill(student)
        clear(self.more)
        for choice in more:
            self._add().fill(choice)
        self.further.open(bool(more))

    def _add(self) -> NetworkRow:
        made = NetworkRow(f"Teacher {self.more.count() + 2}", TEACHERS, "trained here unless you give one")
        made.layout().addWidget(
            button("Remove", "Leave this teacher out; those after it move up", lambda: self._remove(made))
        )
        self.more.addWidget(made)
        return made

    def _remove(self, row: NetworkRow) -> None:
        kept = [NetworkChoice.model_validate(other.values()) for other in self.rows if other is not row]
        clear(self.more)
        for choice in kept:
            self._add().fill(choice)


def _about(name: str) -> str:
    """Say what a listed network is, in the tooltip of its line."""
    if name in _ENCODERS:
        return (
            f"A foundation encoder, which teaches features: {encoder_of(name).title}. Give its weights below."
        )
    choice = _LISTED[name]
    return (
        f"{choice.description} {choice.parameters / 1e6:.2f} M parameters, {choice.multiply_adds / 1e9:.2f} G "
        f"multiply-adds at {COST_SIDE} x {COST_SIDE}. {choice.source}."
    )
