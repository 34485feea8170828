"""What only a person can say of a network: that its code may be run, and what weights of another program are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from qtpy.QtWidgets import QFormLayout, QLineEdit, QVBoxLayout, QWidget

from napari_kdseg.errors import KdsegError, explain
from napari_kdseg.networks import NetworkSpec, allow_code
from napari_kdseg.networks.recommended import recommended_networks
from napari_kdseg.widgets.parts.controls import button, combo
from napari_kdseg.widgets.parts.note import Note


class AllowCodeQuestion(QWidget):
    """Ask whether somebody's own class may be run on this computer; a file never answers that."""

    def __init__(self) -> None:
        super().__init__()
        self.note = Note()
        self.allow = button("Allow this code", "Run it, until the window is closed", self._allow)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.note)
        layout.addWidget(self.allow)
        self._code: Sequence[str] = ()
        self._then: Callable[[], object] = lambda: None
        self.hide()

    def ask(self, code: Sequence[str], then: Callable[[], object]) -> None:
        """Ask about the import paths ``code``; do ``then`` when they are allowed."""
        self._code, self._then = code, then
        self.note.warn(
            f"This network is the class {', '.join(code)}, and building it runs that code on this computer. Allow it "
            "if you trust it. To be asked no more, name it in Preferences > Plugins > KD Seg."
        )
        self.show()

    def _allow(self) -> None:
        for code in self._code:
            allow_code(code)
        self.hide()
        self._then()


class WeightsQuestion(QWidget):
    """Ask which network weights belong to."""

    def __init__(self) -> None:
        super().__init__()
        self.note = Note()
        self.architecture = combo(
            "As in unet/resnet34, or python:mypackage.models:MyNet",
            *(choice.name for choice in recommended_networks()),
        )
        self.architecture.setEditable(True)
        self.classes, self.mpp = QLineEdit(), QLineEdit()
        self.classes.setPlaceholderText("background, tumour")
        self.mpp.setPlaceholderText("unknown")
        self.read = button("Read as this network", "A checkpoint that says what it is is kept", self._answer)
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addRow(self.note)
        layout.addRow("Architecture", self.architecture)
        layout.addRow("Classes", self.classes)
        layout.addRow("µm per pixel", self.mpp)
        layout.addRow(self.read)
        self._then: Callable[[NetworkSpec], object] = lambda _spec: None
        self.hide()

    def say(self, text: str) -> None:
        """Say what is going on."""
        self.note.say(text)

    def warn(self, text: str) -> None:
        """Say what is wrong; the question stays."""
        self.note.warn(text)

    def ask(self, path: Path, then: Callable[[NetworkSpec], object]) -> None:
        """Ask about ``path``; do ``then`` with the answer."""
        self._then = then
        self.note.say(
            f"{path.name} holds weights and does not say of which network. Say it once; it is kept."
        )
        self.show()

    def _answer(self) -> None:
        classes = tuple(name.strip() for name in self.classes.text().split(",") if name.strip())
        try:
            spec = NetworkSpec(
                architecture=self.architecture.currentText(), classes=classes, mpp=_number(self.mpp.text())
            )
        except (KdsegError, ValidationError) as error:
            self.warn(explain(error))
            return
        self._then(spec)


def _number(text: str) -> Any:
    return text.strip() or None
