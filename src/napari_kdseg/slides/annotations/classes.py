"""Class names become class indices, and overlapping shapes get their order.

Without a mapping, classes are numbered from 1 in the order in which they first appear. Three names are special, in any
case: ``background`` is class 0; ``Region*`` (QuPath's class for regions of interest) is class 0 too and lies beneath
everything, so that what is not drawn inside a region is background; ``Ignore*`` is not annotated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from napari_kdseg.colours import class_colour
from napari_kdseg.errors import SlideError
from napari_kdseg.slides.annotations.model import AnnotationShape, Colour

NOT_ANNOTATED = 255
BACKGROUND = "background"
REGION, IGNORE = "region*", "ignore*"
UNNAMED = "annotation"
"""Class of shapes for which nobody chose one."""

BACKGROUND_COLOUR = (128, 128, 128)

Classes = Sequence[str] | Mapping[str, int]
Overlap = Literal["smaller", "later"]


def class_of(shape: AnnotationShape) -> str:
    """Name the class of a shape."""
    return shape.class_name or UNNAMED


def class_indices(
    shapes: Sequence[AnnotationShape], classes: Classes | None = None
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Number the classes of shapes.

    Parameters
    ----------
    shapes
        Those of a slide.
    classes
        Names in the order of their indices, background first; or indices by name, several names may share one and 255
        leaves shapes out. ``None``: see the top of this file.

    Returns
    -------
    names, indices
        One name for each class from 0 on, and the index of every class name that occurs.

    Raises
    ------
    SlideError
        If shapes have a class that ``classes`` does not name, or there are more than 254 classes.
    """
    there = list(dict.fromkeys(class_of(shape) for shape in shapes))
    if classes is None:
        indices = _in_order(there)
    else:
        given = dict(classes) if isinstance(classes, Mapping) else {name: i for i, name in enumerate(classes)}
        indices = _special(there) | given
        unknown = [name for name in there if name not in indices]
        if unknown:
            raise SlideError(
                f"The annotations show {', '.join(map(repr, unknown))}, but the classes asked for are "
                f"{', '.join(map(repr, given))}. Name all of them; 0 makes one background and 255 leaves it out."
            )
    if any(not 0 <= index <= NOT_ANNOTATED for index in indices.values()):
        raise SlideError("Class indices go from 0 (background) to 254; 255 leaves a class out.")
    named = {index: name for name, index in reversed(indices.items()) if name.lower() not in (REGION, IGNORE)}
    named[0] = named.get(0, BACKGROUND)
    highest = max((index for index in named if index != NOT_ANNOTATED), default=0)
    names = tuple(named.get(index, f"class {index}") for index in range(max(highest, 1) + 1))
    return names, {name: indices[name] for name in there}


def class_colours(
    count: int, shapes: Sequence[AnnotationShape] = (), indices: Mapping[str, int] | None = None
) -> tuple[Colour, ...]:
    """Return a colour for each of ``count`` classes: of the first shape of the class that has one, or a default."""
    given = {
        (indices or {})[class_of(shape)]: shape.colour
        for shape in reversed(shapes)
        if shape.colour is not None
    }
    default = (BACKGROUND_COLOUR, *(class_colour(index) for index in range(1, count + 1)))
    return tuple(given.get(index, default[index]) for index in range(count))


def _special(names: Sequence[str]) -> dict[str, int]:
    meaning = {BACKGROUND: 0, REGION: 0, IGNORE: NOT_ANNOTATED}
    return {name: meaning[name.lower()] for name in names if name.lower() in meaning}


def _in_order(names: Sequence[str]) -> dict[str, int]:
    special = _special(names)
    others = [name for name in names if name not in special]
    if len(others) >= NOT_ANNOTATED:
        raise SlideError(
            f"The annotations name {len(others)} classes, more than the 254 that a mask can hold. Give objects of one "
            "kind the same class, and put what tells them apart into their names."
        )
    return special | {name: index for index, name in enumerate(others, start=1)}


def default_outside(indices: Mapping[str, int]) -> int:
    """Say what lies outside of all shapes: not annotated if something is drawn as background, else background."""
    return NOT_ANNOTATED if 0 in indices.values() else 0


def painting_order(shapes: Sequence[AnnotationShape], overlap: Overlap) -> np.ndarray:
    """Return indices of shapes from the bottom to the top.

    Parameters
    ----------
    shapes
        Those of a slide.
    overlap
        ``"smaller"``: a smaller shape lies on a larger one, whatever their order; ``"later"``: a later one on an
        earlier one. Regions of interest are at the bottom either way.
    """
    above = np.array([class_of(shape).lower() != REGION for shape in shapes], dtype=bool)
    areas = np.array([shape.geometry.area for shape in shapes], dtype=np.float64)
    second = -areas if overlap == "smaller" else np.zeros(len(shapes))
    return np.lexsort((np.arange(len(shapes)), second, above))
