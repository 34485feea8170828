"""What was measured of a model, kept by the hash of its file, so that it is measured once.

The receptive-field radius belongs to the network alone; the fastest tile and batch to the machine, too; the context of
tiles to a slide.
"""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_kdseg.errors import explain
from napari_kdseg.files import results_folder, write_whole
from napari_kdseg.inference.measuring.context import Context
from napari_kdseg.inference.measuring.cost_figures import Cost
from napari_kdseg.inference.measuring.tuning import Tuning

_lock = threading.Lock()


class Reach(BaseModel):
    """How far a network looks; a radius of ``None`` is the whole image."""

    model_config = ConfigDict(frozen=True)

    radius: int | None


class ModelCard(BaseModel):
    """Measurements of one model.

    Attributes
    ----------
    sha256
        Of the checkpoint.
    reach
        Receptive-field radius, once measured.
    contexts
        Context of tiles, by slide and resolution.
    agreements
        Share of pixels of sample tiles whose class is that of float32, by arithmetic, slide and resolution.
    tunings
        Fastest tile and batch, by machine, arithmetic, threads and halo.
    costs
        What a pass costs, by machine, side of the image and number of channels.
    """

    model_config = ConfigDict(extra="ignore")

    version: Literal[1] = 1
    sha256: str
    reach: Reach | None = None
    contexts: dict[str, Context] = {}
    agreements: dict[str, float] = {}
    tunings: dict[str, Tuning] = {}
    costs: dict[str, Cost] = {}

    def with_measured(self, measured: ModelCard) -> ModelCard:
        """Return this card with what another one holds, which goes first where both hold something."""
        tables = ("contexts", "agreements", "tunings", "costs")
        added = {name: {**getattr(self, name), **getattr(measured, name)} for name in tables}
        return self.model_copy(update={**added, "reach": measured.reach or self.reach})


def read_card(sha256: str) -> ModelCard:
    """Return what is known of a model; an empty card for a new one, or where the file cannot be read."""
    try:
        return ModelCard.model_validate_json(_path(sha256).read_bytes())
    except (OSError, ValidationError):
        return ModelCard(sha256=sha256)


def keep_measurements(measured: ModelCard) -> None:
    """Add what was measured of a model to its card, in one write.

    Where it cannot be kept it is measured again the next time, and a Python warning says so.
    """
    if measured == ModelCard(sha256=measured.sha256):
        return
    with _lock:
        updated = read_card(measured.sha256).with_measured(measured)
        try:
            write_whole(_path(measured.sha256), updated.model_dump_json(indent=2).encode())
        except OSError as error:
            warnings.warn(f"What was measured of a model could not be kept. {explain(error)}", stacklevel=2)


def _path(sha256: str) -> Path:
    return results_folder() / "models" / f"{sha256[:24]}.json"
