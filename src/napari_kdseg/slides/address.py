"""How a person asks of a file what it does not give by itself: ``slide.ome.tif?series=1&as=rgb&white=4095``.

``series`` is the picture, counted from 1; ``as`` is what its numbers mean; ``white`` is the value that is white.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import parse_qsl

from napari_kdseg.errors import SlideError

Kind = Literal["rgb", "channels", "grey"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OPTIONS = ("series", "as", "white")


@dataclass(frozen=True)
class Asked:
    """What a person wants otherwise than it is by default.

    Attributes
    ----------
    series
        Which of the pictures of a file is the slide, counted from 1.
    kind
        ``"rgb"``: a picture in colours; ``"channels"``: the numbers as they are stored, each channel by itself;
        ``"grey"``: one value a pixel.
    white
        The stored value that is white (or full colour): 4095 of 12 bits.
    """

    series: int | None = None
    kind: Kind | None = None
    white: float | None = None


def split_address(path: str | Path) -> tuple[Path, Asked]:
    """Take apart the path of a file and what is asked of it; a file whose own name holds a ``?`` is taken as it is.

    Raises
    ------
    SlideError
        If an option is not known or its value means nothing.
    """
    text, _, query = str(path).rpartition("?")
    whole = Path(path).expanduser().absolute()
    if not text or "=" not in query or whole.exists():
        return whole, Asked()
    options = dict(parse_qsl(query, keep_blank_values=True))
    try:
        if set(options) - set(OPTIONS):
            raise ValueError
        series = int(options["series"]) if "series" in options else None
        kind = _kind(options["as"]) if "as" in options else None
        white = float(options["white"]) if "white" in options else None
        if (series is not None and series < 1) or (white is not None and not 0 < white < math.inf):
            raise ValueError
    except ValueError:
        raise SlideError(
            f"?{query} is not understood. It may be ?series=2 (the second picture of the file), ?as=rgb, ?as=channels "
            "or ?as=grey (what its numbers mean), ?white=4095 (the value that is white), or several joined by &."
        ) from None
    return Path(text).expanduser().absolute(), Asked(series, kind, white)


def join_address(file: Path, asked: Asked) -> str:
    """Return the path that asks so of a file; the file alone where nothing is asked."""
    white = None if asked.white is None else f"{asked.white:.17g}"
    options = {"series": asked.series, "as": asked.kind, "white": white}
    query = "&".join(f"{name}={value}" for name, value in options.items() if value is not None)
    return f"{file}?{query}" if query else str(file)


def _kind(text: str) -> Kind:
    for kind in KINDS:
        if kind == text:
            return kind
    raise ValueError
