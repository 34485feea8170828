"""Options of a command from the settings of its job: each field of a model is said once, where it is declared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

PLAIN = (bool, int, float, Path)
Command = Callable[..., None]


def options_of(
    model: type[BaseModel], *, without: tuple[str, ...] = (), flags: dict[str, str] | None = None
) -> Callable[[Command], Command]:
    """Give a command an option for each setting of its job; it gets their values as the dictionary ``settings``.

    Options that the command declares itself stay as they are, and so do settings ``without`` one. Several values, such
    as names of classes, are one text with commas between.

    Parameters
    ----------
    model
        Settings of the job: names, sentences, defaults and kinds of the options. What is wrong with a value is said by
        whoever validates the model.
    without
        Fields that the command works out itself.
    flags
        Other spellings by field, such as ``{"skip_background": "--skip-background/--background"}``.
    """

    def give(command: Command) -> Command:
        own = inspect.signature(command).parameters
        fields = {
            name: field
            for name, field in model.model_fields.items()
            if name not in own and name not in without
        }
        defaults = {name: _default(field) for name, field in fields.items()}
        return _with_options(command, fields, defaults, flags or {})

    return give


def overrides_of(model: type[BaseModel], *names: str) -> Callable[[Command], Command]:
    """Give a command an option for each of these settings, laid over those of a file: ``None`` where it is not given.

    The command gets them as the dictionary ``settings``.
    """

    def give(command: Command) -> Command:
        fields = {name: model.model_fields[name] for name in names}
        return _with_options(command, fields, dict.fromkeys(names), {})

    return give


def _with_options(
    command: Command, fields: Mapping[str, FieldInfo], defaults: Mapping[str, Any], flags: Mapping[str, str]
) -> Command:
    """Return ``command`` as typer shall see it, which calls it with the values of ``fields`` as ``settings``."""
    own = inspect.signature(command, eval_str=True).parameters
    made = {name: _option(name, field, defaults[name], flags.get(name)) for name, field in fields.items()}

    @wraps(command)
    def run(**values: Any) -> None:
        settings = {name: _value(fields[name], values.pop(name)) for name in made}
        command(**values, settings=settings)

    parameters = [p for p in own.values() if p.name != "settings"] + list(made.values())
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _default(field: FieldInfo) -> Any:
    default = field.get_default(call_default_factory=True)
    return ",".join(default) if isinstance(default, tuple) else default


def _value(field: FieldInfo, given: Any) -> Any:
    """Return what the model is given for what was said: of several values, each by itself."""
    if given is None or not _is_several(field.annotation):
        return given
    return tuple(part.strip() for part in given.split(",") if part.strip())


def _is_several(annotation: Any) -> bool:
    """Whether a setting is a tuple, or may be one."""
    return get_origin(annotation) is tuple or any(get_origin(part) is tuple for part in get_args(annotation))


def _option(name: str, field: FieldInfo, default: Any, flag: str | None) -> inspect.Parameter:
    """Return the parameter that typer makes an option of."""
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
    if _is_several(field.annotation) and "commas" not in sentence:
        sentence = f"{sentence} Several with commas between."
    words = [word for word in _words(field.annotation) if word not in sentence]
    return f"{sentence} ({', '.join(words)})" if words else sentence


def _words(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [value for value in get_args(annotation) if isinstance(value, str)]
    return [word for part in get_args(annotation) for word in _words(part)]
