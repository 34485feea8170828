"""The mask store: an OME-Zarr 0.5 folder with a small overview of the slide, its masks, and what made each of them.

::

    slide.ome.zarr/          zarr.json: multiscales of the overview, and which slide this is
      0/                     the overview, uint8 [3, h, w], and the locks of masks that are being written
      labels/<name>/         zarr.json: multiscales, image-label, and what made the mask
        0/ 1/ 2/ ...         uint8 classes, 255 = not computed; 0/ also holds the journal
        s0/ s1/ s2/ ...      instead of those when all tiles are done: the same, packed into few large files
      probabilities/<name>/  the same, quantised: 0..254 for 0..1, 255 = none
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from napari_kdseg.errors import InTheWayError, OutputError
from napari_kdseg.files import made_aside
from napari_kdseg.masks import names as mask_names
from napari_kdseg.masks.disk import WriteLock, flush_names, flush_tree, recover, writing
from napari_kdseg.masks.metadata import remove_leftovers
from napari_kdseg.masks.reduction import NOT_COMPUTED
from napari_kdseg.masks.writing.packing import COMPRESSION
from napari_kdseg.masks.writing.slabs import Slab
from napari_kdseg.masks.writing.writer import MaskWriter
from napari_kdseg.slides import Slide
from napari_kdseg.slides.writing import ome_zarr

Pair = tuple[float, float]
FORMAT = 1
OVERVIEW_SIDE = 1024
#: napari keeps the coarsest level in memory and never reads it again; one as small as this is never shown.
SMALLEST_SIDE = 64
#: Two jobs of this program may begin masks in one store at the same moment.
_begin_lock = threading.Lock()


@dataclass(frozen=True)
class MaskSpec:
    """What one mask holds.

    Attributes
    ----------
    group, name
        Folder in the store: ``labels/<name>`` or ``probabilities/<name>``.
    quantity
        In words: ``"class"``, ``"probability of the predicted class"``.
    classes, colours
        Names and ``(r, g, b)`` of the classes, for labels.
    """

    group: Literal["labels", "probabilities"]
    name: str
    quantity: str
    classes: tuple[str, ...] = ()
    colours: tuple[tuple[int, int, int], ...] = ()


class MaskStore:
    """A mask store on disk, made for one slide.

    Parameters
    ----------
    path
        The ``*.ome.zarr`` folder; made, with the overview, when it does not exist.
    slide
        The slide that its masks lie on.
    like
        Another store of this slide, whose overview is taken: a slide may take seconds to draw one.

    Raises
    ------
    OutputError
        If the folder cannot be written, holds something else, or belongs to another slide.
    """

    def __init__(self, path: Path, slide: Slide, like: Path | None = None):
        self.path = Path(path)
        self._slide = slide
        self._like = like
        with writing(self.path.name):
            if self.path.is_dir() and not any(self.path.iterdir()):
                self.path.rmdir()  # a folder that was only just made for the masks
            if not self.path.exists():
                self._create()
        self._check_slide()

    def begin(
        self,
        masks: Sequence[MaskSpec],
        *,
        shape: tuple[int, int],
        downsample: Pair,
        tile: int,
        made_by: dict[str, Any],
        overwrite: bool = False,
        slab: Slab | None = None,
    ) -> MaskWriter:
        """Open masks that are written together, new ones or those of an earlier run with the same settings.

        Parameters
        ----------
        masks
            They share their grid; the first one holds the journal.
        shape, downsample
            Of the finest level: ``(height, width)``, and ``(y, x)`` against level 0 of the slide.
        tile
            Side of a tile and chunk.
        made_by
            Everything that determines the values, as JSON. Masks made by something else are not continued.
        overwrite
            Replace masks made by something else instead of refusing.
        slab
            What is written, of masks that are there already; others may write other slabs meanwhile.

        Raises
        ------
        OutputError
            If a mask of this name was made by something else, is being written, or cannot be written.
        """
        names = [f"{mask.group}/{mask.name}" for mask in masks]
        recipe = json.loads(json.dumps({**made_by, "masks": names}))
        folders = [mask_names.folder_of(self.path, name) for name in names]
        with _begin_lock, writing(self.path.name), contextlib.ExitStack() as stack:
            locks = [
                stack.enter_context(contextlib.closing(lock))
                for folder in folders
                for lock in self._locks(folder, slab)
            ]
            if slab is None:
                for folder in folders:
                    recover(self._scratch(folder), folder)
            known = [self._recipe(folder) for folder in folders]
            if slab is not None and None in known:
                raise OutputError(f"{self.path.name} does not hold {names[known.index(None)]} (any more).")
            if any(other != recipe for other in known):
                self._make_way(folders, known, recipe, overwrite)
                for mask, folder in zip(masks, folders, strict=True):
                    self._make(folder, mask, shape, downsample, tile, recipe)
                self._list_labels()
            if slab is None:
                for folder in folders:
                    remove_leftovers(folder)
            writer = MaskWriter(
                folders, shape=shape, tile=tile, downsample=downsample, locks=locks, slab=slab
            )
            stack.pop_all()  # from now on the writer's
            return writer

    def _scratch(self, folder: Path) -> Path:
        """Where the lock of a mask lies, and where its folder is made: a folder that no mask ever replaces."""
        scratch = self.path / "0" / folder.parent.name
        scratch.mkdir(exist_ok=True)
        return scratch

    def _locks(self, folder: Path, slab: Slab | None) -> Iterator[WriteLock]:
        """Take the lock of a mask alone; writers of slabs share it, and take that of their slab alone."""
        lock = self._scratch(folder) / f"{folder.name}.lock"
        yield WriteLock(lock, shared=slab is not None)
        if slab is not None:
            yield WriteLock(slab.journal(lock))
            return
        for left in Slab.of_journals(lock):  # whoever held them is gone
            left.journal(lock).unlink(missing_ok=True)

    def made_by(self, mask: str) -> dict[str, Any] | None:
        """Return what ``"labels/<name>"`` was made by: ``None`` without such a mask, empty if that is not recorded."""
        return self._recipe(mask_names.folder_of(self.path, mask))

    def _create(self) -> None:
        height, width = self._slide.shape
        factor = max(1.0, max(height, width) / OVERVIEW_SIDE)
        rows, columns = max(1, round(height / factor)), max(1, round(width / factor))
        downsample = (height / rows, width / columns)
        image = self._overview_of_other((3, rows, columns))
        if image is None:
            overview = self._slide.read_scaled(downsample, 0, 0, rows, columns)
            image = np.moveaxis(_as_rgb(overview), -1, 0)
        ome: dict[str, Any] = {
            "version": ome_zarr.VERSION,
            "multiscales": ome_zarr.multiscales(
                self._slide.name, [downsample], self._slide.mpp, channels=True, kind="mean"
            ),
            "omero": ome_zarr.rgb_channels(),
        }
        about = {
            "format": FORMAT,
            "slide": {
                "name": self._slide.name,
                "identity": self._slide.identity(),
                "shape": [height, width],
                "bounds": self._slide.bounds,
            },
            "overview_downsample": downsample,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with made_aside(self.path.parent, self.path, replace=False) as folder:
            group = zarr.create_group(folder, attributes={"ome": ome, "kdseg": about})
            array = group.create_array(
                "0", shape=image.shape, chunks=image.shape, dtype=np.uint8, **COMPRESSION
            )
            array[:] = image

    def _overview_of_other(self, shape: tuple[int, int, int]) -> np.ndarray | None:
        """Return the overview of the store that this one is like, if it is one of this slide."""
        if self._like is None:
            return None
        try:
            group = zarr.open_group(self._like, mode="r")
            known = group.attrs.asdict()["kdseg"]["slide"]["identity"] == self._slide.identity()
            image = np.asarray(group["0"])
        except (KeyError, TypeError, ValueError, OSError):
            return None
        return image if known and image.shape == shape else None

    def _check_slide(self) -> None:
        try:
            about = zarr.open_group(self.path, mode="r").attrs.asdict()["kdseg"]
            known = about["slide"]
        except (KeyError, ValueError, OSError) as error:
            raise OutputError(
                f"{self.path.name} already exists and is not a mask store of this program. Choose another name."
            ) from error
        if about["format"] > FORMAT:
            raise OutputError(
                f"{self.path.name} was made by a newer version of this program. Choose another name."
            )
        if known["identity"] != self._slide.identity():
            raise OutputError(
                f"{self.path.name} holds masks of another slide ({known['name']}). "
                f"Choose another name for the masks of {self._slide.name}."
            )

    def _recipe(self, folder: Path) -> dict[str, Any] | None:
        """What made the mask in ``folder``: ``None`` without a mask, empty if that is not recorded."""
        if not folder.exists():
            return None
        try:
            made_by = dict(zarr.open_group(folder, mode="r").attrs.asdict()["kdseg"]["made_by"])
        except (KeyError, TypeError, ValueError, FileNotFoundError):
            return {}
        return mask_names.renamed(self.path, made_by)

    def _make_way(
        self, folders: list[Path], known: list[dict[str, Any] | None], recipe: dict[str, Any], overwrite: bool
    ) -> None:
        """Refuse to replace masks that were made by something else, or drop their companions if that is allowed."""
        for folder, other in zip(folders, known, strict=True):
            if other is None:
                continue
            differences = sorted(
                key for key in other.keys() | recipe.keys() if other.get(key) != recipe.get(key)
            )
            if differences and not overwrite:
                raise InTheWayError(
                    f"{self.path.name} already holds {mask_names.name_of(folder)}, made with another "
                    f"{_in_words(differences)}. Choose another name, or allow it to be replaced."
                )
            companions = {mask_names.folder_of(self.path, name) for name in other.get("masks", [])}
            for companion in companions - set(folders):
                for lock in self._locks(companion, None):  # refused while it is being written
                    with contextlib.closing(lock):
                        shutil.rmtree(companion, ignore_errors=True)

    def _make(
        self,
        folder: Path,
        mask: MaskSpec,
        shape: tuple[int, int],
        downsample: Pair,
        tile: int,
        recipe: dict[str, Any],
    ) -> None:
        shapes = pyramid_shapes(shape)
        downsamples = [(downsample[0] * 2**level, downsample[1] * 2**level) for level in range(len(shapes))]
        kind = "mode" if mask.group == "labels" else "mean"
        ome: dict[str, Any] = {
            "version": ome_zarr.VERSION,
            "multiscales": ome_zarr.multiscales(mask.name, downsamples, self._slide.mpp, kind=kind),
        }
        if mask.group == "labels":
            ome["image-label"] = ome_zarr.image_label(mask.classes, mask.colours)
        about = {
            "quantity": mask.quantity,
            "classes": mask.classes,
            "colours": mask.colours,
            "slide_mpp": self._slide.mpp,
            "downsamples": downsamples,
            "tile": tile,
            "made_by": recipe,
            "regions": [],
            "status": "unfinished",
        }
        folder.parent.mkdir(exist_ok=True)
        with made_aside(self._scratch(folder), folder, replace=True) as aside:
            group = zarr.create_group(aside, attributes={"ome": ome, "kdseg": about})
            for level, level_shape in enumerate(shapes):
                group.create_array(
                    str(level),
                    shape=level_shape,
                    chunks=(tile, tile),
                    dtype=np.uint8,
                    fill_value=NOT_COMPUTED,
                    dimension_names=("y", "x"),
                    **COMPRESSION,
                )
            flush_tree(aside)
        flush_names([folder.parent])

    def _list_labels(self) -> None:
        """Bring the list of labels up to date: OME-Zarr readers look there, not at the folders."""
        group = zarr.open_group(self.path / "labels", mode="a")
        names = sorted(member.parent.name for member in (self.path / "labels").glob("*/zarr.json"))
        group.attrs.update({"ome": {"version": ome_zarr.VERSION, "labels": names}})


def pyramid_shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the shapes of all levels, each half of the one before (rounded up), down to a thumbnail."""
    shapes = [shape]
    while max(shapes[-1]) > SMALLEST_SIDE:
        shapes.append(((shapes[-1][0] + 1) // 2, (shapes[-1][1] + 1) // 2))
    return shapes


def _as_rgb(image: np.ndarray) -> np.ndarray:
    """Turn any image ``[h, w, c]`` into uint8 RGB for the overview; other than RGB is stretched to its own range."""
    if image.dtype == np.uint8 and image.shape[-1] == 3:
        return image
    grey = image.astype(np.float32).max(axis=-1)
    low, high = float(grey.min()), float(grey.max())
    stretched = np.rint((grey - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
    return np.repeat(stretched[..., None], 3, axis=-1)


def _in_words(names: Sequence[str]) -> str:
    words = [name.replace("_", " ") for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
