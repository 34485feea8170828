"""One picture, written in every format that can be written here."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_kdseg.slides import open_slide

HEIGHT, WIDTH, MPP = 903, 1101, 0.5


@pytest.fixture(scope="session")
def write_tiff() -> Callable[..., Path]:
    """Write a TIFF byte by byte (``tiff_by_hand.py``)."""
    spec = importlib.util.spec_from_file_location("tiff_by_hand", Path(__file__).with_name("tiff_by_hand.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_tiff


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """An H&E-like picture with odd sides."""
    with open_slide(f"synthetic:{WIDTH}x{HEIGHT}?seed=4&mpp={MPP}") as slide:
        return slide.read(0, 0, 0, HEIGHT, WIDTH)


@pytest.fixture(scope="session")
def pyramid(picture) -> list[np.ndarray]:
    return [np.ascontiguousarray(picture[: HEIGHT // f * f : f, : WIDTH // f * f : f]) for f in (1, 2, 4)]


@pytest.fixture(scope="session")
def files(tmp_path_factory, pyramid) -> dict[str, Path]:
    """The same pyramid in one file or folder per format."""
    folder = tmp_path_factory.mktemp("slides")
    made = {
        "ome-zarr-0.4": _ome_zarr(folder / "v4.ome.zarr", pyramid, version="0.4"),
        "ome-zarr-0.5": _ome_zarr(folder / "v5.ome.zarr", pyramid, version="0.5"),
        "ome-tiff-subifd": folder / "subifd.ome.tif",
        "tiff-pages": folder / "pages.tif",
        "tiff-strips": folder / "strips.tif",
        "tiff-planar": folder / "planar.tif",
        "png": folder / "plain.png",
    }
    with tifffile.TiffWriter(made["ome-tiff-subifd"], bigtiff=True, ome=True) as tif:
        metadata = {
            "axes": "YXS",
            "PhysicalSizeX": MPP,
            "PhysicalSizeY": 1e3 * MPP,
            "PhysicalSizeYUnit": "nm",
        }
        options = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib"}
        tif.write(pyramid[0], subifds=2, metadata=metadata, **options)
        for level in pyramid[1:]:
            tif.write(level, subfiletype=1, **options)
    with tifffile.TiffWriter(made["tiff-pages"]) as tif:
        for index, level in enumerate(pyramid):
            size = 10_000 / (MPP * 2**index)
            tif.write(
                level,
                tile=(240, 240),
                photometric="rgb",
                compression="lzw",
                predictor=True,
                subfiletype=int(index > 0),
                resolution=(size, size),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    tifffile.imwrite(made["tiff-strips"], pyramid[0], photometric="rgb", rowsperstrip=37, metadata=None)
    planes = np.ascontiguousarray(np.moveaxis(pyramid[0], 2, 0))
    tifffile.imwrite(
        made["tiff-planar"],
        planes,
        photometric="rgb",
        planarconfig="separate",
        tile=(128, 128),
        metadata=None,
    )
    Image.fromarray(pyramid[0]).save(made["png"])
    return made


def _ome_zarr(path: Path, pyramid: list[np.ndarray], *, version: str) -> Path:
    """0.4 with axes c, y, x in zarr 2; 0.5 with axes y, x, c in zarr 3, sharded."""
    new = version == "0.5"
    group = zarr.create_group(path, zarr_format=3 if new else 2)
    names = "yxc" if new else "cyx"
    axes = [
        {"name": name, "type": "channel"}
        if name == "c"
        else {"name": name, "type": "space", "unit": "micrometer"}
        for name in names
    ]
    datasets = []
    for index, level in enumerate(pyramid):
        data = level if new else np.moveaxis(level, 2, 0)
        chunks = (128, 128, 3) if new else (1, 200, 200)
        extra = {"shards": (512, 512, 3)} if new else {}
        array = group.create_array(str(index), shape=data.shape, chunks=chunks, dtype="uint8", **extra)
        array[:] = data
        scale = [1.0 if name == "c" else MPP * 2**index for name in names]
        datasets.append(
            {"path": str(index), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        )
    image = {"axes": axes, "datasets": datasets}
    if new:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    else:
        group.attrs["multiscales"] = [image | {"version": "0.4"}]
    return path
