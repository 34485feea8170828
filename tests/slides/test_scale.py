"""Micrometres per pixel: every spelling of a unit, and no scale believed that no slide has."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import zarr

from napari_kdseg.slides import SlideError, describe_in_full, open_slide
from napari_kdseg.slides.scale import is_plausible, length_um


@pytest.mark.parametrize(
    ("unit", "wanted"),
    [
        *[(unit, 1.0) for unit in ("um", "µm", "μm", "Âµm", "\ufffdm", "?m", "\\u00B5m", "UM", " um ")],
        *[
            (unit, 1.0)
            for unit in ("micron", "Microns", "micrometer", "micrometre", "Micrometers", "&#181;m")
        ],
        *[("nm", 1e-3), ("nanometer", 1e-3), ("mm", 1e3), ("cm", 1e4), ("m", 1e6), ("metre", 1e6)],
        *[("Å", 1e-4), ("\u212b", 1e-4), ("angstrom", 1e-4), ("inch", 25400.0), ("in", 25400.0)],
        *[(unit, None) for unit in ("", None, "pixel", "furlong", "px", "unit", "km")],
    ],
)
def test_units(unit, wanted):
    assert length_um(unit) == wanted


def test_the_limits():
    assert is_plausible((0.02, 20.0))
    assert not is_plausible((0.019, 0.5))
    assert not is_plausible((0.5, 20.1))
    assert not is_plausible((0.5, float("inf")))


@pytest.mark.parametrize(
    "name", ["imagej_micron.tif", "ome_latin1.ome.tif", "ome_utf16_declared.ome.tif"]
)  # each README: 0.5 um
def test_scales_that_were_not_found(real_data, name):
    path = real_data / "awkward" / "scale_not_found_imagej_and_ome_encoding" / name
    if not path.exists():
        pytest.skip(f"there is no {path}")
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx((0.5, 0.5), rel=1e-6)


def test_a_unit_of_ome_zarr(real_data):
    path = real_data / "awkward" / "ome_zarr_levels_reversed_units_axes" / "unit_um.ome.zarr"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    with open_slide(path) as slide:
        assert slide.mpp == (0.5, 0.5)


def test_a_pixel_of_half_a_millimetre_is_doubted(real_data):
    path = real_data / "awkward" / "svs_absurd_pixel_size" / "slide.svs"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    with open_slide(path) as slide:
        assert slide.metadata.mpp == (499.0, 499.0)
        assert slide.mpp is None
        assert slide.scale_doubt == (
            "The file says 499 µm per pixel, which is not believed: a slide has 0.02 to 20. "
            "In nanometres it would be 0.499 µm."
        )
        assert slide.scale_doubt in dict(describe_in_full(slide))["Scale"]


def _tiff(path, **options):
    tifffile.imwrite(path, np.full((64, 64, 3), 200, np.uint8), photometric="rgb", tile=(32, 32), **options)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {"resolution": (72, 72), "resolutionunit": "INCH", "metadata": None},  # print: 352.8 um
        {"resolution": (10, 10), "resolutionunit": "CENTIMETER", "metadata": None},  # libvips' default: 1 mm
        {"metadata": {"axes": "YXS", "PhysicalSizeX": 250, "PhysicalSizeY": 250}, "ome": True},
        {"metadata": {"axes": "YXS", "PhysicalSizeX": 1e-3, "PhysicalSizeY": 1e-3}, "ome": True},
    ],
)
def test_scales_that_are_doubted(tmp_path, options):
    with open_slide(_tiff(tmp_path / "a.tif", **options)) as slide:
        assert slide.metadata.mpp is not None
        assert slide.mpp is None
        assert "is not believed" in slide.scale_doubt
        slide.mpp = 0.5
        assert slide.mpp == (0.5, 0.5)


def test_a_zarr_scale_that_is_doubted(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    group.create_array("0", shape=(64, 64), chunks=(64, 64), dtype="uint8")
    scale = [{"type": "scale", "scale": [0.5, 0.5]}]
    axes = [{"name": name, "type": "space", "unit": "millimeter"} for name in "yx"]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    with open_slide(tmp_path / "a.zarr") as slide:
        assert slide.metadata.mpp == (500.0, 500.0)
        assert slide.mpp is None


def test_a_person_is_asked_again(tmp_path):
    path = _tiff(tmp_path / "a.tif", metadata=None)
    for wrong in (499, 0.001, (0.5, 300.0)):
        with pytest.raises(SlideError, match=r"0\.02 to 20 µm wide, not .*499 nm are 0\.499"):
            open_slide(path, mpp=wrong)


def test_a_kept_scale_that_no_slide_has_is_not_used(tmp_path):
    path = _tiff(tmp_path / "a.tif", metadata=None)
    with open_slide(path) as slide:
        notes = f'{{"slide": "a.tif", "identity": "{slide.identity()}", "mpp": [499, 499]}}'
    (tmp_path / "a.tif.kdseg.json").write_text(notes)
    with (
        pytest.warns(UserWarning, match="pixel size kept for a.tif, 499 µm, was ignored"),
        open_slide(path) as slide,
    ):
        assert slide.mpp is None
