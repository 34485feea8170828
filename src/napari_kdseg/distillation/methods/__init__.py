"""One published method a file, and the list of them. A new method is one file here and one line below."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import Any

from napari_kdseg.distillation.combination import combine
from napari_kdseg.distillation.distiller import Method, MethodName, did_you_mean
from napari_kdseg.errors import ConfigurationError

_FILES = {
    "plc_kd": ("PLC_KD", "PLC_KD_PAPER"),
    "coco": ("COCO",),
    "emkd": ("EMKD", "EMKD_PAPER"),
    "kd": ("KD",),
    "fitnet": ("FITNET",),
    "mimic": ("MIMIC",),
    "attention_transfer": ("AT",),
    "fsp": ("FSP",),
    "spkd": ("SPKD",),
    "pair_wise": ("PA",),
    "skd": ("SKD",),
    "ifvd": ("IFVD",),
    "cwd": ("CWD",),
    "cirkd": ("CIRKD",),
    "dkd": ("DKD",),
    "local_affinity": ("LOCAL",),
    "dist": ("DIST",),
    "mgd": ("MGD",),
    "logit_standardisation": ("LOGIT_STANDARDISATION",),
    "alone": ("ALONE",),
}
METHODS: dict[str, Method[Any]] = {
    method.name: method
    for file, constants in _FILES.items()
    for method in (getattr(import_module(f"{__name__}.{file}"), constant) for constant in constants)
}


def method_names() -> list[str]:
    """Return the name of every method and, as ``method:variant``, of every variant."""
    names = []
    for method in METHODS.values():
        names += [method.name, *(str(MethodName(method.name, preset)) for preset in method.presets)]
    return names


@cache
def get_method(name: str) -> Method[Any]:
    """Return a method by name, e.g. ``"plc-kd"``, its variant ``"plc-kd:f+b"``, or a sum such as ``"cwd+kd"``.

    ``"@2"`` behind a name lets it learn from the second teacher: ``"kd+cwd@2"``.

    Raises
    ------
    ConfigurationError
        If there is no such method or variant; the message names the nearest.
    """
    parts = _parts(name.strip().lower())
    return _one(parts[0]) if len(parts) == 1 else combine([_one(part) for part in parts])


def family_of(name: str) -> str:
    """Return the method that ``name`` is a variant of: ``"plc-kd"`` of ``"plc-kd:f+b"``; ``name`` itself of any other.

    A sum is a variant of nothing, and neither is a method that learns from another teacher. No such method need exist:
    a table may be older than a change of names.
    """
    read = MethodName.read(name)
    return read.base if read.preset and len(_parts(name.strip().lower())) == 1 else name


def _one(name: str) -> Method[Any]:
    read = MethodName.read(name)
    base, preset, number = read
    plain = read.plain
    if base not in METHODS:
        raise ConfigurationError(f"There is no distillation method '{plain}'.{did_you_mean(base, METHODS)}")
    method = METHODS[base].preset(preset) if preset else METHODS[base]
    if number is None:
        return method
    if not number.isdecimal() or int(number) < 1:
        raise ConfigurationError(
            f"'@{number}' does not name a teacher. Write {plain}@2 to let {plain} learn from the second one."
        )
    return replace(method, name=name, title=f"{method.title} from teacher {number}", teacher=int(number) - 1)


def _parts(name: str) -> list[str]:
    """Divide at the plus signs, except at those within the name of a variant such as ``plc-kd:f+b``."""
    parts: list[str] = []
    for piece in name.split("+"):
        longer = f"{parts[-1]}+{piece}" if parts else ""
        base, preset, _ = MethodName.read(longer)
        known = MethodName.read(piece).base in METHODS
        if preset and base in METHODS and _begins_variant(METHODS[base], preset) and not known:
            parts[-1] = longer
        else:
            parts.append(piece)
    return parts


def _begins_variant(method: Method[Any], preset: str) -> bool:
    return any(known == preset or known.startswith(f"{preset}+") for known in method.presets)


__all__ = ["METHODS", "family_of", "get_method", "method_names"]
