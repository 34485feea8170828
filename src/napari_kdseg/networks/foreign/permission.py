"""Whose code may be run: a person says so by name. What a checkpoint or a configuration says never counts.

The permission is kept in the environment, so that processes this one starts have it too.
"""

from __future__ import annotations

import os
import re

from napari_kdseg.errors import CodeNotAllowedError, ConfigurationError

VARIABLE = "KDSEG_ALLOW_CODE"
"""Environment variable: import paths or packages that are allowed, with commas between."""
_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*(\.[^\W\d]\w*)*)?")


def allow_code(name: str) -> None:
    """Allow this program, and processes it starts, to import and run code; call it only where a person said so.

    Parameters
    ----------
    name
        ``"mypackage.models:MyNet"``, a module ``"mypackage.models"``, or a whole package ``"mypackage"``.

    Raises
    ------
    ConfigurationError
        If it is none of these.
    """
    name = name.strip().removeprefix("python:")
    if not _PATH.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} does not name code. Write package.module:Class, or the package alone: mypackage.models:MyNet."
        )
    if name not in allowed_code():
        os.environ[VARIABLE] = ",".join([*allowed_code(), name])


def allowed_code() -> list[str]:
    """List what was allowed."""
    return [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]


def is_allowed(code: str) -> bool:
    """Whether ``code`` (``"mypackage.models:MyNet"``), its module, or a package around it was allowed."""
    parts = code.partition(":")[0].split(".")
    around = {".".join(parts[: count + 1]) for count in range(len(parts))}
    return bool({code, *around} & set(allowed_code()))


def check_allowed(code: str) -> None:
    """Refuse to go on unless ``code``, or the package it is in, was allowed.

    Raises
    ------
    CodeNotAllowedError
        If it was not; the message says how.
    """
    if not is_allowed(code):
        raise CodeNotAllowedError(
            f"This network is the class {code}, and building it runs that code on this computer. If you trust it, "
            f"allow it: kdseg ... --allow-code {code}, or 'Allow this code' in the window.",
            code,
        )
