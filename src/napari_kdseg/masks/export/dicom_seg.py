"""Masks as DICOM segmentations beside the DICOM slide they lie on, through highdicom (``napari-kdseg[dicom]``)."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np

from napari_kdseg.errors import ConfigurationError, OutputError
from napari_kdseg.files import file_aside
from napari_kdseg.jobs import Control, Emit, Message
from napari_kdseg.masks.disk import writing
from napari_kdseg.masks.pyramid import MaskPyramid
from napari_kdseg.masks.reduction import NOT_COMPUTED

#: highdicom holds the whole segmentation in memory; a finer level than this is left out.
MAX_PIXELS = 2**30
#: Parts of class names, and the SNOMED CT concept they stand for in the code dictionary of pydicom; the first one wins.
CONCEPTS = {
    "adenocarcinoma": "Adenocarcinoma",
    "carcinoma": "Carcinoma",
    "adenoma": "Adenoma",
    "tumour": "Neoplasm",
    "tumor": "Neoplasm",
    "neoplas": "Neoplasm",
    "necro": "Necrosis",
    "inflam": "Inflammation",
    "stroma": "ConnectiveTissue",
    "connective": "ConnectiveTissue",
    "muscle": "MuscleTissue",
    "fat": "AdiposeTissue",
    "adipose": "AdiposeTissue",
    "vessel": "BloodVessel",
    "blood": "Blood",
    "nucle": "Nucleus",
}
ABNORMAL = {"Adenocarcinoma", "Carcinoma", "Adenoma", "Neoplasm", "Necrosis", "Inflammation"}


def write_dicom_seg(path: Path, mask: MaskPyramid, slide: str, emit: Emit, control: Control) -> None:
    """Write a mask as a tiled, binary DICOM SEG with one segment for each class but background.

    It has the pixels of the mask; what was not computed belongs to no segment.

    Parameters
    ----------
    path
        Written whole or not at all; a file of that name is replaced.
    mask
        Classes.
    slide
        The DICOM slide: a file of it, or its folder.
    emit, control
        Messages, pause and cancel.

    Raises
    ------
    ConfigurationError
        If highdicom is not installed, the slide is not DICOM, or the mask is not one of this slide.
    """
    try:
        import highdicom
    except ImportError as error:
        raise ConfigurationError(
            "DICOM segmentations need the package highdicom. Install it with: pip install 'napari-kdseg[dicom]'."
        ) from error
    source = _source_image(Path(slide))
    index = next(number for number, level in enumerate(mask.levels) if level.size <= MAX_PIXELS)
    if index:
        emit(
            Message(
                f"The mask '{mask.name}' is too large for one DICOM file: it is written coarser.", "warning"
            )
        )
    control.check()
    pixels = np.asarray(mask.levels[index])
    pixels[pixels == NOT_COMPUTED] = 0
    beyond = int(pixels.max(initial=0)) - len(mask.classes) + 1
    if beyond > 0:
        raise ConfigurationError(f"The mask '{mask.name}' holds {beyond} classes without a name.")
    _check_position(source, mask, index)
    control.check()
    (measures,) = source.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    spacing = [
        float(side) * factor
        for side, factor in zip(measures.PixelSpacing, mask.downsamples[index], strict=True)
    ]
    segmentation = highdicom.seg.Segmentation(
        source_images=[source],
        pixel_array=pixels[None],
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=_segments(mask),
        series_instance_uid=highdicom.UID(),
        series_number=100,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="napari-kdseg developers",
        manufacturer_model_name="napari-kdseg",
        software_versions=_version(),
        device_serial_number="0",
        content_label="SEGMENTATION",
        content_description=mask.name[:64],
        pixel_measures=highdicom.PixelMeasuresSequence(spacing, float(measures.SliceThickness)),
        tile_pixel_array=True,
        tile_size=(512, 512),
        omit_empty_frames=True,
    )
    with writing(path.name), file_aside(path) as scratch:
        segmentation.save_as(scratch)


def _source_image(slide: Path) -> Any:
    """Return the header of the finest image of a DICOM slide."""
    import pydicom
    from pydicom.errors import InvalidDicomError
    from pydicom.uid import VLWholeSlideMicroscopyImageStorage

    folder = slide if slide.is_dir() else slide.parent
    try:
        series = None if slide.is_dir() else pydicom.dcmread(slide, stop_before_pixels=True).SeriesInstanceUID
        images = []
        for file in sorted(folder.iterdir()):
            if file.is_file() and pydicom.misc.is_dicom(file):
                image = pydicom.dcmread(file, stop_before_pixels=True)
                if image.SOPClassUID == VLWholeSlideMicroscopyImageStorage and image.ImageType[2] == "VOLUME":
                    images.append(image)
        images = [image for image in images if series in (None, image.SeriesInstanceUID)]
        return max(images, key=lambda image: image.TotalPixelMatrixRows)
    except (OSError, InvalidDicomError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"{slide.name} is not a DICOM slide, and only masks of those become DICOM segmentations. Use geojson or "
            "tiff for others."
        ) from error


def _check_position(source: Any, mask: MaskPyramid, index: int) -> None:
    sides = (int(source.TotalPixelMatrixRows), int(source.TotalPixelMatrixColumns))
    for side, count, factor in zip(sides, mask.levels[index].shape, mask.downsamples[index], strict=True):
        if not abs(count - side / factor) <= 1 + 1e-6:
            raise ConfigurationError(
                f"The mask '{mask.name}' lies on a slide of another size than this one ({sides[0]} x {sides[1]} px). "
                "Name the slide it was made for."
            )


def _segments(mask: MaskPyramid) -> list[Any]:
    import highdicom
    from pydicom.sr.codedict import codes

    drawn = "annotation" in mask.metadata.get("made_by", {})
    algorithm = None
    if not drawn:
        algorithm = highdicom.AlgorithmIdentificationSequence(
            mask.name, family=codes.cid7162.ArtificialIntelligence, version=_version()
        )
    segments = []
    for number, name in list(enumerate(mask.classes))[1:]:
        concept = next((concept for word, concept in CONCEPTS.items() if word in name.lower()), "Tissue")
        category = codes.SCT.MorphologicallyAbnormalStructure if concept in ABNORMAL else codes.SCT.Tissue
        segments.append(
            highdicom.seg.SegmentDescription(
                number,
                name[:64],
                segmented_property_category=category,
                segmented_property_type=getattr(codes.SCT, concept),
                algorithm_type="MANUAL" if drawn else "AUTOMATIC",
                algorithm_identification=algorithm,
                display_color=highdicom.color.CIELabColor.from_rgb(*mask.colours[number]),
            )
        )
    if not segments:
        raise OutputError(f"The mask '{mask.name}' has no class but background: there is nothing to write.")
    return segments


def _version() -> str:
    return importlib.metadata.version("napari-kdseg")
