"""Methods add up: ``cwd+kd`` trains the student on the terms of both, each with its own constants."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy
from typing import Any

from pydantic import create_model

from napari_kdseg.distillation.declarations import Recipe
from napari_kdseg.distillation.distiller import Given, Method, MethodName
from napari_kdseg.distillation.settings import AloneSettings

SHARED = set(AloneSettings.model_fields)


def combine(methods: Sequence[Method[Any]]) -> Method[AloneSettings]:
    """Return the method that is the sum of ``methods``.

    Its constants are those of all parts, each named ``<part>_<constant>``; the segmentation loss is there once. The
    terms add up as they are: give them other weights where the sum should not count each fully.
    """
    prefixes = _prefixes(methods)
    fields: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    for prefix, method in zip(prefixes, methods, strict=True):
        for name, declared in method.settings_class.model_fields.items():
            if name not in SHARED:
                field = copy(declared)
                field.title = f"{method.title}: {declared.title}"
                fields[f"{prefix}_{name}"] = (declared.annotation, field)
        overrides |= {key if key in SHARED else f"{prefix}_{key}": v for key, v in method.overrides.items()}
    name = "+".join(method.name for method in methods)
    model = create_model("CombinedSettings", __base__=AloneSettings, __module__=__name__, **fields)
    model.__doc__ = f"Constants of {name}."

    def build(settings: AloneSettings, given: Given) -> Recipe:
        recipe = Recipe()
        for prefix, method in zip(prefixes, methods, strict=True):
            recipe += method.recipe(_part(settings, prefix, method), given)
        return recipe

    def caution(classes: int, batch_size: int) -> list[str]:
        return [sentence for method in methods for sentence in method.caution(classes, batch_size)]

    return Method(
        name=name,
        title=" + ".join(method.title for method in methods),
        sentence=" ".join(method.sentence for method in methods),
        reference="; ".join(method.reference for method in methods if method.reference),
        equation="; ".join(method.equation for method in methods),
        scale="; ".join(method.scale for method in methods if method.scale),
        settings_class=model,
        build=build,
        needs_teacher=any(method.needs_teacher for method in methods),
        needs_labels=any(method.needs_labels for method in methods),
        needs_features=any(method.needs_features for method in methods),
        needs_batch=all(method.needs_batch for method in methods),
        needs_classes=any(method.needs_classes for method in methods),
        needs_segmenting_teacher=any(method.needs_segmenting_teacher for method in methods),
        caution=caution,
        overrides=overrides,
        sum_of=tuple(methods),
    )


def _prefixes(methods: Sequence[Method[Any]]) -> list[str]:
    """A name for each part that can begin a field's name; a method taken twice gets a number."""
    names: list[str] = []
    for method in methods:
        name = re.sub(r"\W+", "_", MethodName.read(method.name).base)
        names.append(name if name not in names else f"{name}_{len(names) + 1}")
    return names


def _part(settings: AloneSettings, prefix: str, method: Method[Any]) -> AloneSettings:
    """Take the constants of one part out of the sum's."""
    names = method.settings_class.model_fields
    part: AloneSettings = method.settings_class(
        **{name: getattr(settings, name if name in SHARED else f"{prefix}_{name}") for name in names}
    )
    return part
