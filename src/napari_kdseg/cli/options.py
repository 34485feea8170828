"""Options of a command from the settings of its job: each field of a model is said once, where it is declared."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

PLAIN = (bool, int, float)


def options_of(
    model: type[BaseModel], *, without: tuple[str, ...] = (), flags: dict[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each setting of its job; it gets their values as the dictionary ``settings``.

    Options that the command declares itself stay as they are, and so do settings ``without`` one.

    Parameters
    ----------
    model
        Settings of the job: names, sentences, defaults and kinds of the options. What is wrong with a value is said by
        whoever validates the model.
    without
        Fields that the command works out itself.
    flags
        Other spellings of a switch by its field, such as ``{"skip_background": "--skip-background/--background"}``.
    """

    def give(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        made = {
            name: _option(name, field, (flags or {}).get(name))
            for name, field in model.model_fields.items()
            if name not in own and name not in without
        }

        @wraps(command)
        def run(**values: Any) -> None:
            settings = {name: values.pop(name) for name in made}
            command(**values, settings=settings)

        parameters = [p for p in own.values() if p.name != "settings"] + list(made.values())
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return give


def _option(name: str, field: FieldInfo, flag: str | None) -> inspect.Parameter:
    """Return the parameter that typer makes an option of."""
    default = field.get_default(call_default_factory=True)
    spelled = [flag] if flag else []
    option = typer.Option(*spelled, help=_help(field))
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[_kind(field, default), option],
    )


def _kind(field: FieldInfo, default: Any) -> Any:
    """Return the type typer reads an option as; what has several (a number or ``auto``) is read as text."""
    kinds = _kinds(field.annotation)
    plain = next((kind for kind in PLAIN if kinds <= {kind, type(None)}), str)
    return plain | None if default is None else plain


def _kinds(annotation: Any) -> set[Any]:
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return {type(value) for value in get_args(annotation)}
    parts = get_args(annotation)
    return set().union(*map(_kinds, parts)) if parts else {annotation}


def _help(field: FieldInfo) -> str:
    """Return the sentence of a field, with the words it knows where the sentence does not say them."""
    sentence = field.description or field.title or ""
    words = [word for word in _words(field.annotation) if word not in sentence]
    return f"{sentence} ({', '.join(words)})" if words else sentence


def _words(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [value for value in get_args(annotation) if isinstance(value, str)]
    return [word for part in get_args(annotation) for word in _words(part)]
