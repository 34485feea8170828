"""What a student's terms read of one teacher: it is run once a batch, as it sees the image, alone or in its team."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from napari_kdseg.distillation.correction.teacher_team import CorrectionCounts, TeacherTeam, run_frozen
from napari_kdseg.distillation.declarations import IMAGE, LOGITS, SOFT_LABELS
from napari_kdseg.distillation.losses.common import labels_on_grid
from napari_kdseg.distillation.view import View
from napari_kdseg.errors import ConfigurationError

if TYPE_CHECKING:
    from napari_kdseg.distillation.declarations import RunFrozen

NO_LAYERS = frozenset({IMAGE, LOGITS, SOFT_LABELS})


class TeacherReader:
    """Reads taps of a frozen teacher.

    Parameters
    ----------
    network
        The teacher; ``None`` where no term reads one.
    taps
        What is read: layers, and of those named in :mod:`~napari_kdseg.distillation.declarations` any.
    view
        From the student's batch to the teacher's input.
    team
        Team the teacher is in, where soft labels are read.

    Attributes
    ----------
    run_frozen
        How a frozen network is run; may be replaced by one that remembers.
    counts
        What the team mended in the last batch.
    """

    def __init__(
        self, network: nn.Module | None, taps: Iterable[str], view: View, team: TeacherTeam | None = None
    ):
        self.network, self.view, self.team = network, view, team
        self.taps = set(taps)
        self.layers = tuple(sorted(self.taps - NO_LAYERS))
        self.run_frozen: RunFrozen = run_frozen
        self.counts: CorrectionCounts | None = None
        if self.taps - {IMAGE} and network is None:
            raise ConfigurationError(
                "A distillation term reads the teacher, but there is none. Choose a teacher."
            )
        if SOFT_LABELS in self.taps and team is None:
            raise ConfigurationError(
                "A distillation term reads corrected soft labels, but it names no teacher team."
            )

    @torch.no_grad()
    def read(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Run the teacher, and its team if soft labels are read, and return what the taps hold.

        Parameters
        ----------
        image
            ``[N, D, H, W]``, the batch as it was prepared for the student.
        target
            ``[N, H, W]`` int64, 255 = ignored; brought to the teacher's size where that differs.
        """
        if self.network is None or not self.taps - {IMAGE}:
            return {IMAGE: image}
        self.network.eval()
        seen = self.view(image)
        team = self.team if SOFT_LABELS in self.taps else None
        layers = self.layers if team is None else tuple(sorted({*self.layers, *team.layers}))
        values = self.run_frozen("teacher", self.network, seen, layers)
        if team is not None:
            correction = team.correct(seen, labels_on_grid(target, seen.shape[-2:]), values, self.run_frozen)
            self.counts = correction.counts()
            values = {**values, SOFT_LABELS: correction.ultimate}
        return {IMAGE: image, **values}
