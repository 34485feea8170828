"""One command as several processes on this machine, as ``torchrun`` would start it; and what each of them may say."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

GRACE_SECONDS = 60.0
"""Given to the others, after one has ended badly or somebody pressed Ctrl-C, to keep what they have."""

LOOK = 0.1
"""Seconds between two looks at the processes."""


def number() -> int:
    """Which of several processes this is, from 0; 0 if it is alone."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def count() -> int:
    """How many processes do this together, as whoever started them says."""
    return int(os.environ["WORLD_SIZE"]) if {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys() else 1


def heed_terminate(cancel: Callable[[], None]) -> None:
    """Let SIGTERM, which starters and SLURM send, stop the job of this process as Ctrl-C does: what is done is kept."""
    if count() > 1:
        signal.signal(signal.SIGTERM, lambda _number, _frame: cancel())


def run_processes(wanted: int, arguments: list[str]) -> int:
    """Run ``kdseg`` with ``arguments`` as ``wanted`` processes that know each other, and return its exit code.

    If one ends badly, the others are asked to stop, and ended after :data:`GRACE_SECONDS`.
    """
    together = {
        "WORLD_SIZE": str(wanted),
        "LOCAL_WORLD_SIZE": str(wanted),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    command = [sys.executable, "-m", "napari_kdseg.cli", *arguments]
    new: dict[str, Any] = {"start_new_session": True} if os.name == "posix" else {}
    started = [
        subprocess.Popen(
            command, env={**os.environ, **together, "RANK": str(rank), "LOCAL_RANK": str(rank)}, **new
        )
        for rank in range(wanted)
    ]
    try:
        while all(process.poll() in (None, 0) for process in started):
            if all(process.poll() == 0 for process in started):
                return 0
            time.sleep(LOOK)
    except KeyboardInterrupt:
        pass
    _end(started)
    codes = [process.returncode for process in started]
    return next((code for code in codes if code > 0), next((code for code in codes if code), 0)) % 256


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask the processes that still run to stop, and end them if they do not."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    until = time.monotonic() + GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
