"""``kdseg``: the work of the window without a window, from the same configurations.

Exit codes: 0 done, 2 something a person can mend (one plain sentence on stderr), 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys

from napari_kdseg.cli import processes
from napari_kdseg.cli.app import app, console
from napari_kdseg.cli.commands import (  # noqa: F401 - each adds its commands
    adopting,
    comparing,
    distillation,
    info,
    masks,
    models,
    networks,
    slides,
    studies,
)
from napari_kdseg.errors import KdsegError, explain


def main() -> None:
    """Run ``kdseg``; failures are one sentence and exit code 2."""
    try:
        app()
    except KdsegError as error:
        _fail(str(error))
    except OSError as error:
        _fail(explain(error))
    except ValueError as error:
        if type(error).__name__ != "ValidationError":
            raise
        _fail(explain(error))


def _fail(sentence: str) -> None:
    if processes.count() > 1:
        sentence = f"Process {processes.number() + 1} of {processes.count()}: {sentence}"
    console.print(sentence, style="red", highlight=False, soft_wrap=True)
    sys.exit(2)
