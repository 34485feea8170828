"""Example tiles as one picture: image, annotation, the four soft labels of a correction, students, who mended what."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from napari_kdseg.codes import MENDED_BY
from napari_kdseg.colours import as_hex, class_colour
from napari_kdseg.distillation import Correction

SHOWN = 6
"""Rows of the picture."""

NOTHING = "white"
"""Background, and pixels that were right from the start."""

STEPS = tuple(meaning.name for meaning in MENDED_BY.values())
STEP_COLOURS = (NOTHING, *(as_hex(meaning.colour) for code, meaning in MENDED_BY.items() if code))


@dataclass(frozen=True)
class Example:
    """One tile: pictures by title, which step mended each pixel, and its classes."""

    image: np.ndarray
    maps: dict[str, np.ndarray]
    mended_by: np.ndarray
    classes: tuple[str, ...]

    @classmethod
    def of_batch(
        cls,
        images: np.ndarray,
        correction: Correction,
        answers: Mapping[str, Tensor],
        classes: tuple[str, ...],
    ) -> list[Self]:
        """Take the tiles of a batch in which anything was mended."""
        maps = {
            "annotation": correction.target,
            "teacher": correction.initial.argmax(dim=1),
            "after TA_f": correction.false_pixel.argmax(dim=1),
            "after TA_b": correction.boundary.argmax(dim=1),
            "after SC": correction.ultimate.argmax(dim=1),
            **{f"student: {name}": answer for name, answer in answers.items()},
        }
        arrays = {name: tensor.cpu().numpy().astype(np.uint8) for name, tensor in maps.items()}
        mended_by = correction.mended_by.cpu().numpy()
        return [
            cls(images[n], {name: one[n] for name, one in arrays.items()}, mended_by[n], classes)
            for n in range(len(images))
            if ((mended_by[n] > 0) & (mended_by[n] < 255)).any()
        ]

    @property
    def mended(self) -> list[int]:
        """Pixels mended by each step."""
        return [int((self.mended_by == code).sum()) for code in range(1, 5)]

    @classmethod
    def best(cls, examples: Sequence[Self]) -> list[Self]:
        """Choose the tile in which each step mended most, then those in which most was mended."""
        chosen: list[int] = []
        by_step = np.array([one.mended for one in examples]).reshape(-1, 4)
        counts = [*by_step.T, by_step.sum(axis=1)]
        orders = [np.argsort(-count, kind="stable").tolist() for count in counts]
        for step, order in enumerate(orders):
            wanted = SHOWN - len(chosen) if step == 4 else 1
            chosen += [n for n in order if n not in chosen][:wanted]
        return [examples[n] for n in chosen[:SHOWN]]


def draw_examples(examples: Sequence[Example]) -> bytes:
    """Draw tiles as PNG, a row a tile."""
    figure = Figure(figsize=(15, 1.75 * max(len(examples), 1) + 0.9), layout="constrained")
    if not examples:
        figure.text(0.5, 0.5, "The teacher has no false pixel.", ha="center")
        return _png(figure)
    columns = ["image", *examples[0].maps, "mended by"]
    axes = figure.subplots(len(examples), len(columns), squeeze=False)
    classes = examples[0].classes
    colours = [NOTHING, *(as_hex(class_colour(index)) for index in range(1, len(classes)))]
    steps = ListedColormap(STEP_COLOURS)
    for row, example in zip(axes, examples, strict=True):
        row[0].imshow(
            example.image[..., :3] if example.image.shape[-1] >= 3 else example.image[..., 0], cmap="gray"
        )
        for axis, values in zip(row[1:-1], example.maps.values(), strict=True):
            shown = np.where(values < len(classes), values, 0)
            axis.imshow(
                shown, cmap=ListedColormap(colours), vmin=0, vmax=len(classes) - 1, interpolation="nearest"
            )
        step = np.where(example.mended_by < len(STEPS), example.mended_by, 0)
        row[-1].imshow(step, cmap=steps, vmin=0, vmax=len(STEPS) - 1, interpolation="nearest")
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title, fontsize=8)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    handles = [Patch(facecolor=c, edgecolor="grey", label=n) for c, n in zip(colours, classes, strict=True)]
    handles += [
        Patch(facecolor=c, edgecolor="grey", label=n) for c, n in zip(STEP_COLOURS, STEPS, strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=7, fontsize=7)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    return buffer.getvalue()
