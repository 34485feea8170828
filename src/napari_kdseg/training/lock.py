"""One job a run folder: a lock file that names the process that holds it."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import psutil

from napari_kdseg.errors import OutputError, explain

GRACE_SECONDS = 10.0
"""A lock file without content this old was left by a process that died between two system calls."""


class FolderLock:
    """Holds ``path`` (created with ``O_EXCL``) until released; a lock whose process is gone is taken over."""

    def __init__(self, path: Path):
        self.path = path
        self._held = False

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        OutputError
            If a living process holds it, or the file cannot be written.
        """
        try:
            if not self._create():
                holder = self._holder()
                if not _gone(holder, self.path):
                    raise OutputError(_occupied(holder, self.path))
                self.path.unlink(missing_ok=True)
                if not self._create():
                    raise OutputError(_occupied(self._holder(), self.path))
        except OSError as error:
            raise OutputError(
                f"The run folder {self.path.parent} cannot be used. {explain(error)}"
            ) from error

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._held:
            self.path.unlink(missing_ok=True)
            self._held = False

    def _create(self) -> bool:
        try:
            file = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        with os.fdopen(file, "w", encoding="utf-8") as stream:
            me = {"pid": os.getpid(), "host": socket.gethostname(), "started": psutil.Process().create_time()}
            json.dump(me, stream)
        self._held = True
        return True

    def _holder(self) -> dict[str, Any]:
        try:
            holder = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return holder if isinstance(holder, dict) else {}


def _gone(holder: dict[str, Any], path: Path) -> bool:
    """Whether the process that wrote the lock is certainly not running any more."""
    if not isinstance(holder.get("pid"), int):
        try:
            return time.time() - path.stat().st_mtime > GRACE_SECONDS
        except FileNotFoundError:
            return True
    if holder.get("host") != socket.gethostname():
        return False
    try:
        started = psutil.Process(holder["pid"]).create_time()
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False
    return abs(started - float(holder.get("started", started))) > 1.0  # another process got its number


def _occupied(holder: dict[str, Any], path: Path) -> str:
    who = f"process {holder.get('pid', '?')} on {holder.get('host', 'this computer')}"
    return (
        f"Another job ({who}) is writing to the run folder {path.parent}. Wait for it, or choose another folder; if it "
        f"is certainly not running any more, delete {path.name} there."
    )
