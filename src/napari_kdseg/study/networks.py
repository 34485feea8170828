"""Networks that runs share on disk: kept by the first, linked to by the others, taken away when nobody needs them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from napari_kdseg.files import write_whole
from napari_kdseg.study.config import StudyConfig
from napari_kdseg.study.plan import TEACHER, Places, Run
from napari_kdseg.study.results import stage_seconds
from napari_kdseg.study.stages import shared_networks, shared_stages


class KeptNetworks:
    """What the runs of a study leave for each other.

    Parameters
    ----------
    config
        The study.
    places
        Where its files lie.
    runs
        All of them.
    """

    def __init__(self, config: StudyConfig, places: Places, runs: Sequence[Run]):
        self.config, self.places, self.runs = config, places, runs

    def stages(self, run: Run) -> dict[str, Path]:
        """Where the stages of a run lie, or will, that others may share, by name."""
        return {name: self.places.stage(key) for name, key in shared_stages(self.config, run).items()}

    def missing(self, run: Run) -> set[Path]:
        """Return those that nobody has trained yet."""
        return {path for path in self.stages(run).values() if not path.exists()}

    def keep(self, run: Run) -> None:
        """Keep what a run trained, or copied, for the runs that have the same."""
        folder = self.places.run(run)
        seconds = stage_seconds(folder)
        for name, target in shared_networks(self.config, run, self.places).items():
            source = folder / "checkpoints" / f"{name}.safetensors"
            if not target.exists() and source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                write_whole(
                    target.with_suffix(".json"), json.dumps({"seconds": seconds.get(name, 0.0)}).encode()
                )
                os.replace(source, target)

    def tidy(self, run: Run, done: Collection[Run]) -> None:
        """Leave a finished run its networks, as links those that others have too; take away what was for resuming."""
        checkpoints = self.places.run(run) / "checkpoints"
        keep = self.config.keep_work or run.method == TEACHER
        for path in checkpoints.glob("*"):
            if path.name != "student.safetensors" or not keep:
                path.unlink(missing_ok=True)
        for name, path in shared_networks(self.config, run, self.places).items() if keep else ():
            with suppress(OSError):  # a disk that knows no links; the network is in the folder of the study
                os.link(path, checkpoints / f"{name}.safetensors")
        memory = self.places.memory(run)
        users = [
            other for other in self.runs if other.method != TEACHER and self.places.memory(other) == memory
        ]
        if all(user in done for user in users):
            shutil.rmtree(memory, ignore_errors=True)
