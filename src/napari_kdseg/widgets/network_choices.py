"""Which networks a distillation is about: teacher, student, and further teachers."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_kdseg.training import NetworkChoice
from napari_kdseg.widgets.form import SettingsForm
from napari_kdseg.widgets.models import CHECKPOINT_PATTERNS
from napari_kdseg.widgets.parts import Fold, Note, PathRow, button, clear, combo

TEACHERS = (
    "unet/resnet34",
    "unet/resnet18",
    "unetplusplus/resnet34",
    "deeplabv3plus/resnet50",
    "segformer/mit_b2",
)
STUDENTS = ("enet", "unet/mobilenet_v2", "deeplabv3plus/mobilenet_v2", "segformer/mit_b0")


class NetworkRow(QWidget):
    """One network: an architecture, or a checkpoint; and the input size, if it is not that of the data.

    Signals
    -------
    changed()
        Another network was named.
    """

    changed = Signal()

    def __init__(self, title: str, names: tuple[str, ...], note: str):
        super().__init__()
        self.architecture = combo(
            "Architecture and encoder, as in unet/resnet34; any of segmentation-models-pytorch, or enet",
            *names,
        )
        self.architecture.setEditable(True)
        self.checkpoint = PathRow(
            f"{title} checkpoint ({note})", patterns=CHECKPOINT_PATTERNS, remember="checkpoint"
        )
        self.form = SettingsForm(NetworkChoice, only=("input_size",))
        self.form.widgets["input_size"].native.setPlaceholderText("as the data")
        self._options: dict[str, Any] = {}
        self.architecture.currentTextChanged.connect(lambda _name: self.changed.emit())
        self.checkpoint.edit.textChanged.connect(lambda _path: self.changed.emit())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (Note(title), self.architecture, self.checkpoint, self.form.native):
            layout.addWidget(widget)

    def values(self) -> dict[str, Any]:
        """Say what :class:`NetworkChoice` is made of."""
        if self.checkpoint.path():
            return {"checkpoint": self.checkpoint.path(), **self.form.values()}
        name = self.architecture.currentText().strip()
        return {"architecture": name, "options": self._options.get(name, {}), **self.form.values()}

    def fill(self, choice: NetworkChoice) -> None:
        """Show ``choice``; options, which have no field here, stay with their architecture."""
        self.checkpoint.set_path(choice.checkpoint or "")
        self.form.fill(choice.model_dump())
        self._options = {choice.architecture or "": choice.options}
        if choice.architecture:
            self.architecture.setCurrentText(choice.architecture)


class NetworkChoices(QWidget):
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
