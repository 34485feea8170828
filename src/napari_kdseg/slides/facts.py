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
    if not slide.brightfield:
        facts.append(("Channels", ", ".join(slide.channel_names)))
    if slide.metadata.picture:
        facts.append(("Picture", slide.metadata.picture))
    facts.append(("Read as", f"{slide.read_as}. {slide.mend}" if slide.mend else slide.read_as))
    if slide.metadata.orientation:
        facts.append(("Orientation", slide.metadata.orientation))
    if slide.plane:
        facts.append(("Shown", f"{slide.plane}; the others are not read"))
    facts.append(("Read by", slide.reader))
    return facts


def describe_in_full(slide: Slide) -> list[tuple[str, str]]:
    """Everything that helps to understand a file: also its levels, how and by whom it is read, and its hash."""
    facts = [(name, text) for name, text in describe(slide) if name not in ("Channels", "Read by")]
    if slide.bounds is not None:
        y, x, height, width = slide.bounds
        facts.append(
            (
                "Scanned",
                f"{width:,} x {height:,} pixels, from {x:,}, {y:,} on, where QuPath counts from",
            )
        )
    if slide.mpp is None:
        said = f"not known. {slide.scale_doubt} Give" if slide.scale_doubt else "not in the file; give"
        facts.append(("Scale", f"{said} it with kdseg info SLIDE --slide-mpp, or in the Slide dock"))
    for index, level in enumerate(slide.levels):
        height, width = level.shape
        computed = "" if index < len(slide.metadata.levels) else ", computed from the level before"
        tile = f"tiles of {level.tile[1]} x {level.tile[0]}"
        facts.append(
            (
                f"Level {index}",
                f"{width:,} x {height:,}, {level.downsample[1]:.6g}x smaller, {tile}{computed}",
            )
        )
    channels = ", ".join(slide.channel_names)
    facts.append(("Channels", f"{channels} ({slide.dtype})"))
    if slide.metadata.compression:
        facts.append(("Compression", slide.metadata.compression))
    facts.append(("Read by", f"{slide.reader}. {slide.reader_reason}".strip()))
    if slide.icc:
        facts.append(("ICC profile", f"{len(slide.icc):,} bytes"))
    if slide.associated:
        facts.append(("Pictures", ", ".join(slide.associated)))
    facts.append(("Hash", slide.identity()))
    return facts


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
