"""Bytes of a file from many threads at once, without a position that they would have to share."""

from __future__ import annotations

import os
import threading
from pathlib import Path

POSITIONED = hasattr(os, "pread")  # not on Windows


class FileBytes:
    """A file held open for reading; it survives being deleted or renamed where the system allows that."""

    def __init__(self, path: Path):
        self._stream = path.open("rb")
        self._number = self._stream.fileno()
        self._moving = threading.Lock()

    def read(self, offset: int, count: int) -> bytes:
        """Read ``count`` bytes from ``offset`` on.

        Raises
        ------
        EOFError
            If the file ends before.
        OSError
            If the disk or the network fails.
        """
        if POSITIONED:
            data = os.pread(self._number, count, offset)
            if len(data) < count:  # a network drive may hand over less at a time
                data = self._rest(data, offset, count)
            return data
        with self._moving:
            self._stream.seek(offset)
            data = self._stream.read(count)
        if len(data) < count:
            raise EOFError("the file ends within this tile")
        return data

    def _rest(self, data: bytes, offset: int, count: int) -> bytes:
        while len(data) < count:
            more = os.pread(self._number, count - len(data), offset + len(data))
            if not more:
                raise EOFError("the file ends within this tile")
            data += more
        return data

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
