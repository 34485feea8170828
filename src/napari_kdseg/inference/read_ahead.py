"""Reading the next tiles while the network is busy with this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")


def read_ahead(
    read: Callable[[Item], Read], items: Iterable[Item], ahead: int = 2
) -> Generator[tuple[Item, Read], None, None]:
    """Yield ``(item, read(item))`` in order while a thread reads the next ``ahead`` items."""
    waiting: deque[tuple[Item, Future[Read]]] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="kdseg-read")
    try:
        for item in items:
            waiting.append((item, pool.submit(read, item)))
            if len(waiting) > ahead:
                first, result = waiting.popleft()
                yield first, result.result()
        while waiting:
            first, result = waiting.popleft()
            yield first, result.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
