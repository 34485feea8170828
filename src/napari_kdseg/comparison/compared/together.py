"""Several masks of one slide on one grid, read together: what every figure of a comparison is counted on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from napari_kdseg.comparison.compared.class_mapping import Said, common_classes
from napari_kdseg.comparison.compared.mask import ComparedMask, Role
from napari_kdseg.errors import ConfigurationError
from napari_kdseg.masks.reduction import NOT_COMPUTED
from napari_kdseg.masks.tiling import mask_shape
from napari_kdseg.slides import Slide

Pair = tuple[float, float]


@dataclass(frozen=True)
class Together:
    """Masks of one slide on one grid.

    Attributes
    ----------
    masks
        Two or more, each with a role of its own, mapped to the common classes.
    classes, colours
        The common classes.
    downsample, shape
        Of the grid: ``(y, x)`` against level 0 of the slide, and ``(height, width)``.
    slide_mpp
        Micrometres a level-0 pixel ``(y, x)``; ``None`` without a scale.
    within
        Outlines or a mask outside of which nothing is compared: where it is 0 or 255.
    annotated
        Compare only what the reference knows.
    notes
        How the grid was chosen and what the masks say of themselves.
    """

    masks: tuple[ComparedMask, ...]
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    downsample: Pair
    shape: tuple[int, int]
    slide_mpp: Pair | None
    within: ComparedMask | None = None
    annotated: bool = False
    notes: tuple[str, ...] = field(default=())

    @property
    def spacing(self) -> float:
        """Width of a pixel of the grid in micrometres, or 1 without a scale: the root of its area."""
        if self.slide_mpp is None:
            return 1.0
        return math.sqrt(math.prod(self.downsample) * math.prod(self.slide_mpp))

    @property
    def pixel_mm2(self) -> float | None:
        """Area of a pixel of the grid in square millimetres; ``None`` without a scale."""
        return None if self.slide_mpp is None else self.spacing**2 / 1e6

    @property
    def pair(self) -> tuple[ComparedMask, ComparedMask]:
        """The two whose disagreement is mapped: the first two."""
        return self.masks[0], self.masks[1]

    @property
    def pairs(self) -> list[tuple[ComparedMask, ComparedMask]]:
        """The two that are mapped, and the reference, or else the first mask, against every other one."""
        truth = self.mask("reference") or self.masks[0]
        against = [(truth, mask) for mask in self.masks if mask is not truth]
        return against if truth is self.masks[0] else [self.pair, *against]

    def mask(self, role: Role) -> ComparedMask | None:
        """Return the mask of a role."""
        return next((mask for mask in self.masks if mask.role == role), None)

    def at(self, downsample: Pair) -> Together:
        """Return the same masks on another grid."""
        if downsample == self.downsample:
            return self
        factors = [now / then for now, then in zip(self.downsample, downsample, strict=True)]
        height, width = (max(1, math.ceil(n * f - 1e-6)) for n, f in zip(self.shape, factors, strict=True))
        return replace(self, downsample=downsample, shape=(height, width))

    def read(self, y: int, x: int, height: int, width: int) -> dict[str, np.ndarray]:
        """Read a block of the grid, which may reach beyond the slide.

        Returns
        -------
        dict
            By role: common classes, uint8 ``[height, width]``; 255 where a mask says nothing, and where nothing is
            compared.
        """
        box = (y, x, height, width)
        blocks: dict[str, np.ndarray] = {m.role: m.read(self.downsample, *box) for m in self.masks}
        left_out = None
        if self.within is not None:
            inside = self.within.read_own(self.downsample, *box)
            left_out = (inside == 0) | (inside == NOT_COMPUTED)
        if self.annotated:
            unknown = blocks["reference"] == NOT_COMPUTED
            left_out = unknown if left_out is None else left_out | unknown
        if left_out is not None and left_out.any():
            blocks = {role: np.where(left_out, NOT_COMPUTED, block) for role, block in blocks.items()}
        return blocks

    def read_gap(self, y: int, x: int, height: int, width: int) -> np.ndarray | None:
        """Read by how much the stored probabilities of the mapped pair differ.

        Returns
        -------
        numpy.ndarray or None
            int16 ``[height, width]``, in parts of 254, -1 where one of them has none; ``None`` where none were kept.
        """
        stored = [mask.read_probability(self.downsample, y, x, height, width) for mask in self.pair]
        first, second = stored
        if first is None or second is None:
            return None
        gap = np.abs(first.astype(np.int16) - second)
        gap[(first == NOT_COMPUTED) | (second == NOT_COMPUTED)] = -1
        return gap


def put_together(
    masks: Sequence[ComparedMask],
    slide: Slide,
    *,
    said: Said | None = None,
    mpp: float | None = None,
    within: ComparedMask | None = None,
    annotated: bool = False,
) -> Together:
    """Lay masks on one grid and give them one list of classes.

    Parameters
    ----------
    masks
        In the order of their roles; the first two are the pair whose disagreement is mapped.
    slide
        They lie on it.
    said
        Which class is which, see :func:`~napari_kdseg.comparison.compared.class_mapping.common_classes`.
    mpp
        Width of a pixel of the grid in micrometres. By default the grid is that of the finest mask; outlines have no
        pixels and are looked up at the centres of the grid's.
    within, annotated
        What is compared, see :class:`Together`.

    Raises
    ------
    ConfigurationError
        If there are fewer than two masks, two of one role, or what is asked contradicts them.
    """
    roles = [mask.role for mask in masks]
    if len(masks) < 2 or len(set(roles)) < len(roles):
        raise ConfigurationError(
            f"A comparison takes two masks or more, each with a role of its own, not {', '.join(roles) or 'none'}."
        )
    if annotated and "reference" not in roles:
        raise ConfigurationError("Only the annotated part can be compared when a reference says which it is.")
    mapped, classes = common_classes(masks, said)
    colours = _colours(mapped, classes)
    downsample, why = _grid(mapped, slide, mpp)
    notes = [note for mask in mapped for note in mask.notes]
    return Together(
        masks=tuple(mapped),
        classes=classes,
        colours=colours,
        downsample=downsample,
        shape=mask_shape(slide.shape, downsample),
        slide_mpp=slide.mpp,
        within=within,
        annotated=annotated,
        notes=(*notes, why),
    )


def _grid(masks: Sequence[ComparedMask], slide: Slide, mpp: float | None) -> tuple[Pair, str]:
    """Return the downsample of the grid, and a sentence that says it."""
    if mpp is not None:
        if slide.mpp is None:
            raise ConfigurationError(f"{slide.name} has no scale: give --slide-mpp, or no resolution.")
        downsample = (mpp / slide.mpp[0], mpp / slide.mpp[1])
        return downsample, f"Compared at {_in_words(downsample, slide)}, as asked."
    pixels = [mask for mask in masks if mask.downsample is not None]
    if not pixels:
        return (
            1.0,
            1.0,
        ), f"Outlines have no pixels: compared at {_in_words((1.0, 1.0), slide)}, full resolution."
    finest = min(pixels, key=lambda mask: math.prod(mask.downsample or (1.0, 1.0)))
    assert finest.downsample is not None
    grid = _in_words(finest.downsample, slide)
    if all(np.allclose(mask.downsample, finest.downsample, rtol=1e-6) for mask in pixels):  # type: ignore[arg-type]
        return finest.downsample, f"Compared at {grid}, the grid of the masks."
    return finest.downsample, f"Compared at {grid}, the grid of the {finest.role}, which is the finest."


def _in_words(downsample: Pair, slide: Slide) -> str:
    if slide.mpp is None:
        return f"1/{downsample[0]:g} of full resolution"
    return f"{downsample[0] * slide.mpp[0]:.4g} µm a pixel"


def _colours(masks: Sequence[ComparedMask], classes: tuple[str, ...]) -> tuple[tuple[int, int, int], ...]:
    """Take the colour of each common class from the first mask that has it."""
    found: dict[int, tuple[int, int, int]] = {}
    for mask in masks:
        for own, colour in enumerate(mask.colours):
            found.setdefault(mask.mapping.get(own, own), colour)
    return tuple(found.get(index, (128, 128, 128)) for index in range(len(classes)))
