"""The folder of one run: configuration, figures, checkpoints and report, so that it can be followed, resumed and read.

``metrics.jsonl`` only grows, except on resume: what was recorded after the checkpoint is cut off, and computed again.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from napari_kdseg.errors import KdsegError, OutputError, explain
from napari_kdseg.files import write_whole
from napari_kdseg.jobs import Event, Step, Validated
from napari_kdseg.training.config import DistillConfig
from napari_kdseg.training.lock import locked

CONFIG, METRICS, LOCK, STATE = "config.json", "metrics.jsonl", ".lock", "checkpoints/state.pt"


class RunFolder:
    """A run on disk, open for writing by one job at a time; use it as a context manager.

    Parameters
    ----------
    path
        The folder. It may not exist yet; an existing one must be empty or hold a run of the same configuration.
    config
        What is run.
    writes
        Whether this process writes: of several that train together only the first does, the others read.

    Raises
    ------
    OutputError
        On entering: if the folder holds something else or a run of another configuration, is in use by another job, or
        cannot be written to.
    """

    def __init__(self, path: Path, config: DistillConfig, *, writes: bool = True):
        self.path = path
        self.writes = writes
        self.config = config
        self._lock = contextlib.ExitStack()
        self._ours = False
        self._metrics: io.BufferedWriter | None = None
        self._board: Any = None

    def __enter__(self) -> RunFolder:
        if not self.writes:
            return self
        with _writing(self.path):
            self._refuse_foreign()
            self._ours = not self.path.exists()
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        self._lock.enter_context(locked(self.path / LOCK))
        try:
            with _writing(self.path):
                # Looked at again: only who holds the lock can be sure.
                if (self.path / CONFIG).exists():
                    self._refuse_other_configuration()
                self.config.resolved().save(self.path / CONFIG)
                self._metrics = (self.path / METRICS).open("ab")
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        """Close; a folder made for a run that failed before its first step (no data, no network) is taken away."""
        try:
            if self._metrics is not None:
                self._metrics.close()
            if self._board is not None:
                self._board.close()
        finally:
            self._metrics = self._board = None
            self._lock.close()
        if kind is not None and issubclass(kind, KdsegError) and self._ours and not self._begun():
            shutil.rmtree(self.path, ignore_errors=True)

    def _begun(self) -> bool:
        """Whether anything was trained here."""
        return (self.path / STATE).exists() or _size(self.path / METRICS) > 0

    @property
    def checkpoints(self) -> Path:
        """Folder of the networks and the state."""
        return self.path / "checkpoints"

    def network(self, stage: str) -> Path:
        """Path of the best weights of a stage."""
        return self.checkpoints / f"{stage}.safetensors"

    # -- figures --------------------------------------------------------------------------------------------------

    def record(self, event: Step | Validated, position: int) -> None:
        """Append the figures of an event; ``position`` counts the steps of all stages."""
        if not self.writes:
            return
        if isinstance(event, Step):
            line = {"kind": "step", "stage": event.stage, "done": event.done, "total": event.total}
            values = event.values
        else:
            line = {"kind": "validation", "stage": event.stage, "epoch": event.epoch, "epochs": event.epochs}
            values = event.metrics
        line |= {"position": position, "values": values}
        assert self._metrics is not None, "the run folder is not open"
        with _writing(self.path):
            self._metrics.write((json.dumps(_finite(line)) + "\n").encode())
            self._metrics.flush()
            board = self._open_board(position)
            for name, value in values.items():
                board.add_scalar(f"{event.stage}/{name}", value, position)

    def metrics_size(self) -> int:
        """Bytes recorded so far: what :meth:`rewind` returns to."""
        if not self.writes:
            return 0
        assert self._metrics is not None, "the run folder is not open"
        return self._metrics.tell()

    def rewind(self, size: int) -> None:
        """Cut off what was recorded after a checkpoint, so that the curve of a resumed run has no doubles."""
        if not self.writes:
            return
        assert self._metrics is not None, "the run folder is not open"
        with _writing(self.path):
            self._metrics.truncate(min(size, self._metrics.tell()))
            self._metrics.seek(0, os.SEEK_END)

    def _open_board(self, position: int) -> Any:
        """Open the TensorBoard log; it hides what an earlier job of this run logged from ``position`` on."""
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.path), purge_step=position, flush_secs=10)
        return self._board

    # -- state ----------------------------------------------------------------------------------------------------

    def save_state(self, state: dict[str, Any]) -> Path:
        """Write what resuming needs, whole or not at all: the last good state survives a failure.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        import torch

        if not self.writes:
            return self.path / STATE
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return self.write(STATE, buffer.getbuffer())

    def load_state(self) -> dict[str, Any] | None:
        """Read the state of the last checkpoint; ``None`` if there is none yet.

        Raises
        ------
        OutputError
            If the file is damaged.
        """
        import torch

        path = self.path / STATE
        if not path.exists():
            return None
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file raises whatever zipfile, pickle or torch raise
            raise OutputError(
                f"The state of the run in {self.path} cannot be read, so it cannot be resumed. Start a new run in "
                f"another folder; its networks in '{self.checkpoints.name}' can be used as checkpoints."
            ) from error

    def write(self, name: str, content: bytes | memoryview) -> Path:
        """Write a file of the run, whole or not at all.

        Raises
        ------
        OutputError
            If it cannot be written; what was there before is untouched.
        """
        path = self.path / name
        if not self.writes:
            return path
        with _writing(self.path):
            write_whole(path, content)
        return path

    def write_report(self, summary: dict[str, Any]) -> Path:
        """Write ``report/summary.json``."""
        return self.write("report/summary.json", (json.dumps(_finite(summary), indent=2) + "\n").encode())

    def write_tiles(self, name: str, tiles: Sequence[str], rows: Sequence[dict[str, float]]) -> Path:
        """Write ``report/tiles-<name>.csv``: the scores of each tile; empty where nothing can be said."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = sorted({key for row in rows for key in row})
        writer.writerow(["tile", *columns])
        for tile, row in zip(tiles, rows, strict=True):
            values = [row.get(key, math.nan) for key in columns]
            writer.writerow([tile, *("" if math.isnan(value) else f"{value:.6g}" for value in values)])
        return self.write(f"report/tiles-{name}.csv", text.getvalue().encode())

    def history(self) -> list[Event]:
        """Return the events recorded so far."""
        return read_history(self.path)

    # -- what is there --------------------------------------------------------------------------------------------

    def _refuse_foreign(self) -> None:
        """Refuse a folder that is not empty and holds no run, and a file in the folder's place."""
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is a file. Choose a folder for the run.")
        if (self.path / CONFIG).exists():
            self._refuse_other_configuration()
        elif self.path.exists() and any(
            not entry.name.startswith(".") and entry.name != "checkpoints" for entry in self.path.iterdir()
        ):
            raise OutputError(
                f"The folder {self.path} holds other files and no run. Choose an empty or a new folder for the run."
            )

    def _refuse_other_configuration(self) -> None:
        if not self._begun():
            return  # it failed before its first step, for settings that may have been mended since
        there = DistillConfig.load(self.path / CONFIG)
        different = self.config.differences(there)
        if different:
            raise OutputError(
                f"The folder {self.path} holds a run with other settings ({', '.join(different)}). Choose another "
                "folder, or resume that run with its own settings."
            )


def resume_config(folder: str | os.PathLike[str]) -> DistillConfig:
    """Return the configuration that goes on with the run in ``folder``, wherever it was moved to.

    Raises
    ------
    ConfigurationError
        If there is no run, or its configuration cannot be read.
    """
    folder = Path(folder)
    config = DistillConfig.load(folder / CONFIG)
    config.output = folder.absolute()
    return config


def read_history(folder: str | os.PathLike[str]) -> list[Event]:
    """Return the figures of a run as the events that reported them, to draw its curves again.

    A line that is being written, and anything that is no record, is left out; a folder without a run has no history.
    """
    events: list[Event] = []
    with (
        contextlib.suppress(OSError),
        (Path(folder) / METRICS).open(encoding="utf-8", errors="replace") as file,
    ):
        for line in file:
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                record = json.loads(line)
                values = {name: math.nan if v is None else float(v) for name, v in record["values"].items()}
                if record["kind"] == "step":
                    events.append(Step(record["stage"], record["done"], record["total"], values))
                else:
                    events.append(Validated(record["stage"], record["epoch"], record["epochs"], values))
    return events


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not know, by null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Put failures of the file system into words."""
    try:
        yield
    except KdsegError:
        raise
    except OSError as error:
        raise OutputError(f"The run folder {folder} cannot be written to. {explain(error)}") from error
