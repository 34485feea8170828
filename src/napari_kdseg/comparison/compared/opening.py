"""Whatever holds classes on a slide becomes a :class:`ComparedMask`: our stores, files of others, arrays, shapes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_kdseg.comparison.compared.dicom_seg import is_dicom, open_dicom_seg
from napari_kdseg.comparison.compared.mask import ComparedMask, Role
from napari_kdseg.errors import ConfigurationError, DataError
from napari_kdseg.inference.provenance import file_sha256
from napari_kdseg.masks.metadata import journal_path, read_attributes
from napari_kdseg.masks.names import folder_of, meant
from napari_kdseg.masks.pyramid import MaskPyramid, open_masks
from napari_kdseg.masks.writing.journal import read_journal
from napari_kdseg.slides import Annotation, AnnotationShape, Slide, open_annotation
from napari_kdseg.slides.annotations.suffixes import is_annotation_file

Source = str | Path | MaskPyramid | np.ndarray | Sequence[AnnotationShape]


def open_compared(
    source: Source, slide: Slide, *, role: Role, name: str | None = None, bounds: bool | None = None
) -> ComparedMask:
    """Open a mask that is to be compared with others.

    Parameters
    ----------
    source
        A mask store ``*.ome.zarr``, also with the name of the mask behind it (``masks.ome.zarr?student``), or a mask
        of one that is open; a DICOM segmentation; or whatever :func:`~napari_kdseg.slides.open_annotation` takes:
        outlines (GeoJSON, XML), masks (PNG, TIFF, OME-Zarr), ``synthetic:``, an integer array over the whole slide,
        shapes.
    slide
        The slide it lies on.
    role
        What it is in the comparison.
    name
        For people; by default that of the mask or of its file.
    bounds
        Whether a file of outlines counts from the corner of the scanned area; ``None``: as
        :func:`~napari_kdseg.slides.open_annotation` decides by its kind.

    Returns
    -------
    ComparedMask
        Not mapped to common classes yet: :func:`~napari_kdseg.comparison.compared.class_mapping.common_classes`.

    Raises
    ------
    KdsegError
        If it cannot be read, lies on another slide, or holds nothing.
    """
    if isinstance(source, MaskPyramid):
        return _of_store(source, slide, role, name)
    if isinstance(source, str | Path):
        place, _, wanted = str(source).partition("?")
        path = Path(place).expanduser()
        if is_store(path):
            return _of_store(_choose(path, wanted, role), slide, role, name)
        if is_dicom(path):
            annotation = open_dicom_seg(path, slide)
            return _of_annotation(annotation, source, slide, role, name, ())
    annotation = open_annotation(source, slide, bounds=bounds)
    return _of_annotation(annotation, source, slide, role, name, tuple(annotation.notes))


def is_store(path: Path) -> bool:
    """Tell whether a folder is a mask store of this program."""
    try:
        return "slide" in read_attributes(path)["kdseg"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _choose(path: Path, wanted: str, role: Role) -> MaskPyramid:
    masks = {name: mask for name, mask in open_masks(path).items() if mask.classes}
    known = ", ".join(masks) or "none"
    if wanted:
        wanted = meant(wanted, masks)
        if wanted not in masks:
            raise ConfigurationError(f"{path.name} holds no mask {wanted!r} of classes. There is: {known}.")
        return masks[wanted]
    segmented = [name for name, mask in masks.items() if mask.metadata.get("quantity") == "class"]
    if role in segmented:
        return masks[role]
    if len(segmented) == 1:
        return masks[segmented[0]]
    raise ConfigurationError(
        f"{path.name} holds several masks or none ({known}): say which one is the {role}, for instance "
        f"{path.name}?{next(iter(segmented), 'student')}."
    )


def _of_store(mask: MaskPyramid, slide: Slide, role: Role, name: str | None) -> ComparedMask:
    store = mask.path.parent.parent
    about = read_attributes(store)["kdseg"]["slide"]
    if about["identity"] != slide.identity():
        raise DataError(
            f"The {role} ({store.name}) lies on another slide, {about['name']}, not on {slide.name}. Choose masks of "
            "one slide."
        )
    done = _tiles_done(mask, store)
    if done is not None and not done:
        raise DataError(
            f"The {role} ({mask.name} in {store.name}) is empty: no tile of it is done yet. Wait until its prediction "
            "has begun, or choose another mask."
        )
    notes = []
    if mask.metadata.get("status") == "unfinished":
        notes.append(
            f"The {role} ({mask.name}) is still growing or was stopped: what is not computed yet is left out. Compare "
            "again when it is finished."
        )
    state = hashlib.sha256(json.dumps(sorted(done or ())).encode()).hexdigest()
    return ComparedMask(
        role=role,
        name=name or mask.name,
        classes=mask.classes,
        colours=mask.colours,
        read_own=mask.read_scaled,
        downsample=mask.downsample,
        made_by={"mask": mask.name, "made_by": mask.metadata["made_by"], "tiles": state},
        probabilities=_probabilities(mask, store),
        store=store,
        notes=tuple(notes),
    )


def _tiles_done(mask: MaskPyramid, store: Path) -> list[tuple[int, int]] | None:
    """Return which tiles a mask has; ``None`` where nothing says so."""
    first = (mask.metadata["made_by"].get("masks") or [f"labels/{mask.name}"])[0]
    try:
        journal = journal_path(folder_of(store, first))
    except (OSError, ValueError, KeyError):
        return None
    return list(read_journal(journal).done) if journal.exists() else None


def _probabilities(mask: MaskPyramid, store: Path) -> MaskPyramid | None:
    """Return the probabilities of a mask, if they were kept with it."""
    found = open_masks(store).get(f"probabilities/{mask.name}")
    if found is None or found.metadata["made_by"] != mask.metadata["made_by"]:
        return None
    return found


def _of_annotation(
    annotation: Annotation, source: Any, slide: Slide, role: Role, name: str | None, notes: tuple[str, ...]
) -> ComparedMask:
    outlines = not isinstance(source, np.ndarray | str | Path) or (
        isinstance(source, str | Path) and is_annotation_file(source)
    )
    default = Path(str(source)).name if isinstance(source, str | Path) else "shapes" if outlines else "array"
    return ComparedMask(
        role=role,
        name=name or default,
        classes=annotation.classes,
        colours=annotation.colours,
        read_own=annotation.read_scaled,
        downsample=None if outlines else annotation.downsample,
        made_by={"source": _identity(source), "classes": list(annotation.classes), "slide": slide.identity()},
        notes=notes,
    )


def _identity(source: Any) -> dict[str, str]:
    if isinstance(source, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(source).tobytes())
        digest.update(f"{source.shape} {source.dtype}".encode())
        return {"array": digest.hexdigest()}
    if isinstance(source, str | Path):
        path = Path(str(source)).expanduser()
        return {"name": path.name, "sha256": file_sha256(path)} if path.exists() else {"name": str(source)}
    digest = hashlib.sha256()
    for shape in source:
        digest.update(shape.geometry.wkb + str(shape.class_name).encode())
    return {"shapes": digest.hexdigest()}
