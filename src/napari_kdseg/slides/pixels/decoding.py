"""The threads that decode tiles: shared by all slides, the newest wish first, one processor left to the window."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")


class DecodePool:
    """Threads that take the work submitted last first: what is looked at now comes before what was looked at.

    Parameters
    ----------
    threads
        How many; by default one less than there are processors, at least one.
    """

    def __init__(self, threads: int | None = None):
        self.threads = max(1, (os.cpu_count() or 2) - 1) if threads is None else threads
        if self.threads < 1:
            raise ValueError(f"at least one thread has to decode, got {threads}")
        self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix="kdseg-decode")
        self._waiting: deque[Callable[[], None]] = deque()

    def submit(self, work: Callable[[], None]) -> None:
        """Have ``work`` done before all that waits already. It has to see to its own errors."""
        self._waiting.append(work)
        self._executor.submit(self._do_newest)

    def share(self, work: Callable[[Item], None], items: Iterable[Item], threads: int) -> None:
        """Do ``work`` on all ``items`` in this thread with the help of ``threads - 1`` others; return when all is done.

        Raises
        ------
        Exception
            The first that ``work`` raised; what was not begun then is left.
        """
        queue, stopped = iter(items), threading.Event()
        taking = threading.Lock()

        def take_all() -> None:
            try:
                while not stopped.is_set():
                    with taking:
                        try:
                            item = next(queue)
                        except StopIteration:
                            return
                    work(item)
            except BaseException:
                stopped.set()
                raise

        helpers = [self._executor.submit(take_all) for _ in range(min(threads - 1, self.threads))]
        try:
            take_all()
        finally:
            begun = [
                helper for helper in helpers if not helper.cancel()
            ]  # others are busy: done without them
            wait(begun)
        for helper in begun:
            helper.result()

    def close(self) -> None:
        """Let the threads end when what they do now is done; what waits is forgotten."""
        self._waiting.clear()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _do_newest(self) -> None:
        try:
            work = self._waiting.pop()
        except IndexError:
            return
        work()


_pool: DecodePool | None = None
_making = threading.Lock()


def _forget_pool() -> None:
    """Start afresh in a forked process: threads do not follow it there."""
    global _pool, _making
    _pool, _making = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def decode_pool() -> DecodePool:
    """Return the pool that all slides share."""
    global _pool
    with _making:
        if _pool is None:
            _pool = DecodePool()
        return _pool


def set_decode_threads(threads: int | None) -> None:
    """Use another number of threads from now on; ``None`` for one less than there are processors.

    Work that waits is done by the threads there were.
    """
    global _pool
    with _making:
        if _pool is None or threads != _pool.threads:
            _pool = DecodePool(threads)
