"""Dock 2, Models, answers: who segments it. A card each for teacher, assistants and student."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from pydantic import ValidationError

from napari_kdseg.errors import explain
from napari_kdseg.inference.config import Precision, PredictConfig
from napari_kdseg.jobs import Done, Terminal
from napari_kdseg.widgets.models_dock.network_card import SHOWN, NetworkCard
from napari_kdseg.widgets.parts.controls import button, combo, heading, row
from napari_kdseg.widgets.parts.cost_box import CostBox
from napari_kdseg.widgets.parts.dock import Dock
from napari_kdseg.widgets.parts.fold import Fold
from napari_kdseg.widgets.parts.form import SettingsForm
from napari_kdseg.widgets.parts.note import Note
from napari_kdseg.widgets.parts.path_row import PathRow
from napari_kdseg.widgets.state.camera import Region, visible_region
from napari_kdseg.widgets.state.connections import connect
from napari_kdseg.widgets.state.job_handle import JobHandle
from napari_kdseg.widgets.state.loaded_models import ROLE_TITLES, ROLES
from napari_kdseg.widgets.state.session import given_mpp
from napari_kdseg.widgets.state.team import load_run

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_kdseg.slides import Slide

CONTEXTS: dict[str, Literal["auto", "exact"] | int] = {"auto": "auto", "exact": "exact", "64 px": 64}

HERE = (
    *("slide", "slide_mpp", "colours", "networks", "output", "region", "first"),
    *("device", "precision", "halo", "threads", "overwrite"),
)
"""Settings of a prediction that this dock works out, asks about when they matter, or has a place for; all others are
under *Advanced*."""

#: Shapes that are preferred; with more of them nothing would be.
MOST_DRAWN = 200


class ModelsDock(Dock):
    """Load the networks and let them segment what is on screen or the whole slide."""

    #: Whether networks are made ready before anybody asks for a mask.
    gets_ready = True

    def __init__(self, napari_viewer: Viewer):
        super().__init__(napari_viewer)
        self.hint = Note()
        self.column.addWidget(self.hint)
        self.run = PathRow("Run folder of a distillation", folder=True, remember="run")
        self.run.chosen.connect(lambda path: load_run(self.session, Path(path), self.hint.warn))
        self.column.addWidget(self.run)
        self.cards = {role: NetworkCard(self.session, role) for role in ROLES}
        for card in self.cards.values():
            card.wanted.connect(lambda role, whole: self.predict([role], whole=whole))
            self.column.addWidget(card)
        self._build_both()
        self.cost = CostBox(self.session)
        self.column.addWidget(self.cost)
        self._build_settings()
        self.column.addStretch(1)
        self.session.models_changed.connect(self._on_models)
        self.session.slide_changed.connect(self._on_models)
        self.session.slide_identified.connect(self._get_ready)
        self._on_models()

    def _build_both(self) -> None:
        self.both = row(
            button(
                "Both here",
                "Teacher and student segment what is on screen, in one pass over the slide",
                lambda: self.predict(SHOWN, whole=False),
            ),
            button(
                "Both on whole slide",
                "Teacher and student segment the slide in one pass: what is on screen first",
                lambda: self.predict(SHOWN, whole=True),
            ),
        )
        self.column.addWidget(self.both)

    def _build_settings(self) -> None:
        self.column.addWidget(heading("Compute on"))
        self.device = combo("auto takes a CUDA GPU when there is one, else the CPU", "auto", "cpu", "cuda")
        self.precision = combo(
            "bfloat16 and float16 are faster where the hardware has them; auto takes them where classes stay the same",
            *get_args(Precision),
        )
        self.context = combo(
            "How much context tiles get. auto: the least that gives the same classes as exact on sample tiles of this "
            "slide; exact: as far as the network looks, several times slower; 64 px: fast, with faint seams",
            *CONTEXTS,
        )
        self.column.addWidget(row(self.device, self.precision))
        self.column.addWidget(heading("Context of tiles"))
        self.column.addWidget(row(self.context))
        advanced = Fold("Advanced", open=False)
        self.form = SettingsForm(
            PredictConfig, only=tuple(name for name in PredictConfig.model_fields if name not in HERE)
        )
        advanced.content.addWidget(self.form.native)
        self.column.addWidget(advanced)

    def _on_models(self, _changed: object = None) -> None:
        for card in self.cards.values():
            card.show_model()
        ready = [role for role in SHOWN if role in self.session.models]
        self.both.setVisible(len(ready) == len(SHOWN))
        self.both.setEnabled(self.session.slide is not None)
        if not self.session.models:
            self.hint.say("Give a run folder to load its whole team, or drop a checkpoint on a card.")
        elif self.session.slide is None:
            self.hint.say("Open a slide to see what they make of it.")
        else:
            self.hint.say("")
        self._get_ready()
        self._show_cost(ready)

    def _show_cost(self, roles: list[str]) -> None:
        """Have the networks of the cards measured, and shown beside each other."""
        from napari_kdseg.inference import CostConfig, Subject

        networks = {
            ROLE_TITLES[role].lower(): Subject(network=str(self.session.models[role].path)) for role in roles
        }
        threads = max(1, (os.cpu_count() or 2) - 1)  # one is left to the window
        self.cost.want(CostConfig(networks=networks, threads=threads) if networks else None)

    def predict(self, roles: Sequence[str], *, whole: bool) -> JobHandle | None:
        """Queue the prediction of what is on screen, or of the whole slide, by the networks of ``roles``."""
        slide, card = self.session.slide, self.cards[roles[0]]
        if slide is None or not set(roles) <= set(self.session.models):
            return None
        if self.session.masks_path() is None:
            card.problem.warn("The slide is still being identified; try again in a moment.")
            return None
        region = None if whole else visible_region(self.viewer, slide)
        if region is not None and min(region[2:]) <= 0:
            card.problem.warn("The slide is not on screen. Press Home to see it.")
            return None
        try:
            config = self._config(roles, region)
        except ValidationError as error:
            card.problem.warn(explain(error))
            return None
        title = f"{' and '.join(ROLE_TITLES[role] for role in roles)} on {slide.name}"
        return self.session.predictions.add(title, config)

    def _config(self, roles: Sequence[str], region: Region | None) -> PredictConfig:
        """Return what is asked for.

        Raises
        ------
        ValidationError
            If a value under *Advanced* is none that the setting can have.
        """
        slide, output = self.session.slide, self.session.masks_path()
        assert slide is not None
        assert output is not None
        return PredictConfig(
            slide=str(slide.path),
            slide_mpp=given_mpp(slide),
            colours=self.session.network_colours,
            networks={role: self.session.models[role].path for role in roles},
            output=output,
            region=region,
            device=self.device.currentText(),
            precision=self.precision.currentText(),
            halo=CONTEXTS[self.context.currentText()],
            threads=max(1, (os.cpu_count() or 2) - 1),  # one is left to the window
            first=drawn_regions(self.viewer, slide) if region is None else (),
            **self.form.values(),
        )

    def _get_ready(self, _slide: Slide | None = None) -> None:
        """Load and measure in the background what the first click would have to wait for."""
        roles = [role for role in SHOWN if role in self.session.models]
        if (
            not self.gets_ready
            or not roles
            or self.session.slide is None
            or self.session.masks_path() is None
        ):
            return
        try:
            config = self._config(roles, None)
        except ValidationError:
            return  # said when a mask is asked for
        handle = self.session.predictions.get_ready(config)
        connect(handle.ended, self._show_ready, self.session.slide)

    def _show_ready(self, slide: Slide, end: Terminal) -> None:
        if isinstance(end, Done) and self.session.slide is slide:
            for role, ready in end.result.items():
                self.cards[role].show_plan(ready.plan, ready.seconds)


def drawn_regions(viewer: Viewer, slide: Slide) -> tuple[Region, ...]:
    """Return the bounding boxes ``(y, x, height, width)``, in level-0 pixels, of the largest shapes that are drawn."""
    from napari.layers import Shapes

    found = []
    for layer in viewer.layers:
        if isinstance(layer, Shapes) and layer.visible:
            for shape in layer.data:  # in the window's thread: no geometry, there may be thousands
                corners = np.stack([shape.min(axis=0), shape.max(axis=0)])[:, -2:]
                pixels = (corners * layer.scale[-2:] + layer.translate[-2:]) / (slide.mpp or (1.0, 1.0))
                (top, left), (bottom, right) = np.floor(pixels).astype(int).tolist()
                found.append((top, left, max(bottom - top, 1), max(right - left, 1)))
    return tuple(sorted(found, key=lambda box: -box[2] * box[3])[:MOST_DRAWN])
