"""Slides of scanners that are TIFF inside: described by OpenSlide, decoded directly, the same pixels."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile

from napari_kdseg.slides import open_slide
from napari_kdseg.slides.readers.tiff.page import PageTiles

TILE = 256


def write_philips(path: Path, levels: list[np.ndarray], *, absent: tuple[int, ...] = ()) -> Path:
    """Write a Philips TIFF: pages padded to whole tiles, tiles of glass left out, scale and levels in XML."""
    spacings = [0.00025 * 2**index for index in range(len(levels))]
    described = "".join(
        '<DataObject ObjectType="PixelDataRepresentation">'
        f'<Attribute Name="DICOM_PIXEL_SPACING" PMSVR="IDoubleArray">"{spacing}" "{spacing}"</Attribute>'
        f'<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_NUMBER" PMSVR="IUInt16">{index}</Attribute>'
        "</DataObject>"
        for index, spacing in enumerate(spacings)
    )
    xml = (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        '<Attribute Name="PIM_DP_SCANNED_IMAGES" PMSVR="IDataObjectArray"><Array>'
        '<DataObject ObjectType="DPScannedImage">'
        '<Attribute Name="PIM_DP_IMAGE_TYPE" PMSVR="IString">WSI</Attribute>'
        f'<Attribute Name="DICOM_PIXEL_SPACING" PMSVR="IDoubleArray">"{spacings[0]}" "{spacings[0]}"</Attribute>'
        '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" PMSVR="IDataObjectArray">'
        f"<Array>{described}</Array></Attribute>"
        "</DataObject></Array></Attribute></DataObject>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for index, level in enumerate(levels):
            height, width = (-(-side // TILE) * TILE for side in level.shape[:2])
            padded = np.full((height, width, 3), 255, np.uint8)
            padded[: level.shape[0], : level.shape[1]] = level
            tiles = [
                imagecodecs.jpeg8_encode(
                    np.ascontiguousarray(padded[y : y + TILE, x : x + TILE]),
                    level=90,
                    outcolorspace="ycbcr",
                    subsampling="420",
                )
                for y in range(0, height, TILE)
                for x in range(0, width, TILE)
            ]
            for place in absent if index == 0 else ():
                tiles[place] = b""
            tif.write(
                iter(tiles),
                shape=padded.shape,
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=int(index > 0),
                description=xml if index == 0 else f"level={index}",
                software="Philips DP v1.0",
                metadata=None,
            )
    return path


def write_aperio(path: Path, pixels: np.ndarray, compression: int, encode) -> Path:
    """Write an Aperio slide of one level."""
    height, width = pixels.shape[:2]
    tiles = []
    for y in range(0, height, TILE):
        for x in range(0, width, TILE):
            tile = np.full((TILE, TILE, 3), 255, np.uint8)
            part = pixels[y : y + TILE, x : x + TILE]
            tile[: part.shape[0], : part.shape[1]] = part
            tiles.append(encode(tile))
    tifffile.imwrite(
        path,
        iter(tiles),
        shape=pixels.shape,
        dtype=np.uint8,
        tile=(TILE, TILE),
        photometric="rgb",
        compression=compression,
        description=f"Aperio Image Library v11.2.1\r\n{width}x{height} |AppMag = 40|MPP = 0.2500",
        software=False,
        metadata=None,
    )
    return path


def openslide_pixels(path: Path) -> np.ndarray:
    """Read all of level 0, glass being white."""
    with openslide.OpenSlide(path) as slide:
        rgba = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))
    return np.where(rgba[..., 3:] == 0, 255, rgba[..., :3])


def test_philips(tmp_path, pyramid):
    path = write_philips(tmp_path / "philips.tiff", pyramid, absent=(4,))
    assert openslide.OpenSlide.detect_format(path) == "philips"
    with open_slide(path) as slide:
        assert slide.reader == "tifffile", slide.reader_reason
        assert slide.mpp == pytest.approx((0.25, 0.25))
        assert len(slide.levels) == 3
        with openslide.OpenSlide(path) as reference:
            assert [level.shape[::-1] for level in slide.levels] == list(reference.level_dimensions)
        whole = slide.read(0, 0, 0, *slide.shape)
        np.testing.assert_array_equal(whole, openslide_pixels(path))
        columns = -(-pyramid[0].shape[1] // TILE)
        y, x = (TILE * place for place in divmod(4, columns))
        assert (whole[y : y + TILE, x : x + TILE] == 255).all()
        for level, pixels in enumerate(pyramid):
            height, width = (side - 64 for side in pixels.shape[:2])
            got = slide.read(level, 0, 0, height, width).astype(int)
            different = np.abs(got - pixels[:height, :width]).mean(axis=2)
            assert np.median(different) < 6, level
        assert slide.bad_tiles == []


JP2K = {"codecformat": "j2k", "level": 0, "reversible": True, "mct": False}


def ycbcr(tile: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(tile.astype(float), 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = (luma, 128 + 0.564 * (blue - luma), 128 + 0.713 * (red - luma))
    return np.ascontiguousarray(np.clip(np.rint(np.stack(planes, 2)), 0, 255).astype(np.uint8))


APERIO = {
    "jpeg 2000, rgb": (33005, lambda tile: imagecodecs.jpeg2k_encode(tile, **JP2K)),
    "jpeg 2000, ycbcr": (33003, lambda tile: imagecodecs.jpeg2k_encode(ycbcr(tile), **JP2K)),
    "jpeg": (7, lambda tile: imagecodecs.jpeg8_encode(tile, level=90, outcolorspace="ycbcr")),
}


@pytest.mark.parametrize("name", APERIO)
def test_aperio(name, tmp_path, picture):
    compression, encode = APERIO[name]
    path = write_aperio(tmp_path / "aperio.svs", picture, compression, encode)
    assert openslide.OpenSlide.detect_format(path) == "aperio"
    with open_slide(path) as slide:
        assert slide.reader == "tifffile", slide.reader_reason
        assert (slide.mpp, slide.objective_power) == ((0.25, 0.25), 40)
        whole = slide.read(0, 0, 0, *slide.shape)
        np.testing.assert_array_equal(whole, openslide_pixels(path))
        assert np.abs(whole.astype(int) - picture).mean() < 3


def test_what_differs_from_openslide_is_left_to_it(tmp_path, picture, monkeypatch):
    path = write_aperio(tmp_path / "odd.svs", picture, *APERIO["jpeg"])
    read = PageTiles.read
    monkeypatch.setattr(PageTiles, "read", lambda page, row, column: read(page, row, column) ^ 1)
    with open_slide(path) as slide:
        assert slide.reader == "openslide"
        assert "differ from those of OpenSlide" in slide.reader_reason
        np.testing.assert_array_equal(slide.read(0, 0, 0, *slide.shape), openslide_pixels(path))


def test_absent_tiles_of_aperio_are_left_to_openslide(tmp_path, picture):
    encoded = iter(range(100))

    def encode(tile: np.ndarray) -> bytes:
        return b"" if next(encoded) == 3 else APERIO["jpeg"][1](tile)

    path = write_aperio(tmp_path / "holes.svs", picture, 7, encode)
    with open_slide(path) as slide:
        assert slide.reader == "openslide"
        assert "tiles are missing" in slide.reader_reason


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs"])
def test_every_pixel_of_real_slides_is_that_of_openslide(name, real_data):
    path = real_data / "slides" / name
    with open_slide(path) as slide, openslide.OpenSlide(path) as reference:
        assert slide.reader == "tifffile"
        for y in range(0, slide.shape[0], 1000):
            height = min(1000, slide.shape[0] - y)
            wanted = np.asarray(reference.read_region((0, y), 0, (slide.shape[1], height)))[..., :3]
            np.testing.assert_array_equal(slide.read(0, y, 0, height, slide.shape[1]), wanted)
