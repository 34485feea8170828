"""A screen for a machine that has none, so that pictures can be made there: Xvfb, started when it is needed."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys

from napari_kdseg.errors import OutputError

_started: list[subprocess.Popen[bytes]] = []


def has_display() -> bool:
    """Whether windows can be shown to a person here; a screen that we started ourselves is seen by nobody."""
    if _started:
        return False
    return not sys.platform.startswith("linux") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


def ensure_display(size: str = "1600x1000x24") -> None:
    """Start a virtual screen if this machine has none; it ends with this process.

    Raises
    ------
    OutputError
        If there is no screen and Xvfb is not installed.
    """
    if _started or has_display():
        return
    if shutil.which("Xvfb") is None:
        raise OutputError(
            "There is no screen here and no Xvfb to stand in for one. Install it (apt-get install xvfb), or run this "
            "on a desktop."
        )
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", size, "-nolisten", "tcp"],
        pass_fds=(writing,),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    with os.fdopen(reading) as answer:
        number = answer.readline().strip()
    if not number:
        raise OutputError("The virtual screen (Xvfb) did not start. Run 'Xvfb :99' by hand to see why.")
    os.environ["DISPLAY"] = f":{number}"
    _started.append(server)
    atexit.register(_stop)


def _stop() -> None:
    for server in _started:
        server.terminate()
        server.wait(5)
