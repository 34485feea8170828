"""What becomes of a slide that is written: looked at before any work, there whole or not at all, its tiles counted."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_kdseg.errors import InTheWayError, OutputError, explain
from napari_kdseg.files import file_aside, made_aside
from napari_kdseg.jobs import Control, Emit, Step

STEPS_A_REPORT = 8


def check_output(output: Path, overwrite: bool) -> None:
    """Refuse a path that cannot be written to, before any work.

    Raises
    ------
    InTheWayError, OutputError
        If something is there, or its folder cannot be made.
    """
    if output.exists() and not overwrite:
        raise InTheWayError(f"{output.name} is there already. Choose another name, or add --overwrite.")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output.name} cannot be written. {explain(error)}") from error


@contextmanager
def written_whole(output: Path, *, folder: bool, overwrite: bool) -> Iterator[Path]:
    """Give a path beside ``output`` that becomes it when all is written there; otherwise nothing is left."""
    aside = made_aside(output.parent, output, replace=overwrite) if folder else file_aside(output)
    try:
        with aside as unfinished:
            yield unfinished
    except OSError as error:
        raise OutputError(f"{output.name} could not be written. {explain(error)}") from error


@contextmanager
def scratch_beside(output: Path) -> Iterator[Path]:
    """Give a folder for levels that are made on the way, on the disk of the output; it goes away at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".levels", dir=output.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def counted(stage: str, total: int, emit: Emit, control: Control) -> Callable[[], None]:
    """Return what is called after every tile: it reports progress now and then, and stops the job when asked to."""
    done = 0

    def progress() -> None:
        nonlocal done
        control.check()
        done += 1
        if done % STEPS_A_REPORT == 0 or done == total:
            emit(Step(stage, done, total))

    return progress


def size_on_disk(output: Path) -> int:
    """Bytes that a file or folder takes."""
    files = [output] if output.is_file() else [file for file in output.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
