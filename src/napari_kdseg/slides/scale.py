"""Micrometres per pixel: units as files write them, and which scales are believed."""

from __future__ import annotations

import math
import re
import unicodedata

from napari_kdseg.slides.geometry import Pair

PLAUSIBLE_MPP = (0.02, 20.0)
"""Micrometres per pixel that are believed of a slide, wherever they come from; 72 dpi is 352.8."""

PREFIXES = {"n": 1e-3, "u": 1.0, "m": 1e3, "c": 1e4, "": 1e6}
OTHER_LENGTHS = {
    "å": 1e-4,
    "angstrom": 1e-4,
    "ångström": 1e-4,
    "micron": 1.0,
    "microns": 1.0,
    "in": 25400.0,
    "inch": 25400.0,
    "inches": 25400.0,
}
MICRO = re.compile(r"(â?μ|\\u00b5|\\u03bc|&#181;|&micro;|\ufffd|mc|\?)(?=m)")
"""The micro sign as it comes: its two code points made one (NFKC), read with the wrong encoding, or written out."""

SPELT = (("nano", "n"), ("micro", "u"), ("milli", "m"), ("centi", "c"), ("", ""))


def length_um(unit: str | None) -> float | None:
    """Return the micrometres of a unit of length, however it is spelt; ``None`` if it is not known.

    ``um``, ``µm`` (either sign, in any encoding), ``micron``, ``micrometer`` and ``micrometre`` are the same.
    """
    text = unicodedata.normalize("NFKC", str(unit)).strip().lower()
    text = MICRO.sub("u", text)
    for name, prefix in SPELT:
        if re.fullmatch(f"{name}met(er|re)s?", text):
            return PREFIXES[prefix]
    if text in OTHER_LENGTHS:
        return OTHER_LENGTHS[text]
    return PREFIXES.get(text[:-1]) if text.endswith("m") else None


def is_plausible(mpp: Pair) -> bool:
    """Tell whether a pixel may be so large: within :data:`PLAUSIBLE_MPP` on both axes."""
    low, high = PLAUSIBLE_MPP
    return all(math.isfinite(side) and low <= side <= high for side in mpp)


def doubt(mpp: Pair) -> str:
    """Say why a scale is not believed, with what it may have meant."""
    low, high = PLAUSIBLE_MPP
    nanometres = (mpp[0] / 1000, mpp[1] / 1000)
    hint = f" In nanometres it would be {nanometres[1]:.4g} µm." if is_plausible(nanometres) else ""
    return f"The file says {mpp[1]:.4g} µm per pixel, which is not believed: a slide has {low:g} to {high:g}.{hint}"
