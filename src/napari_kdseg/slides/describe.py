"""The facts of a slide in people's units, for the window and the command line."""

from __future__ import annotations

from napari_kdseg.slides.slide import Slide


def describe(slide: Slide) -> list[tuple[str, str]]:
    """The facts of a slide in people's units, a (name, text) pair each."""
    height, width = slide.levels[0].shape
    facts = [("Name", slide.name)]
    if slide.mpp is not None:
        mpp_y, mpp_x = slide.mpp
        facts.append(("Size", f"{width * mpp_x / 1000:.2f} x {height * mpp_y / 1000:.2f} mm"))
    facts.append(("Pixels", f"{width:,} x {height:,}, {_count(len(slide.levels), 'level')}"))
    if slide.mpp is not None:
        same = abs(slide.mpp[0] - slide.mpp[1]) < 1e-6
        facts.append(
            (
                "Scale",
                f"{slide.mpp[1]:.4g} µm per pixel" if same else f"{slide.mpp[1]:.4g} x {slide.mpp[0]:.4g} µm",
            )
        )
    if slide.objective_power:
        facts.append(("Objective", f"{slide.objective_power:g}x"))
    facts.append(("Read by", slide.reader))
    return facts


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
