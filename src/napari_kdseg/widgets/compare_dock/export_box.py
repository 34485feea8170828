"""The masks of the slide for other programs, in the dock: a folder is chosen, the rest is a job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QCheckBox, QFileDialog, QVBoxLayout, QWidget

from napari_kdseg.jobs import Done, Failed, Terminal
from napari_kdseg.widgets.parts.controls import bounds_box, button, row
from napari_kdseg.widgets.parts.note import Note
from napari_kdseg.widgets.state.job_handle import JobHandle
from napari_kdseg.widgets.state.remembered import last_folder, remember_folder

if TYPE_CHECKING:
    from napari_kdseg.slides import Slide
    from napari_kdseg.widgets.state.session import Session


#: Kind of file: its name on screen, what it is, and whether it is wanted at first.
KINDS = {
    "geojson": ("Outlines", "Outlines with area and mean probability, for QuPath (GeoJSON)", True),
    "csv": ("Areas", "Area and share of each class, number of pieces (CSV)", True),
    "tiff": ("TIFF", "Pyramidal OME-TIFF of class numbers", False),
    "dicom": ("DICOM", "DICOM segmentation, for slides that are DICOM", False),
}


class ExportBox(QWidget):
    """Write all masks of the slide for other programs."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session
        self.export = button("Export masks…", "Choose a folder for the files", self._browse)
        self.kinds: dict[str, QCheckBox] = {}
        for kind, (title, tip, wanted) in KINDS.items():
            self.kinds[kind] = QCheckBox(title)
            self.kinds[kind].setToolTip(tip)
            self.kinds[kind].setChecked(wanted)
            self.kinds[kind].toggled.connect(self._on_choice)
        self.bounds = bounds_box()
        self.note = Note()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(row(*self.kinds.values()))
        layout.addWidget(self.bounds)
        layout.addWidget(self.export)
        layout.addWidget(self.note)
        session.slide_changed.connect(self._show_slide)
        self._show_slide(session.slide)

    def _show_slide(self, slide: Slide | None) -> None:
        """Ask from where outlines shall count only where it makes a difference."""
        self.bounds.setVisible(slide is not None and slide.bounds is not None)
        self.bounds.setChecked(True)

    def _chosen(self) -> tuple[str, ...]:
        return tuple(kind for kind, box in self.kinds.items() if box.isChecked())

    def _on_choice(self) -> None:
        self.export.setEnabled(bool(self._chosen()))

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for the files", last_folder("export"))
        if folder:
            remember_folder("export", str(Path(folder) / "."))
            self.export_to(folder)

    def export_to(self, folder: str | Path) -> JobHandle | None:
        """Write the files into ``folder``, in the background; those of an earlier export there are replaced."""
        from napari_kdseg.masks import ExportConfig

        store = self.session.masks_path()
        if store is None or not store.is_dir():
            self.note.warn("There are no masks of this slide yet. Segment it in 2 Models first.")
            return None
        kinds, slide = self._chosen(), self.session.slide
        needed = slide is not None and ("dicom" in kinds or slide.bounds is not None)
        config = ExportConfig.model_validate(
            {
                "stores": (store,), "output": folder, "kinds": kinds, "overwrite": True,
                "slide": slide.path if slide is not None and needed else None,
                "bounds": self.bounds.isChecked(),
            }
        )  # fmt: skip
        job = self.session.start("export", "export of masks", "napari_kdseg.masks:export_masks", config)
        if job is not None:
            self.note.say("Exporting …")
            job.ended.connect(self._on_end)
        return job

    def _on_end(self, end: Terminal) -> None:
        if isinstance(end, Done):
            self.note.say(
                f"Written to {end.result[0].parent}: {', '.join(file.name for file in end.result)}."
            )
        elif isinstance(end, Failed):
            self.note.warn(end.message)
        else:
            self.note.say("Stopped.")
