"""Settings given on the command line, laid over those of a configuration file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import yaml

from napari_kdseg.errors import ConfigurationError


def assign(values: dict[str, Any], path: str, value: object) -> None:
    """Set ``values[a][b] = value`` for the path ``a.b``; ``None``, an option not given, leaves what is there."""
    if value is not None:
        _put(values, path, value)


def assign_all(values: dict[str, Any], assignments: Iterable[str]) -> None:
    """Set what was given with ``--set``: a path and, after the equals sign, JSON, a list as in YAML or a text.

    Raises
    ------
    ConfigurationError
        If there is no equals sign, or a path leads into a value.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigurationError(
                f"--set wants name=value, not {assignment!r}; for instance --set epochs=20."
            )
        _put(values, path, _literal(text))


def _put(values: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        if values.get(parent) is None:
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise ConfigurationError(f"There is no setting {path!r}: {parent!r} has no parts.")
    values[last] = value


def _literal(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    if text.startswith(("[", "{")):  # shells take the quotes of JSON away: [kd, plc-kd]
        with suppress(yaml.YAMLError):  # as a text it is refused where it belongs
            return yaml.safe_load(text)
    return text
