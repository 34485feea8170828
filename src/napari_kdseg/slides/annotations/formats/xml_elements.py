"""XML from elsewhere, read safely: no document types, no entities, element by element, every number checked."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.annotations.model import VertexCount

FORBIDDEN = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")


def elements(content: bytes, name: str) -> Iterator[tuple[str, Element]]:
    """Yield ``("start" or "end", element)`` through a document.

    Raises
    ------
    SlideError
        If it is no XML, or XML that may harm.
    """
    try:
        yield from iterparse(io.BytesIO(content), events=("start", "end"), forbid_dtd=True)
    except (ParseError, LookupError) as error:  # the latter for an encoding nobody knows
        raise SlideError(
            f"{name} is truncated or damaged: it is no well-formed XML ({error}). Export it again."
        ) from error
    except DefusedXmlException as error:
        raise SlideError(
            f"{name} defines a document type or entities, which annotations never need and which can harm. "
            "Export it again from the program that drew them."
        ) from error


def points_of(corners: list[Any], vertices: VertexCount, name: str) -> np.ndarray:
    """Return the ``X`` and ``Y`` attributes of elements, float64 ``[n, 2]``.

    Raises
    ------
    SlideError
        If one is missing or no finite number.
    """
    vertices.add(len(corners))
    try:
        points = np.array(
            [(float(item.attrib["X"]), float(item.attrib["Y"])) for item in corners], np.float64
        )
    except (KeyError, ValueError) as error:
        raise SlideError(f"{name} is damaged: a corner in it has no proper X and Y ({error}).") from error
    if not np.isfinite(points).all():
        raise SlideError(f"{name} is damaged: a corner in it lies at no finite place.")
    return points.reshape(-1, 2)


def allowed(text: str) -> str:
    """Leave out control characters, which XML cannot hold."""
    return FORBIDDEN.sub("", text)


def text_of(value: float) -> str:
    """Write a coordinate so that reading it gives the same number."""
    return str(int(value)) if math.floor(value) == value else repr(float(value))
