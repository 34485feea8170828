"""One published method a file, and the list of them. A new method is one file here and one line below."""

from __future__ import annotations

from napari_kdseg.distillation.distiller import Method, did_you_mean
from napari_kdseg.distillation.methods.alone import ALONE
from napari_kdseg.distillation.methods.kd import KD
from napari_kdseg.distillation.methods.plc_kd import PLC_KD
from napari_kdseg.errors import ConfigurationError

METHODS: dict[str, Method] = {method.name: method for method in (PLC_KD, KD, ALONE)}


def method_names() -> list[str]:
    """Return the name of every method and, as ``method:variant``, of every variant."""
    names = []
    for method in METHODS.values():
        names += [method.name, *(f"{method.name}:{preset}" for preset in method.presets)]
    return names


def get_method(name: str) -> Method:
    """Return a method by name, e.g. ``"plc-kd"`` or ``"plc-kd:no-sc"``.

    Raises
    ------
    ConfigurationError
        If there is no such method or variant; the message names the nearest.
    """
    base, _, preset = name.strip().lower().partition(":")
    if base not in METHODS:
        raise ConfigurationError(f"There is no distillation method '{name}'.{did_you_mean(base, METHODS)}")
    return METHODS[base].preset(preset) if preset else METHODS[base]


__all__ = ["METHODS", "get_method", "method_names"]
