"""Crops read in the background: what is looked at now comes first, what scrolled away is not read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
from qtpy.QtCore import QObject, Signal
from qtpy.QtGui import QImage

from napari_kdseg.errors import explain
from napari_kdseg.widgets.state.background import in_background

KEPT = 48
"""Rows of crops that stay in memory: four of 256 pixels are 0.75 MB."""

Read = Callable[[int], np.ndarray]


class CropLoader(QObject):
    """Pictures by the number of their region.

    Signals
    -------
    arrived(int)
        The picture of this region is there.
    failed(str)
        The pictures cannot be read, in a sentence; said once for the same regions.
    """

    arrived = Signal(int)
    failed = Signal(str)

    def __init__(self, parent: QObject):
        super().__init__(parent)
        self._read: Read | None = None
        self._kept: OrderedDict[int, QImage | None] = OrderedDict()
        self._wanted: list[int] = []
        self._busy = False
        self._told = False

    def read_with(self, read: Read | None) -> None:
        """Forget all pictures; from now on they are what ``read(number)`` returns, from another thread."""
        self._read, self._wanted, self._told = read, [], False
        self._kept.clear()

    def __contains__(self, number: int) -> bool:
        return number in self._kept

    def get(self, number: int) -> QImage | None:
        """Return the picture of a region if it is there and could be read."""
        return self._kept.get(number)

    def want(self, numbers: Sequence[int]) -> None:
        """Have these pictures read, the first one first, and no others that were wanted before."""
        for number in reversed(numbers):
            if number in self._kept:
                self._kept.move_to_end(number)
        self._wanted = [number for number in numbers if number not in self._kept][:KEPT]
        self._go_on()

    def _go_on(self) -> None:
        if self._busy or not self._wanted or self._read is None:
            return
        self._busy = True
        read, number = self._read, self._wanted.pop(0)

        def work() -> np.ndarray | str:
            try:
                return read(number)
            except Exception as error:  # shown once in the gallery, not once a row
                return explain(error)

        def show(picture: np.ndarray | str) -> None:
            self._busy = False
            if read is self._read:
                self._keep(number, picture)
            self._go_on()

        in_background(work, show)

    def _keep(self, number: int, picture: np.ndarray | str) -> None:
        failed = isinstance(picture, str)
        self._kept[number] = None if failed else _to_image(picture)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        if failed and not self._told:
            self._told = True
            self.failed.emit(picture)
        self.arrived.emit(number)


def _to_image(pixels: np.ndarray | str) -> QImage:
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    return QImage(pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888).copy()
