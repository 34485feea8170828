"""A slide as napari layers: RGB or one layer a channel, in stored colours or sRGB, and as stains.

Every layer names in its metadata the slide it belongs to, and the slide whose pixels it shows, which may be one
computed from it (:meth:`~napari_kdseg.slides.Slide.mapped`).
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from napari_kdseg.slides.pixels.progressive import PATIENCE
from napari_kdseg.widgets._compat import as_multiscale, napari_is_slicing
from napari_kdseg.widgets.layers.annotation_masks import annotation_layer
from napari_kdseg.widgets.layers.placement import (
    COLOURS_KEY,
    ROLE_KEY,
    SLIDE_KEY,
    SOURCE_KEY,
    LayerTuple,
    find,
    placement,
    put_in_order,
)
from napari_kdseg.widgets.state.remembered import remembered_colours

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_kdseg.slides import LevelArray, Slide
    from napari_kdseg.slides.views.colour import Colours

SHOWN_CHANNELS = 6
CHANNEL_COLOURS = (
    (r"dapi|hoechst|\bblue\b", "blue"),
    (r"fitc|gfp|488|\bgreen\b", "green"),
    (r"tritc|cy3|rhod|texas|mcherry|555|568|594|\bred\b", "red"),
    (r"cy5|647|far.?red", "magenta"),
    (r"cy7|750", "cyan"),
)
OTHER_COLOURS = ("green", "magenta", "cyan", "yellow", "red", "blue", "gray")
STAIN_COLOURS = {"haematoxylin": (0.18, 0.13, 0.45), "eosin": (0.80, 0.12, 0.42)}
STAIN_RANGE = (0.0, 180.0)


def slide_layers(slide: Slide, annotation: str | None = None) -> list[LayerTuple]:
    """The slide and, if given, its annotation as layer tuples. Reads files: not for the GUI thread."""
    made = image_layers(slide)
    if annotation is not None:
        made.append(annotation_layer(annotation, slide))
    return made


def image_layers(slide: Slide, colours: Colours | None = None) -> list[LayerTuple]:
    """Return the slide as layer tuples (data, options, type). Reads the coarsest level: not for the GUI thread.

    Parameters
    ----------
    slide
        Brightfield slides become one RGB layer, all others one layer a channel.
    colours
        ``"srgb"`` applies the colour profile, if it changes anything; by default what was chosen last.
    """
    if not slide.brightfield:
        slide.prepare()
        return _channel_layers(slide)
    from napari_kdseg.slides.views.colour import changes_colours, profile_name, with_colours

    chosen = colours or remembered_colours()
    if profile_name(slide) is None or not changes_colours(slide):
        chosen = "stored"
    source = with_colours(slide, chosen)
    source.prepare()
    options = {
        "name": slide.name,
        "rgb": True,
        "multiscale": True,
        "contrast_limits": (0, 255),
        "metadata": {SLIDE_KEY: slide, SOURCE_KEY: source, COLOURS_KEY: chosen, ROLE_KEY: "slide"},
        **placement(1.0, slide.mpp),
    }
    return [(as_multiscale(shown_levels(source)), options, "image")]


def shown_levels(slide: Slide) -> list[LevelArray]:
    """Return the levels of a slide for a layer: napari draws what is there at once, others wait for the pixels."""
    from napari_kdseg.slides import LevelArray

    patient, hasty = slide.as_layers(), slide.as_layers(patience=PATIENCE)
    drawn = [
        LevelArray(partial(_read, *pair), pair[0].shape, pair[0].dtype, pair[0].chunks)
        for pair in zip(patient, hasty, strict=True)
    ]
    return [*drawn[:-1], hasty[-1]]  # the coarsest is in memory since it was prepared


def _read(patient: LevelArray, hasty: LevelArray, y: int, x: int, height: int, width: int) -> np.ndarray:
    level = hasty if napari_is_slicing() else patient
    return level[y : y + height, x : x + width]


def _channel_layers(slide: Slide) -> list[LayerTuple]:
    levels = shown_levels(slide)
    coarsest = slide.read(len(slide.levels) - 1, 0, 0, *slide.levels[-1].shape)
    made = []
    for index, name in enumerate(slide.channel_names):
        limits = _limits(coarsest[..., index])
        options = {
            "name": f"{slide.name}: {name}",
            "rgb": False,
            "multiscale": True,
            "colormap": channel_colour(name, index),
            "blending": "additive",
            "contrast_limits": limits,
            "visible": index < SHOWN_CHANNELS and bool((coarsest[..., index] > limits[0]).any()),
            "metadata": {SLIDE_KEY: slide, SOURCE_KEY: slide, ROLE_KEY: "slide"},
            **placement(1.0, slide.mpp),
        }
        made.append((as_multiscale(_channel(levels, index)), options, "image"))
    return made


def _channel(levels: list[LevelArray], index: int) -> list[LevelArray]:
    return [level.channel(index) for level in levels]


def channel_colour(name: str, index: int) -> str:
    """Return the napari colormap for a channel: by its dye or colour if the name tells, else by turns."""
    for pattern, colour in CHANNEL_COLOURS:
        if re.search(pattern, name, re.IGNORECASE):
            return colour
    return OTHER_COLOURS[index % len(OTHER_COLOURS)]


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Return what is to be black and what is to be bright: 8 bits as they are, else nearly the range there is."""
    if values.dtype == np.uint8:
        return 0.0, 255.0
    low, high = (float(value) for value in np.nanpercentile(values, (1.0, 99.8)))
    return low, high if high > low else low + 1.0


def show_colours(viewer: Viewer, source: Slide, colours: Colours) -> None:
    """Give the slide's RGB layer the pixels of ``source`` (from :func:`~napari_kdseg.slides.with_colours`)."""
    layer = find(viewer, "slide")
    if layer is not None:
        layer.metadata.update({SOURCE_KEY: source, COLOURS_KEY: colours})
        layer.data = as_multiscale(shown_levels(source))


def show_stain(viewer: Viewer, view: Slide, stain: str, slide: Slide) -> Image:
    """Show the amount of one stain over the slide, white where there is none.

    Parameters
    ----------
    viewer
        Where.
    view
        From :func:`~napari_kdseg.slides.stain_view`, prepared.
    stain
        ``"haematoxylin"`` or ``"eosin"``.
    slide
        The slide it is of.
    """
    from napari.utils.colormaps import Colormap

    hide_stain(viewer)
    index = view.channel_names.index(stain)
    layer = viewer.add_image(
        as_multiscale(_channel(shown_levels(view), index)),
        name=stain,
        rgb=False,
        multiscale=True,
        colormap=Colormap([(1, 1, 1), STAIN_COLOURS[stain]], name=f"kdseg {stain}"),
        contrast_limits=STAIN_RANGE,
        metadata={SOURCE_KEY: view, ROLE_KEY: "stain"},
        **placement(1.0, slide.mpp),
    )
    layer.contrast_limits_range = (0, 255)
    put_in_order(viewer)
    return layer


def hide_stain(viewer: Viewer) -> None:
    """Take the stain view away."""
    layer = find(viewer, "stain")
    if layer is not None:
        viewer.layers.remove(layer)
