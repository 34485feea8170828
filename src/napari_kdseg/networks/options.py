"""Options of an architecture as people type them: ``width=32; output=out``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from napari_kdseg.errors import ConfigurationError


def read_options(assignments: Iterable[str]) -> dict[str, Any]:
    """Read ``name=value``, values as JSON or, where they are none, as text.

    Raises
    ------
    ConfigurationError
        If one of them is no assignment.
    """
    options = {}
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not name:
            raise ConfigurationError(
                f"An option of a network is name=value, such as width=32, not {assignment!r}."
            )
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    return options


def write_options(options: Mapping[str, Any]) -> str:
    """Write options as they are typed, with semicolons between."""
    return "; ".join(f"{name}={json.dumps(value)}" for name, value in options.items())
