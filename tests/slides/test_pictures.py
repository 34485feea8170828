"""Which of the pictures in a file is the slide: the largest, in every container and in any order."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from napari_kdseg.slides import SlideError, describe_in_full, open_slide
from napari_kdseg.slides.readers.pictures import Picture, choose_picture, fine_to_coarse
from napari_kdseg.slides.sidecar import keep_mpp

SIDES = {"slide": (128, 192), "level": (64, 96), "macro": (40, 90)}


@pytest.fixture(scope="module")
def pixels() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {name: random.integers(0, 256, (*side, 3), dtype=np.uint8) for name, side in SIDES.items()}


@pytest.fixture
def awkward(real_data):
    """Open an awkward file, if it is there."""

    def at(name: str) -> Path:
        path = real_data / "awkward" / name
        if not path.exists():
            pytest.skip(f"there is no {path}")
        return path

    return at


# -- every container -----------------------------------------------------------------------------------------------


def tiff(path: Path, pixels: dict, order: list[str]) -> Path:
    """Pages one after the other; the macro in strips, as scanners keep it."""
    with tifffile.TiffWriter(path) as tif:
        for name in order:
            options = {} if name == "macro" else {"tile": (32, 32)}
            tif.write(
                pixels[name], photometric="rgb", metadata=None, subfiletype=int(name != "slide"), **options
            )
    return path


def big_tiff(path: Path, pixels: dict, order: list[str]) -> Path:
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for name in order:
            tif.write(
                pixels[name],
                photometric="rgb",
                metadata=None,
                tile=(32, 32),
                subfiletype=int(name != "slide"),
            )
    return path


def ome_tiff(path: Path, pixels: dict, order: list[str]) -> Path:
    """An image each for slide and macro, the level in a SubIFD of the slide."""
    with tifffile.TiffWriter(path, ome=True) as tif:
        for name in (name for name in order if name != "level"):
            subifds = int(name == "slide")
            metadata = {"axes": "YXS", "Name": name}
            tif.write(pixels[name], photometric="rgb", tile=(32, 32), subifds=subifds, metadata=metadata)
            if subifds:
                tif.write(pixels["level"], photometric="rgb", tile=(32, 32), subfiletype=1)
    return path


def _multiscale(group: zarr.Group, levels: list[np.ndarray], version: str) -> None:
    axes = [{"name": name, "type": "space", "unit": "um"} for name in "yx"] + [
        {"name": "c", "type": "channel"}
    ]
    datasets = []
    for index, level in enumerate(levels):
        group.create_array(str(index), shape=level.shape, chunks=(32, 32, 3), dtype="uint8")[:] = level
        scale = [0.5 * SIDES["slide"][0] / level.shape[0]] * 2 + [1.0]
        datasets.append(
            {"path": str(index), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        )
    image = {"axes": axes, "datasets": datasets}
    if version == "0.4":
        group.attrs["multiscales"] = [image | {"version": version}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [image]}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_in_any_order(tmp_path, pixels, version):
    """A container of bioformats2raw: the macro first, the levels of the slide from small to large."""
    root = zarr.create_group(tmp_path / "c.zarr", zarr_format=2 if version == "0.4" else 3)
    layout = {"bioformats2raw.layout": 3}
    root.attrs.update(layout if version == "0.4" else {"ome": {"version": version, **layout}})
    _multiscale(root.create_group("0"), [pixels["macro"]], version)
    _multiscale(root.create_group("1"), [pixels["level"], pixels["slide"]], version)
    with open_slide(tmp_path / "c.zarr") as slide:
        check(slide, pixels)
        assert slide.mpp == (0.5, 0.5)
        assert slide.metadata.picture.startswith("series 2 of 2 (the largest)")
    with open_slide(f"{tmp_path / 'c.zarr'}?series=1") as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 0, *slide.shape), pixels["macro"])


def check(slide, pixels: dict, levels: int = 2) -> None:
    assert [level.shape for level in slide.levels] == [SIDES["slide"], SIDES["level"]][:levels]
    assert slide.levels[-1].downsample == ((2.0, 2.0) if levels == 2 else (1.0, 1.0))
    for index, name in enumerate(["slide", "level"][:levels]):
        np.testing.assert_array_equal(slide.read(index, 0, 0, *SIDES[name]), pixels[name])


ORDERS = [
    ["slide", "level", "macro"],
    ["macro", "slide", "level"],
    ["level", "slide", "macro"],
    ["macro", "level", "slide"],
    ["slide", "macro", "level"],
]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("write", [tiff, big_tiff, ome_tiff])
def test_tiff_in_any_order(tmp_path, pixels, write, order):
    path = write(tmp_path / "a.ome.tif" if write is ome_tiff else tmp_path / "a.tif", pixels, order)
    with open_slide(path) as slide:
        check(slide, pixels)
        # a level counts where its picture begins: the number of the macro is its place among the pictures
        macro = 1 + (order.index("macro") > min(order.index("slide"), order.index("level")))
        if write is ome_tiff:
            macro = 1 + (order.index("macro") > order.index("slide"))
        assert f"{macro}: " in slide.metadata.picture.partition("Others")[2]
        (name,) = slide.associated
        np.testing.assert_array_equal(slide.read_associated(name), pixels["macro"])
        assert name == ("macro" if write is ome_tiff else f"series {macro}")
        assert dict(describe_in_full(slide))["Picture"] == slide.metadata.picture
        identity = slide.identity()
    with open_slide(f"{path}?series={macro}") as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 0, *slide.shape), pixels["macro"])
        assert slide.name == f"series {macro} of {path.name}"
        assert slide.identity() == f"{identity}#{macro}"
        assert "chosen; the largest is series" in slide.metadata.picture
    with pytest.raises(SlideError, match="There is no series 9 in this file: there are only 2"):
        open_slide(f"{path}?series=9")


def test_what_is_called_a_macro_is_no_slide_though_it_is_larger():
    pictures = [Picture((900, 900), 0, "Macro image"), Picture((500, 400), 1, "scan"), Picture((400, 500), 2)]
    assert choose_picture(pictures, None) == 1
    assert choose_picture(pictures, 1) == 0
    assert choose_picture(pictures[:1], None) == 0
    assert fine_to_coarse([(2, 3), (8, 9), (4, 5)], lambda shape: shape) == [(8, 9), (4, 5), (2, 3)]


def test_another_picture_of_the_same_sides_is_no_level(tmp_path, pixels):
    """Two pictures in strips, one half as large: nothing says that they show the same."""
    path = tmp_path / "two.tif"
    with tifffile.TiffWriter(path) as tif:
        for name in ("level", "slide"):
            tif.write(pixels[name], photometric="rgb", metadata=None)
    with open_slide(path) as slide:
        check(slide, pixels, levels=1)
        assert len(slide.metadata.pictures) == 2


def test_notes_of_another_picture_lie_beside_its_own_name(tmp_path, pixels):
    path = tiff(tmp_path / "a.tif", pixels, ORDERS[0])
    with open_slide(f"{path}?series=2") as macro:
        assert keep_mpp(macro, (7.0, 7.0)).name == "a.tif.series-2.kdseg.json"
    with open_slide(path) as slide:
        assert slide.mpp is None
        assert keep_mpp(slide, (0.5, 0.5)).name == "a.tif.kdseg.json"
    with open_slide(f"{path}?series=2") as macro:
        assert macro.mpp == (7.0, 7.0)
        assert macro.file == path


@pytest.mark.parametrize("query", ["series=0", "series=two", "series=1&az=rgb", "as=colour", "white=-1"])
def test_what_is_not_understood_is_said(tmp_path, pixels, query):
    path = tiff(tmp_path / "a.tif", pixels, ORDERS[0])
    with pytest.raises(SlideError, match=r"is not understood. It may be \?series=2"):
        open_slide(f"{path}?{query}")


def test_a_file_whose_name_has_a_question_mark(tmp_path, pixels):
    path = tiff(tmp_path / "a?series=9.tif", pixels, ORDERS[0])
    with open_slide(path) as slide:
        check(slide, pixels)
    shutil.copy(path, tmp_path / "b.png?series=1")
    with open_slide(tmp_path / "b.png?series=1") as slide:
        check(slide, pixels)


# -- pages in other files ------------------------------------------------------------------------------------------


def test_channels_in_separate_files(awkward, tmp_path):
    source = awkward("ome_tiff_channels_in_separate_files")
    wanted = tifffile.imread(source / "deflate_C0.ome.tif")
    for name in ("deflate_C0", "deflate_C2"):
        with open_slide(source / f"{name}.ome.tif") as slide:
            np.testing.assert_array_equal(slide.read(0, 0, 0, *slide.shape), np.moveaxis(wanted, 0, -1))
            assert slide.channel_names == ("DAPI", "FITC", "TRITC")
            assert not slide.bad_tiles
    for index in (0, 1):
        shutil.copy(source / f"deflate_C{index}.ome.tif", tmp_path)
    with pytest.raises(SlideError, match=r"other files.*not beside it: deflate_C2\.ome\.tif\. Put them"):
        open_slide(tmp_path / "deflate_C0.ome.tif")
    whole = (source / "deflate_C2.ome.tif").read_bytes()
    (tmp_path / "deflate_C2.ome.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SlideError):
        open_slide(tmp_path / "deflate_C0.ome.tif")


COMPANION = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0">
<Image ID="Image:0" Name="scan"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="192" SizeY="128"
 SizeC="2" SizeZ="1" SizeT="1" PhysicalSizeX="0.25" PhysicalSizeY="0.25"><Channel ID="Channel:0:0" Name="DAPI"/>
<Channel ID="Channel:0:1" Name="CD8"/>{data}</Pixels></Image></OME>"""
ONLY = """<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{0}">
<BinaryOnly MetadataFile="scan.companion.ome" UUID="urn:uuid:0"/></OME>"""


def test_a_companion_file(tmp_path, pixels):
    data = "".join(
        f'<TiffData FirstC="{i}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="c{i}.ome.tif">urn:uuid:{i + 1}</UUID></TiffData>'
        for i in range(2)
    )
    (tmp_path / "scan.companion.ome").write_text(COMPANION.format(data=data))
    for i in range(2):
        tifffile.imwrite(
            tmp_path / f"c{i}.ome.tif",
            np.ascontiguousarray(pixels["slide"][..., i]),
            photometric="minisblack",
            description=ONLY.format(i + 1),
            metadata=None,
        )
    for i in range(2):
        with open_slide(tmp_path / f"c{i}.ome.tif") as slide:
            np.testing.assert_array_equal(slide.read(0, 0, 0, *slide.shape), pixels["slide"][..., :2])
            assert slide.channel_names == ("DAPI", "CD8")
            assert slide.mpp == (0.25, 0.25)
    (tmp_path / "scan.companion.ome").unlink()
    with pytest.raises(SlideError, match=r"written in scan\.companion\.ome, which is not beside it"):
        open_slide(tmp_path / "c0.ome.tif")


# -- examples ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["slide.tif", "ascending.tif"])
def test_a_thumbnail_before_the_slide(awkward, name):
    path = awkward(f"tiff_thumbnail_before_slide/{name}")
    with tifffile.TiffFile(path) as tif, open_slide(path) as slide:
        pages = {page.shape[:2]: page.asarray() for page in tif.pages}
        assert slide.shape == (256, 384) == max(pages)
        assert [level.downsample for level in slide.levels][:2] == [(1.0, 1.0), (2.0, 2.0)]
        for index, level in enumerate(slide.levels):
            np.testing.assert_array_equal(slide.read(index, 0, 0, *level.shape), pages[level.shape])


def test_a_macro_that_is_the_first_image(awkward):
    path = awkward("ome_tiff_macro_is_first_image/slide.ome.tif")
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 0, *slide.shape), tifffile.imread(path, series=1))
        assert (slide.shape, slide.mpp, slide.associated) == ((256, 384), (0.5, 0.5), ("macro",))
        np.testing.assert_array_equal(slide.read_associated("macro"), tifffile.imread(path, series=0))
        assert slide.metadata.picture.startswith("series 2 of 2 (the largest): slide, 384 x 256.")


def test_levels_of_ome_zarr_from_small_to_large(awkward):
    path = awkward("ome_zarr_levels_reversed_units_axes/reversed.ome.zarr")
    group = zarr.open_group(path, mode="r")
    with open_slide(path) as slide:
        assert [level.downsample[0] for level in slide.levels] == [1.0, 2.0, 4.0]
        assert slide.mpp == (0.5, 0.5)
        for index, level in enumerate(slide.levels):
            wanted = np.moveaxis(np.asarray(group[str(index)]), 0, -1)
            np.testing.assert_array_equal(slide.read(index, 0, 0, *level.shape), wanted)


def test_capital_axes(awkward):
    path = awkward("ome_zarr_levels_reversed_units_axes/upper_axes.ome.zarr")
    wanted = np.moveaxis(np.asarray(zarr.open_group(path, mode="r")["0"]), 0, -1)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 0, *slide.shape), wanted)


def test_a_stack_of_imagej_with_one_page(awkward, tmp_path):
    path = awkward("imagej_stack_with_one_ifd/stack.tif")
    wanted = np.moveaxis(tifffile.imread(path), 0, -1)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 0, *slide.shape), wanted)
    (tmp_path / "cut.tif").write_bytes(path.read_bytes()[:-70_000])
    with pytest.raises(SlideError, match="ends before the last of its 3 planes"):
        open_slide(tmp_path / "cut.tif")


def test_a_file_missing_of_another_picture_does_no_harm(tmp_path, pixels):
    """Of two images, the smaller lies in a file that is not there: the slide opens, the other is named."""
    image = (
        '<Image ID="Image:{0}" Name="{1}"><Pixels ID="Pixels:{0}" DimensionOrder="XYCZT" Type="uint8" SizeX="{2}" '
        'SizeY="{3}" SizeC="2" SizeZ="1" SizeT="1"><Channel ID="Channel:{0}:0"/><Channel ID="Channel:{0}:1"/>'
        '<TiffData FirstC="0" IFD="{4}" PlaneCount="1"/><TiffData FirstC="1" IFD="{5}" PlaneCount="1">{6}</TiffData>'
        "</Pixels></Image>"
    )
    far = '<UUID FileName="gone.ome.tif">urn:uuid:9</UUID>'
    text = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
        + image.format(0, "small", 96, 64, 0, 0, far)
        + image.format(1, "scan", 192, 128, 1, 2, "")
        + "</OME>"
    )
    path = tmp_path / "two.ome.tif"
    with tifffile.TiffWriter(path) as tif:
        planes = [pixels["level"][..., 0], pixels["slide"][..., 0], pixels["slide"][..., 1]]
        for index, plane in enumerate(map(np.ascontiguousarray, planes)):
            said = {"description": text} if index == 0 else {}
            tif.write(plane, photometric="minisblack", metadata=None, contiguous=False, **said)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 0, *slide.shape), pixels["slide"][..., :2])
    with pytest.raises(SlideError, match=r"not beside it: gone\.ome\.tif"):
        open_slide(f"{path}?series=1")
