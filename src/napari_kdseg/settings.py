"""How a setting of a job, or a constant of a method, is declared: once, for window, command line and files."""

from __future__ import annotations

from typing import Any

from pydantic import Field, JsonValue


def setting(
    default: Any = ..., title: str = "", description: str = "", *, symbol: str = "", **more: Any
) -> Any:
    """Return a field with a title and one plain sentence: forms and options are made of them.

    Parameters
    ----------
    default
        Its value where nobody gives one; without it, it must be given.
    title
        For people: label in a form.
    description
        One plain sentence: the tooltip, and the help of the option.
    symbol
        What a paper calls it; kept as ``json_schema_extra["symbol"]``.
    **more
        Bounds and whatever else :func:`pydantic.Field` takes.
    """
    extra: dict[str, JsonValue] | None = {"symbol": symbol} if symbol else None
    given = more if "default_factory" in more else {"default": default, **more}
    return Field(title=title or None, description=description or None, json_schema_extra=extra, **given)
