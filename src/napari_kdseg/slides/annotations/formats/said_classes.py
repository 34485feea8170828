"""The class of a GeoJSON feature: where it is said, and what programs other than QuPath call it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from napari_kdseg.slides.annotations.model import AnnotationShape, Colour

ELSEWHERE = ("type", "class", "class_name", "className", "label", "category", "cell_type", "Classification")
"""Properties that other programs keep the class in; ``type`` is TIAToolbox's."""


def classification(item: Any) -> tuple[str | None, Colour | None]:
    """Return name and colour of a class: QuPath's object, the same as text of JSON or Python, or a bare name.

    A class derived from another has several names.
    """
    if isinstance(item, str) and item.lstrip().startswith("{"):  # GeoPandas and others flatten it to text
        item = _unpacked(item)
    if not isinstance(item, dict):
        return text(item) or None, None
    several = [text(name) or "" for name in item.get("names") or []]
    name = text(item.get("name")) or ": ".join(several) or None
    return name, _colour(item.get("color", item.get("colorRGB")))


def text(item: Any) -> str | None:
    """Return a name, also where a number stands for one.

    Raises
    ------
    TypeError
        If it is neither.
    """
    if item is None or isinstance(item, str):
        return item
    if isinstance(item, int | float) and not isinstance(item, bool):
        return f"{item:g}" if isinstance(item, float) else str(item)
    raise TypeError("a name is no text")


def _unpacked(item: str) -> Any:
    try:
        return json.loads(item)
    except ValueError:
        try:
            return ast.literal_eval(item)
        except (ValueError, SyntaxError):
            return item  # a name that begins with a brace


def _colour(item: Any) -> Colour | None:
    if isinstance(item, int):  # as Java packs it: alpha, red, green, blue, and usually negative
        return (item >> 16) & 255, (item >> 8) & 255, item & 255
    if isinstance(item, str):
        if not re.fullmatch(r"#?[0-9a-fA-F]{6}", item):
            raise ValueError(f"its colour {item[:20]!r} is not understood")
        return _colour(int(item.removeprefix("#"), 16))
    if item is None:
        return None
    red, green, blue = (int(value) & 255 for value in item[:3])
    return red, green, blue


def classes_elsewhere(
    shapes: Sequence[AnnotationShape], name: str, notes: list[str]
) -> list[AnnotationShape]:
    """Where no shape has a class, take it from the one property that can only mean it; else say what may.

    Parameters
    ----------
    shapes
        Of one file.
    name
        Of the file.
    notes
        What was decided is added to it.
    """
    if not shapes or any(shape.class_name is not None for shape in shapes):
        return list(shapes)
    said = [shape.extra.get("properties", {}) for shape in shapes]
    everywhere = [
        key for key in said[0] if all(isinstance(each.get(key), str) and each[key] for each in said)
    ]
    known = [key for key in ELSEWHERE if key in everywhere]
    if known:
        notes.append(f"{name} has no classification: the class of each object is its property {known[0]!r}.")
        return [replace(shape, class_name=each[known[0]]) for shape, each in zip(shapes, said, strict=True)]
    differing = [key for key in everywhere if len({each[key] for each in said}) > 1]
    if differing:
        notes.append(
            f"Nothing in {name} is classified, but {' and '.join(map(repr, differing))} differ between its objects. If "
            "this is their class, write it into 'classification'."
        )
    return list(shapes)
