"""How a slide is shown: in stored colours or in those of its profile, stained or as the amount of one stain."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QCheckBox, QFormLayout, QWidget

from napari_kdseg.widgets.layers.placement import COLOURS_KEY, SOURCE_KEY, find
from napari_kdseg.widgets.layers.slide_layers import hide_stain, show_colours, show_stain
from napari_kdseg.widgets.parts.controls import combo
from napari_kdseg.widgets.parts.note import Note
from napari_kdseg.widgets.state.background import in_background
from napari_kdseg.widgets.state.remembered import remember_colours

if TYPE_CHECKING:
    from napari_kdseg.slides import Slide
    from napari_kdseg.widgets.state.session import Session


class ColourBox(QWidget):
    """Colours and stains of the slide."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session
        self._views: dict[str, Slide] = {}
        self.stain = combo(
            "See how much of one stain there is (colour deconvolution of Ruifrok and Johnston)"
        )
        self.stain.addItem("as stained", "")
        self.stain.addItem("haematoxylin only", "haematoxylin")
        self.stain.addItem("eosin only", "eosin")
        self.stain.activated.connect(lambda _index: self._choose_stain())
        self.colours = combo("Show the stored values, or the colours that the scanner meant")
        self.colours.activated.connect(lambda _index: self._choose_colours())
        self.networks = QCheckBox("Networks see these colours too")
        self.networks.setToolTip(
            "Off, networks see the stored values, in training and prediction alike. Turn it on for both or for neither."
        )
        self.networks.toggled.connect(self._choose_networks)
        self.note = Note()
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addRow("Stain", self.stain)
        layout.addRow("Colours", self.colours)
        layout.addRow(self.networks)
        layout.addRow(self.note)

    def show_slide(self, slide: Slide | None) -> None:
        """Offer what this slide has."""
        self._views = {}
        self.networks.setChecked(False)
        self.stain.setCurrentIndex(0)
        self.setVisible(slide is not None and slide.brightfield)
        if slide is None or not slide.brightfield:
            return
        from napari_kdseg.slides.views.colour import changes_colours, profile_name

        name = profile_name(slide)
        self.colours.clear()
        self.colours.addItem("as stored in the file", "stored")
        useful = name is not None and changes_colours(slide)
        if useful:
            self.colours.addItem(f"sRGB from the profile {name}", "srgb")
            layer = find(self.session.viewer, "slide")
            metadata = {} if layer is None else layer.metadata
            shown = metadata.get(COLOURS_KEY, "stored")
            if shown == "srgb":
                self._views["srgb"] = metadata[SOURCE_KEY]
            self.colours.setCurrentIndex(self.colours.findData(shown))
        self.colours.setEnabled(useful)
        self.networks.setVisible(False)
        if name is None:
            self.note.say("The file has no colour profile.")
        elif not useful:
            self.note.say(f"Its profile ({name}) is sRGB already: stored and true colours are the same.")
        else:
            self._explain()

    def _explain(self) -> None:
        shown = self.colours.currentData()
        self.networks.setVisible(shown == "srgb")
        if shown != "srgb":
            self.note.say("The colour profile is not applied: what you see is what networks see.")
        elif self.networks.isChecked():
            self.note.say(
                "You and the networks see the colours of the profile. Use networks that were trained on such."
            )
        else:
            self.note.say("You see the colours of the profile; networks see the stored values.")

    def _choose_colours(self) -> None:
        slide, colours = self.session.slide, self.colours.currentData()
        if slide is None:
            return
        remember_colours(colours)
        if colours == "stored":
            self.networks.setChecked(False)
        self._explain()

        def show(source: Slide) -> None:
            if self.session.slide is slide and self.colours.currentData() == colours:
                show_colours(self.session.viewer, source, colours)

        if colours == "stored":
            show(slide)
        else:
            self._compute("srgb", slide, show)

    def _choose_networks(self, too: bool) -> None:
        self.session.network_colours = "srgb" if too else "stored"
        self._explain()

    def _choose_stain(self) -> None:
        slide, stain = self.session.slide, self.stain.currentData()
        if slide is None:
            return
        if not stain:
            hide_stain(self.session.viewer)
            return

        def show(view: Slide) -> None:
            if self.session.slide is slide and self.stain.currentData() == stain:
                show_stain(self.session.viewer, view, stain, slide)

        self._compute("stains", slide, show)

    def _compute(self, kind: str, slide: Slide, show: Callable[[Slide], None]) -> None:
        """Call ``show`` with the view of this kind, which a slide has only one of."""
        if kind in self._views:
            show(self._views[kind])
            return

        def work() -> Slide:
            from napari_kdseg.slides import in_srgb, stain_view

            view = in_srgb(slide) if kind == "srgb" else stain_view(slide)
            view.prepare()
            return view

        def keep(view: Slide) -> None:
            if self.session.slide is slide:
                self._views[kind] = view
            show(view)

        in_background(work, keep, self.note.warn)
