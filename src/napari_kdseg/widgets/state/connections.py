"""Connections with arguments of their own that end with whoever receives them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qtpy.QtCore import QObject


class _Relay(QObject):
    """Passes on what it receives; a child of the receiver, so that it is gone with it."""

    def __init__(self, receiver: QObject, action: Callable[..., object]):
        super().__init__(receiver)
        self._action = action

    def pass_on(self, *arguments: object) -> None:
        """Receive."""
        self._action(*arguments)


def connect(signal: Any, method: Callable[..., object], *first: object) -> None:
    """Have ``method(*first, *arguments)`` called whenever ``signal`` is emitted, until the receiver is gone.

    Qt ends a connection to a bound method of a QObject with that object, but not one to a lambda or a ``partial``.

    Parameters
    ----------
    signal
        Of any object, which may outlive the receiver.
    method
        A method of a QObject, the receiver.
    *first
        Arguments before those of the signal.
    """
    receiver = method.__self__  # type: ignore[attr-defined]
    signal.connect(_Relay(receiver, partial(method, *first)).pass_on)
