"""The table of docs/slides.md, every combination that can be written: the pixels are those of an independent reader.

tifffile (or zarr, or Pillow) decodes what is stored, the formulas of the TIFF specification follow in floating point,
and Pillow's own RGB has to agree where it opens the file. What is not shown right has to be refused by name.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
import zarr
from PIL import Image, ImageCms

from napari_kdseg.slides import SlideError, open_slide

SHORT, RATIONAL = 3, 5
HEIGHT, WIDTH = 40, 56
WHITE, BLACK, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
LAYOUTS = ("tiles", "strips", "one strip")
CODECS = (
    ("none", False),
    ("lzw", False),
    ("lzw", True),
    ("deflate", False),
    ("deflate", True),
    ("packbits", False),
)


@dataclass(frozen=True)
class Case:
    photometric: int
    samples: int
    bits: int
    extra: tuple[int, ...] | None = None
    planar: int = 1
    compression: str = "none"
    predictor: bool = False
    layout: str = "strips"
    big: bool = False

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32 if self.bits == 32 else np.uint8 if self.bits <= 8 else np.uint16)

    @property
    def top(self) -> float:
        return 1.0 if self.bits == 32 else 2.0**self.bits - 1


@dataclass
class Tally:
    """What came of all cases of a container."""

    right: int = 0
    refused: int = 0
    not_opened: int = 0
    by_pillow: int = 0
    wrong: list[str] = field(default_factory=list)

    def check(self, least: int) -> None:
        assert not self.wrong, f"{len(self.wrong)} wrong:\n" + "\n".join(self.wrong[:20])
        assert self.right + self.refused >= least, self


ROWS = [
    *[(WHITE, 1, bits, None) for bits in (1, 2, 4, 8, 10, 12, 16)],
    *[(BLACK, 1, bits, None) for bits in (1, 2, 4, 8, 10, 12, 16, 32)],
    *[(BLACK, 2, bits, extra) for bits in (8, 16) for extra in (None, (0,), (1,), (2,))],
    *[(BLACK, samples, bits, (0,) * (samples - 1)) for samples in (3, 4, 5) for bits in (8, 16, 32)],
    *[(RGB, 3, bits, None) for bits in (4, 8, 10, 12, 16, 32)],
    *[(RGB, 4, bits, extra) for bits in (8, 16) for extra in (None, (0,), (1,), (2,))],
    *[(RGB, 5, bits, extra) for bits in (8, 16) for extra in ((0, 0), (1, 0), (2, 0))],
    *[(PALETTE, 1, bits, None) for bits in (1, 2, 4, 8)],
    *[(CMYK, 4, bits, None) for bits in (8, 16)],
    (CMYK, 5, 8, (0,)),
    (YCBCR, 3, 8, None),
    (LAB, 3, 8, None),
]


def cases(codecs=CODECS, layouts=LAYOUTS) -> Iterator[Case]:
    """Every row with every codec and either planar configuration; the layouts in turn."""
    turn = itertools.cycle(layouts)
    for (photometric, samples, bits, extra), (compression, predictor) in itertools.product(ROWS, codecs):
        if predictor and bits not in (8, 16):
            continue
        for planar in (
            (1, 2) if samples > 1 and compression in ("none", "deflate") and not predictor else (1,)
        ):
            yield Case(photometric, samples, bits, extra, planar, compression, predictor, next(turn))


def stored(case: Case) -> np.ndarray:
    """Pixels that reach both ends of their range; opacity never below the colours, as associated alpha has to be."""
    random = np.random.default_rng(7)
    values = random.random((HEIGHT, WIDTH, case.samples))
    values[0, :, :], values[1, :, :] = 0, 1
    if case.extra and case.extra[0] == 1:
        coloured = case.samples - len(case.extra)
        values[..., :coloured] *= values[..., coloured : coloured + 1]
    if case.photometric == LAB:  # what a screen can show: others are cut off in ways of their own
        values = 0.5 + (values - 0.5) * (0.6, 0.08, 0.08)
        values[..., 1:] = values[..., 1:] % 1 - 0.5 + (values[..., 1:] < 0.5)
    values = values.astype(np.float32) if case.bits == 32 else np.rint(values * case.top)
    return values.astype(case.dtype)


def palette(bits: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 65536, (3, 2**bits), dtype=np.uint16)


def tags(case: Case) -> dict:
    if case.photometric == PALETTE:
        return {320: (SHORT, tuple(int(v) for v in palette(case.bits).ravel()))}
    if case.photometric == YCBCR:
        reference = (0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1)
        return {530: (SHORT, (1, 1)), 532: (RATIONAL, reference)}
    return {}


@pytest.fixture
def write(tmp_path, write_tiff):
    """Write a case; the file is replaced by the next."""
    return lambda case: write_tiff(
        tmp_path / "case.tif", stored(case), photometric=case.photometric, bits=case.bits, extra=case.extra,
        planar=case.planar, compression=case.compression, predictor=case.predictor, layout=case.layout,
        big=case.big, tags=tags(case),
    )  # fmt: skip


# -- what is right -------------------------------------------------------------------------------------------------


def right(raw: np.ndarray, case: Case) -> np.ndarray:
    """What a raw image ``[h, w, s]`` looks like by the TIFF specification, in floating point, without our code."""
    extra = case.extra or ()
    coloured = case.samples - len(extra) if case.photometric != BLACK or case.samples == 2 else case.samples
    if case.photometric == RGB:
        coloured = 3
    if case.photometric == BLACK and case.samples == 2 and extra in ((), (0,)):
        return raw
    if case.photometric in (WHITE, BLACK) and coloured == case.samples:
        values = case.top - raw.astype(float) if case.photometric == WHITE else raw.astype(float)
        scale = 255 / case.top if case.bits < 8 else 1
        return (values * scale).astype(raw.dtype if case.bits > 1 else np.uint8)
    part = raw.astype(float) / case.top
    colours = part[..., :coloured]
    if case.photometric == PALETTE:
        return (palette(case.bits) // 256).astype(np.uint8)[:, raw[..., 0].astype(int)].transpose(1, 2, 0)
    if case.photometric == CMYK:
        inks = np.rint(part[..., :4] * 255)
        light = (255 - inks[..., 3:]) - np.floor(inks[..., :3] * (255 - inks[..., 3:]) / 255 + 0.5)
        return light.astype(np.uint8)
    if case.photometric == YCBCR:
        y, cb, cr = np.moveaxis(raw.astype(float), -1, 0)
        red, blue = y + 1.402 * (cr - 128), y + 1.772 * (cb - 128)
        green = y - 0.344136286 * (cb - 128) - 0.714136286 * (cr - 128)
        return np.clip(np.rint(np.stack([red, green, blue], axis=-1)), 0, 255).astype(np.uint8)
    if case.photometric == LAB:
        return lab(raw)
    opacity = [coloured + i for i, meaning in enumerate(extra) if meaning]
    if opacity:
        alpha = part[..., opacity[0] :][..., :1]
        colours = colours + 1 - alpha if extra[0] == 1 else colours * alpha + 1 - alpha
    return np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8)


def lab(raw: np.ndarray) -> np.ndarray:
    """CIE L*a*b* under D50 to sRGB, with the matrices that the sRGB profile has (Bradford, D50)."""
    a, b = raw[..., 1].view(np.int8) / 500.0, raw[..., 2].view(np.int8) / 200.0
    y = (raw[..., 0] / 2.55 + 16) / 116
    f = np.stack([y + a, y, y - b], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * (0.9642, 1.0, 0.8249)
    red, green = (3.1338561, -1.6168667, -0.4906146), (-0.9787684, 1.9161415, 0.0334540)
    linear = np.clip(xyz @ np.transpose([red, green, (0.0719453, -0.2289914, 1.4052427)]), 0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * curved).astype(np.uint8)


def tolerance(case: Case) -> int:
    """Grey values by which ours may differ from the formula: 1 where numbers are rounded in steps, as libjpeg does."""
    return {YCBCR: 1, LAB: 1}.get(case.photometric, 0)


def by_pillow(path: Path, case: Case) -> np.ndarray | None:
    """Pillow's picture, where it opens the file and gives colours or grey without loss."""
    if case.extra and 1 in case.extra:  # it divides by the opacity, which loses what is dark
        return None
    if (
        case.photometric == RGB and case.samples == 4 and case.extra is None
    ):  # it takes what is not said for opacity
        return None
    if case.planar == 2 and not (case.photometric == RGB and case.samples == 3 and case.bits == 8):
        return None  # it mixes the planes of others up, as tifffile shows
    if case.photometric == WHITE and case.bits > 8:  # it leaves 0 black
        return None
    try:
        image = Image.open(path)
        image.load()
    except (OSError, ValueError, SyntaxError, KeyError):
        return None
    if image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        exact = ImageCms.Flags.NOOPTIMIZE
        image = ImageCms.profileToProfile(image, *profiles, outputMode="RGB", flags=exact)
    if image.mode in ("RGBA", "LA"):
        pixels = np.asarray(image).astype(float)
        alpha = pixels[..., -1:] / 255
        return np.rint(pixels[..., :-1] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    if image.mode in ("P", "CMYK", "YCbCr"):
        image = image.convert("RGB")
    pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def raw_of(path: Path, case: Case) -> np.ndarray | None:
    """What tifffile decodes, ``[h, w, s]``, or ``None`` where it does not."""
    try:
        with tifffile.TiffFile(path) as tif:
            page = tif.pages.first
            raw = page.asarray()
            separate = page.planarconfig == 2 and page.samplesperpixel > 1
    except Exception:
        return None
    raw = np.moveaxis(raw, 0, -1) if separate else raw
    return raw[..., None] if raw.ndim == 2 else raw


def compare(path: Path, case: Case, tally: Tally, address: str = "") -> None:
    """Hold the slide against both readers, and count."""
    raw = raw_of(path, case)
    if raw is None:
        tally.not_opened += 1
        return
    try:
        with open_slide(f"{path}{address}") as slide:
            assert not slide.bad_tiles
            got, doubt = slide.read(0, 0, 0, *slide.shape), slide.metadata.doubt
            said = slide.read_as
    except SlideError as error:
        named = "not read here" in str(error)
        tally.refused += named
        if not named:
            tally.wrong.append(f"{case}: {error}")
        return
    if doubt:
        tally.refused += 1
        return
    wanted = right(raw, case)
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        tally.wrong.append(f"{case}: {got.shape} {got.dtype}, not {wanted.shape} {wanted.dtype} ({said})")
        return
    off = np.abs(got.astype(float) - wanted).max()
    pillow = by_pillow(path, case) if case.compression in ("none", "deflate") else None
    if pillow is not None and pillow.shape == got.shape:
        tally.by_pillow += 1
        # of 16 bits it takes the high byte, 1 less at most: of the colour, and of the opacity or the black ink
        steps = (1 + (case.samples > 3)) if case.bits == 16 and got.dtype == np.uint8 else 0
        slack = max(steps, tolerance(case))
        pillow_off = np.abs(got.astype(float) - pillow).max()
        if pillow_off > slack:
            tally.wrong.append(f"{case}: {pillow_off} from Pillow ({said})")
    if off > tolerance(case):
        tally.wrong.append(f"{case}: {off} from tifffile and the formula ({said})")
    else:
        tally.right += 1


# -- TIFF and BigTIFF ----------------------------------------------------------------------------------------------


def test_tiff(write):
    tally = Tally()
    for case in cases():
        compare(write(case), case, tally)
    tally.check(350)
    assert tally.by_pillow >= 75


def test_big_tiff(write):
    tally = Tally()
    for case in cases(codecs=[("lzw", False)], layouts=LAYOUTS[::-1]):
        compare(write(replace(case, big=True)), case, tally)
    tally.check(50)


@pytest.mark.parametrize("photometric", [RGB, CMYK, YCBCR])
def test_openslide_agrees(write, photometric):
    """It reads tiled TIFF through libtiff; CMYK and YCbCr it rounds in another way."""
    for extra in (None, (1,)) if photometric == RGB else (None,):
        samples = 4 if photometric == CMYK or extra else 3
        path = write(Case(photometric, samples, 8, extra, compression="deflate", layout="tiles"))
        with openslide.OpenSlide(path) as direct, open_slide(path) as slide:
            rgba = np.asarray(direct.read_region((0, 0), 0, (WIDTH, HEIGHT))).astype(float)
            wanted = rgba[..., :3] * rgba[..., 3:] / 255 + 255 - rgba[..., 3:]
            off = np.abs(slide.read(0, 0, 0, HEIGHT, WIDTH) - wanted)
            # it divides by the opacity to whole numbers: half a step of what is divided by
            assert (off <= {RGB: 1.0 if extra else 0.0, CMYK: 1.0, YCBCR: 1.0}[photometric]).all()


# -- codecs of pictures --------------------------------------------------------------------------------------------

LOSSY = [
    *[
        ("jpeg", photometric, {"subsampling": s})
        for photometric in ("ycbcr",)
        for s in ((1, 1), (2, 2), (2, 1))
    ],
    ("jpeg", "rgb", {}),
    ("jpeg", "minisblack", {}),
    *[("jpeg2000", photometric, {}) for photometric in ("rgb", "minisblack")],
    ("webp", "rgb", {}),
]


@pytest.mark.parametrize("container", ["tiff", "bigtiff", "ome"])
def test_codecs_of_pictures(tmp_path, container):
    """Tiles and strips of JPEG, JPEG 2000 and WebP, in colours and grey, are those of tifffile."""
    tally, path = Tally(), tmp_path / ("case.ome.tif" if container == "ome" else "case.tif")
    layouts = [{"tile": (32, 32)}, {"rowsperstrip": 16}, {"rowsperstrip": HEIGHT}]
    for (codec, photometric, options), layout in itertools.product(LOSSY, layouts):
        case = Case(BLACK if photometric == "minisblack" else RGB, 1 if photometric == "minisblack" else 3, 8)
        pixels = stored(case)
        form = {"bigtiff": container == "bigtiff", "ome": container == "ome"}
        metadata = {"axes": "YXS" if case.samples == 3 else "YX"} if container == "ome" else None
        image = pixels if case.samples == 3 else pixels[..., 0]
        options = options | layout | form | {"compression": codec, "metadata": metadata}
        tifffile.imwrite(path, image, photometric=photometric, **options)
        compare(path, case, tally)
    tally.check(20)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt", "packbits", "tiff_lzw"])
def test_one_bit_of_fax(tmp_path, compression):
    """Pillow (libtiff) writes and reads them; 0 is white in those of fax."""
    pixels = stored(Case(BLACK, 1, 1))[..., 0].astype(bool)
    Image.fromarray(pixels).save(tmp_path / "fax.tif", compression=compression)
    with open_slide(tmp_path / "fax.tif") as slide:
        wanted = np.asarray(Image.open(tmp_path / "fax.tif").convert("L"))
        np.testing.assert_array_equal(slide.read(0, 0, 0, *slide.shape)[..., 0], wanted)
        np.testing.assert_array_equal(wanted > 0, pixels)


# -- OME-TIFF and OME-Zarr -----------------------------------------------------------------------------------------


def test_ome_tiff(tmp_path):
    """Channels in pages or samples, named or not, of every type; RGB in samples and in planes."""
    tally, path = Tally(), tmp_path / "case.ome.tif"
    for dtype, count, names, planar, codec in itertools.product(
        ("uint8", "uint16", "float32"),
        (1, 2, 3, 5),
        (True, False),
        ("rgb", "separate", "pages"),
        (None, "zlib", "lzw"),
    ):
        if planar != "pages" and (count != 3 or dtype == "float32" or names):
            continue
        bits = {"uint8": 8, "uint16": 16, "float32": 32}[dtype]
        case = Case(
            RGB if planar != "pages" else BLACK,
            count,
            bits,
            None if planar != "pages" else (0,) * (count - 1),
        )
        pixels = stored(case)
        axes = {"rgb": "YXS", "separate": "SYX", "pages": "CYX"}[planar]
        metadata = {"axes": axes} | ({"Channel": {"Name": [f"CD{i}" for i in range(count)]}} if names else {})
        image = pixels if planar == "rgb" else np.moveaxis(pixels, -1, 0)
        options = {"photometric": "minisblack"}
        if planar != "pages":
            options = {"photometric": "rgb", "planarconfig": "contig" if planar == "rgb" else "separate"}
        tifffile.imwrite(path, image, tile=(16, 32), metadata=metadata, compression=codec, **options)
        with open_slide(path) as slide:
            got = slide.read(0, 0, 0, *slide.shape)
            kind, named = slide.metadata.kind, slide.channel_names
        raw = tifffile.imread(path).reshape(-1, HEIGHT, WIDTH) if planar != "rgb" else tifffile.imread(path)
        raw = raw if planar == "rgb" else np.moveaxis(raw, 0, -1)
        wanted = right(raw, case)
        grey = (
            "grey" if count == 1 else "rgb" if count == 3 and dtype == "uint8" and not names else "channels"
        )
        if kind != (grey if planar == "pages" else "rgb") or (
            names and named != tuple(f"CD{i}" for i in range(count))
        ):
            tally.wrong.append(f"{dtype} {count} {names} {planar}: {kind} {named}")
        elif got.dtype != wanted.dtype or not np.array_equal(got, wanted):
            tally.wrong.append(f"{dtype} {count} {names} {planar}: other pixels")
        else:
            tally.right += 1
    tally.check(70)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(tmp_path, version):
    tally = Tally()
    turn = itertools.count()
    for dtype, count, names, axes in itertools.product(
        ("uint8", "uint16", "float32", "bool"), (1, 2, 3, 4, 5), ("dyes", "rgb", None), ("cyx", "yxc", "yx")
    ):
        if (axes == "yx") != (count == 1) or (names == "rgb" and count != 3):
            continue
        bits = {"uint8": 8, "uint16": 16, "float32": 32, "bool": 1}[dtype]
        pixels = stored(Case(BLACK, count, bits)).astype(dtype)
        data = {"cyx": np.moveaxis(pixels, -1, 0), "yxc": pixels, "yx": pixels[..., 0]}[axes]
        path = tmp_path / f"{next(turn)}.zarr"
        group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
        group.create_array("0", shape=data.shape, chunks=data.shape, dtype=dtype)[:] = data
        image = {"axes": [{"name": name, "type": "space"} for name in axes], "datasets": [{"path": "0"}]}
        labels = {"dyes": [f"CD{i}" for i in range(count)], "rgb": ["Red", "Green", "Blue"], None: []}[names]
        said = {"multiscales": [image], "omero": {"channels": [{"label": label} for label in labels]}}
        group.attrs.update(said if version == "0.4" else {"ome": {"version": version, **said}})
        colours = names == "rgb" or (count == 3 and names is None and dtype == "uint8")
        with open_slide(path) as slide:
            got, doubt = slide.read(0, 0, 0, *slide.shape), slide.metadata.doubt
        if doubt:
            tally.refused += 1
            continue
        wanted = pixels.astype(np.uint8) * 255 if dtype == "bool" else pixels
        if colours and dtype == "uint16":
            wanted = np.rint(pixels / 257).astype(np.uint8)
        if got.dtype == wanted.dtype and np.array_equal(got, wanted):
            tally.right += 1
        else:
            tally.wrong.append(f"{dtype} {count} {names} {axes}: {got.dtype}")
    tally.check(45)
