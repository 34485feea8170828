"""How a synthetic slide is named.

``synthetic:100000x80000?seed=0&mpp=0.25`` names one: width x height in pixels, the seed, and micrometres per pixel.
``stain=3`` stains it in another laboratory; ``folds=0``, ``pen=0`` and ``blur=0`` leave out what goes wrong in one.
``bounds=x,y,width,height`` has it say, as MRXS does, which part was scanned.
``mask=tissue|gland|tumour|classes`` chooses what the ground truth tells; ``classes=3`` is short for ``mask=classes``.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

from napari_kdseg.errors import SlideError

SCHEME = "synthetic:"
Bounds = tuple[int, int, int, int]
DEFAULT_SIZE = "100000x80000"

MASKS = {
    "gland": ("background", "gland"),
    "tumour": ("background", "tumour gland"),
    "tissue": ("background", "tissue"),
    "classes": ("background", "benign gland", "tumour gland"),
}
"""What the ground truth can tell, and its classes."""


@dataclass(frozen=True)
class Look:
    """What may differ between two synthetic slides of one size.

    Attributes
    ----------
    seed
        Another seed is another tissue.
    mpp
        Micrometres per level-0 pixel.
    stain
        Number of the laboratory that stained it; 0 is the standard one, others differ in strength and hue.
    folds, pen, blur
        Whether there are folds of the tissue, strokes of a pen on the glass, and fields out of focus.
    bounds
        The part that the file says was scanned, (y, x, height, width) in level-0 pixels; ``None``: it says nothing.
    """

    seed: int = 0
    mpp: float = 0.25
    stain: int = 0
    folds: bool = True
    pen: bool = True
    blur: bool = True
    bounds: Bounds | None = field(default=None, repr=False)  # no pixel depends on it


def is_address(path: str | Path) -> bool:
    """Tell whether ``path`` names a synthetic slide rather than a file."""
    return str(path).startswith(SCHEME)


def parse_address(address: str) -> tuple[tuple[int, int], Look, str]:
    """Read an address: pixels (height, width), the look, and one of :data:`MASKS`.

    Raises
    ------
    SlideError
        If it does not name a slide.
    """
    size, _, query = address.removeprefix(SCHEME).partition("?")
    try:
        match = re.fullmatch(r"(\d+)x(\d+)", size or DEFAULT_SIZE)
        options = dict(parse_qsl(query, strict_parsing=bool(query)))
        width, height = (int(side) for side in match.groups()) if match else (0, 0)
        classes = int(options.pop("classes", 2))
        mask = options.pop("mask", "classes" if classes == 3 else "gland")
        look = Look(
            seed=int(options.pop("seed", 0)),
            mpp=float(options.pop("mpp", 0.25)),
            stain=int(options.pop("stain", 0)),
            **{name: _switch(options.pop(name, "1")) for name in ("folds", "pen", "blur")},
            bounds=_bounds(options.pop("bounds", ""), (height, width)),
        )
        sizes = 0 < width <= 2**24 and 0 < height <= 2**24 and 0.01 <= look.mpp <= 100
        if not sizes or classes not in (2, 3) or mask not in MASKS or look.stain < 0 or options:
            raise ValueError
    except ValueError as error:
        raise SlideError(
            f"{address} does not name a synthetic slide. Write width x height and what should differ from the "
            "default, as in synthetic:100000x80000?seed=0&mpp=0.25; also stain=1, folds=0, pen=0, blur=0, mask=tissue."
        ) from error
    return (height, width), look, mask


def format_address(shape: tuple[int, int], look: Look, mask: str) -> str:
    """Write the address that :func:`parse_address` reads."""
    options = {name: int(value) if isinstance(value, bool) else value for name, value in asdict(look).items()}
    if look.bounds is None:
        del options["bounds"]
    else:
        y, x, height, width = look.bounds
        options["bounds"] = f"{x},{y},{width},{height}"
    query = "&".join(f"{name}={value}" for name, value in {**options, "mask": mask}.items())
    return f"{SCHEME}{shape[1]}x{shape[0]}?{query}"


def _bounds(text: str, shape: tuple[int, int]) -> Bounds | None:
    if not text:
        return None
    x, y, width, height = (int(value) for value in text.split(","))
    if min(x, y) < 0 or min(width, height) < 1 or x + width > shape[1] or y + height > shape[0]:
        raise ValueError(text)
    return y, x, height, width


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(text)
    return text == "1"
