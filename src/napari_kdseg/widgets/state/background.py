"""Short work off the GUI thread (opening a file, reading a checkpoint), and its result brought back to it."""

from __future__ import annotations

import traceback
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error
from qtpy.QtCore import QCoreApplication, QEventLoop, QObject, QThread, QTimer

from napari_kdseg.errors import explain

Result = TypeVar("Result")
_PENDING: set[Any] = set()


def in_background(
    function: Callable[[], Result],
    on_done: Callable[[Result], None],
    on_failed: Callable[[str], None] | None = None,
) -> None:
    """Call ``function`` in a thread, then ``on_done(result)`` or ``on_failed(sentence)`` in the GUI thread.

    A failure is a napari notification as well. A receiver whose widget was closed meanwhile is not called.
    """

    def report(sentence: str) -> None:
        show_error(sentence)
        if on_failed is not None:
            on_failed(sentence)

    def work() -> tuple[bool, Any]:
        try:
            return True, function()
        except Exception as error:
            traceback.print_exc()
            return False, explain(error)

    def deliver(outcome: tuple[bool, Any]) -> None:
        succeeded, value = outcome
        try:
            (on_done if succeeded else report)(value)
        except RuntimeError as error:
            if "deleted" not in str(error):
                raise

    worker = create_worker(work, _start_thread=False)
    worker.returned.connect(deliver)
    worker.finished.connect(lambda: _PENDING.discard(worker))  # also if napari gave it up with its window
    _PENDING.add(worker)
    worker.start()


def wait_for(function: Callable[[], Result]) -> Result:
    """Call ``function`` in a thread and return what it returns; the window is drawn meanwhile, but takes no input.

    For calls of napari's that need the result at once, such as a reader. Without a window ``function`` is just called.
    """
    application = QCoreApplication.instance()
    if application is None or QThread.currentThread() is not application.thread():
        return function()
    loop = QEventLoop()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(function)
        watch = QTimer()
        watch.timeout.connect(lambda: loop.quit() if future.done() else None)
        watch.start(5)
        loop.exec(QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents)
        return future.result()


def emitting(receiver: QObject, signal: str, *first: object) -> Callable[..., None]:
    """Return a function for other threads that emits ``signal`` of ``receiver``, with ``first`` and its own arguments.

    It keeps nothing alive, and does nothing once the receiver is gone.
    """
    there = weakref.ref(receiver)

    def tell(*arguments: object) -> None:
        alive = there()
        if alive is None:
            return
        try:
            getattr(alive, signal).emit(*first, *arguments)
        except RuntimeError as error:  # the window was closed a moment ago
            if "deleted" not in str(error):
                raise

    return tell


def pending() -> bool:
    """Whether work given to :func:`in_background` has not come back yet."""
    return bool(_PENDING)
