"""A network for other programs, in the dock: a folder is chosen, the rest is a job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QVBoxLayout, QWidget

from napari_kdseg.jobs import Done, Event, Failed, Message, Terminal
from napari_kdseg.widgets.parts.controls import button
from napari_kdseg.widgets.parts.note import Note
from napari_kdseg.widgets.parts.questions import offer_replacing
from napari_kdseg.widgets.state.connections import connect
from napari_kdseg.widgets.state.job_handle import JobHandle
from napari_kdseg.widgets.state.remembered import last_folder, remember_folder

if TYPE_CHECKING:
    from napari_kdseg.inference.export import ExportModelConfig
    from napari_kdseg.widgets.state.session import Session

JOB = "napari_kdseg.inference.export:export_model"


class ExportModelBox(QWidget):
    """A button that writes a checkpoint as ONNX, ExportedProgram, safetensors and a card into a folder."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session
        self.checkpoint: Path | None = None
        self.export = button(
            "Export this network…",
            "Choose a folder for ONNX, PyTorch's ExportedProgram, safetensors, and a card that says what it is",
            self._browse,
        )
        self.note = Note()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.export)
        layout.addWidget(self.note)

    def show_checkpoint(self, path: Path | None) -> None:
        """Offer the export of this checkpoint; ``None`` or an ONNX file, which is one already, hides the button."""
        if path != self.checkpoint:
            self.note.say("")
        self.checkpoint = path
        self.setVisible(path is not None and path.suffix != ".onnx")

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for the files", last_folder("export model"))
        if folder:
            remember_folder("export model", str(Path(folder) / "."))
            self.export_to(folder)

    def export_to(self, folder: str | Path) -> JobHandle[ExportModelConfig] | None:
        """Write the files into ``folder``, in the background; what is in the way is asked about."""
        from napari_kdseg.inference.export import ExportModelConfig

        assert self.checkpoint is not None
        config = ExportModelConfig(checkpoint=self.checkpoint, output=Path(folder))
        return self._follow(
            self.session.start("export model", f"export of {self.checkpoint.stem}", JOB, config)
        )

    def _follow(self, job: JobHandle[ExportModelConfig] | None) -> JobHandle[ExportModelConfig] | None:
        if job is not None:
            self.note.say("Exporting …")
            job.events.connect(self._on_events)
            connect(job.ended, self._on_end, job)
        return job

    def _on_events(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Message):
                self.note.say(event.text)

    def _on_end(self, job: JobHandle[ExportModelConfig], end: Terminal) -> None:
        if offer_replacing(self.session, job, end, self):
            self._follow(self.session.jobs["export model"])
        elif isinstance(end, Done):
            names = ", ".join(file.name for file in end.result.files)
            worst = max(end.result.differences.values())
            self.note.say(
                f"Written to {job.config.output}: {names}. Outputs differ from PyTorch's by at most {worst:.1e}."
            )
        elif isinstance(end, Failed):
            self.note.warn(end.message)
        else:
            self.note.say("Stopped.")
