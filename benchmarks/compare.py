"""Time the comparison of two masks of a slide, against the least that it can cost and against another library.

One JSON object is printed last:

``disagreement_over_read``
    The map of the disagreement of two gland masks that differ by planted errors, over the whole slide at their finest
    level, with its counts, written to disk; over merely reading both masks.
``peak_rss_mb``
    The largest memory of a program that does that, all of it.
``regions_over_skimage``
    ``label`` and ``regionprops_table`` of scikit-image over our regions: area, box, centroid, pair of classes and mean
    gap of at least 50,000 regions in 8192 x 8192 pixels.

Times are medians of runs that take turns. With ``--quick`` the slide is smaller, which is said. A part is a function
that returns figures: others are added to :data:`PARTS`.

Run it as ``python benchmarks/compare.py [--quick] [--part NAME ...]``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_kdseg.comparison import CompareConfig, Compared, find_regions
from napari_kdseg.comparison.areas import TILE, counter_of, open_together
from napari_kdseg.comparison.regions.finding import DisagreementBlock
from napari_kdseg.comparison.scores.counting import CODES, VALUES
from napari_kdseg.comparison.whole_slide import map_disagreement
from napari_kdseg.jobs import Control
from napari_kdseg.masks import MaskSpec, MaskStore, open_masks, plan_tiles
from napari_kdseg.masks.tiling import mask_shape
from napari_kdseg.memory import keep_memory
from napari_kdseg.slides import open_annotation, open_slide

WHOLE, QUICK = "synthetic:100000x80000?seed=1&mpp=0.25", "synthetic:32000x24000?seed=1&mpp=0.25"
DOWNSAMPLE = (4.0, 4.0)
MASK_TILE = 512
REGION_SIDE, REGION_STEP = 8192, 36


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smaller slide: under a minute on two cores")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="only these parts")
    parser.add_argument("--map-once", nargs=2, metavar=("SLIDE", "MASKS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    keep_memory()
    if arguments.map_once:
        print(json.dumps(map_once(*arguments.map_once)))
        return 0
    figures: dict[str, Any] = {}
    for name in arguments.part or PARTS:
        with tempfile.TemporaryDirectory(prefix="kdseg-compare-") as folder:
            figures |= PARTS[name](Path(folder), arguments.quick)
    print(json.dumps(figures))
    return 0


# -- the map of a slide ------------------------------------------------------------------------------------------------


def measure_map(folder: Path, quick: bool) -> dict[str, Any]:
    """Time the map of a slide against reading both masks, in turns."""
    address = QUICK if quick else WHOLE
    masks = plant_masks(folder / "masks.ome.zarr", address)
    once = [sys.executable, __file__, "--map-once", address, str(masks)]
    memory = json.loads(subprocess.run(once, capture_output=True, text=True, check=True).stdout)
    times: dict[str, list[float]] = {"read": [], "map": []}
    for _ in range(3 if quick else 5):
        times["read"].append(timed(lambda: read_both(masks)))
        times["map"].append(timed(lambda: map_of(address, masks, folder / "compared")))
        shutil.rmtree(folder / "compared")
    medians = {name: statistics.median(values) for name, values in times.items()}
    shape = open_masks(masks)["teacher"].levels[0].shape
    say(f"{address}: masks of {shape[1]} x {shape[0]} px; seconds {medians}")
    return {
        "disagreement_over_read": round(medians["map"] / medians["read"], 2),
        "peak_rss_mb": memory["peak_rss_mb"],
        "map_s": round(medians["map"], 2),
        "map_slide": address,
    }


def plant_masks(path: Path, address: str) -> Path:
    """Write the glands of a synthetic slide as a teacher, and with errors planted as a student."""
    random = np.random.default_rng(0)
    with open_slide(address) as slide:
        glands = open_annotation(address, slide)
        shape = mask_shape(slide.shape, DOWNSAMPLE)
        specs = [
            MaskSpec("labels", name, "class", glands.classes, glands.colours)
            for name in ("teacher", "student")
        ]
        grid = {"shape": shape, "downsample": DOWNSAMPLE, "tile": MASK_TILE}
        with MaskStore(path, slide).begin(specs, **grid, made_by={"slide": slide.identity()}) as writer:
            for tile in plan_tiles(shape, None, MASK_TILE, 0):
                teacher = glands.read_scaled(DOWNSAMPLE, tile.y, tile.x, tile.height, tile.width)
                writer.write_tile(tile, [teacher, with_errors(teacher, random, len(glands.classes))])
            writer.finish(None)
    return path


def with_errors(teacher: np.ndarray, random: np.random.Generator, classes: int) -> np.ndarray:
    """Return a mask with three discs of another class a tile."""
    student = teacher.copy()
    rows, columns = np.indices(student.shape)
    for _ in range(3):
        y, x, radius = random.integers(0, MASK_TILE, 2).tolist() + [int(random.integers(3, 30))]
        disc = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        student[disc] = (student[disc] + random.integers(1, classes)) % classes
    return student


def read_both(masks: Path) -> None:
    """Read both masks, block by block."""
    levels = [open_masks(masks)[name].levels[0] for name in ("teacher", "student")]
    for y in range(0, levels[0].shape[0], TILE):
        for x in range(0, levels[0].shape[1], TILE):
            for level in levels:
                np.asarray(level[y : y + TILE, x : x + TILE])


def map_of(address: str, masks: Path, output: Path) -> None:
    """Map the disagreement of both masks over the whole slide, with its counts."""
    config = CompareConfig(slide=address, output=output, teacher=str(masks), student=str(masks), scores=False)
    with open_slide(address) as slide:
        together = open_together(config, slide)
        map_disagreement(
            config, slide, together, counter_of(together, config), lambda _event: None, Control()
        )


def map_once(address: str, masks: str) -> dict[str, Any]:
    """Map once in this program, and say how much memory it took at most."""
    import resource

    with tempfile.TemporaryDirectory(prefix="kdseg-compare-") as folder:
        map_of(address, Path(masks), Path(folder) / "compared")
    return {"peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}


# -- regions -----------------------------------------------------------------------------------------------------------


def measure_regions(_folder: Path, quick: bool) -> dict[str, Any]:
    """Time our regions against those of scikit-image, in turns; both must say the same."""
    first, second, gap = plant_regions()
    times: dict[str, list[float]] = {"ours": [], "skimage": []}
    for _ in range(1 if quick else 3):
        times["ours"].append(timed(lambda: ours(first, second, gap)))
        times["skimage"].append(timed(lambda: skimage(first, second, gap)))
        times["ours"].append(timed(lambda: ours(first, second, gap)))
    table, theirs = ours(first, second, gap), skimage(first[:2048], second[:2048], gap[:2048])
    inside = table.rows[table.column("y1") < 2048 - REGION_STEP]
    assert inside["area_px"].tolist() == theirs["area"][: len(inside)].astype(int).tolist()
    medians = {name: statistics.median(values) for name, values in times.items()}
    say(f"{len(table)} regions in {REGION_SIDE} x {REGION_SIDE} px; seconds {medians}")
    return {
        "regions_over_skimage": round(medians["skimage"] / medians["ours"], 1),
        "regions": len(table),
        "regions_s": round(medians["ours"], 2),
    }


def plant_regions() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return two masks that differ in discs of three to ten pixels, and the gap of their probabilities."""
    random = np.random.default_rng(1)
    masks = np.zeros((2, REGION_SIDE, REGION_SIDE), np.uint8)
    rows, columns = np.mgrid[-10:11, -10:11]
    distance = rows**2 + columns**2
    places = range(REGION_STEP // 2, REGION_SIDE - REGION_STEP // 2, REGION_STEP)
    for y in places:
        for x in places:
            mask = masks[random.integers(2)]
            block = mask[y - 10 : y + 11, x - 10 : x + 11]
            block[distance <= random.integers(3, 11) ** 2] = random.integers(1, 4)
    return masks[0], masks[1], random.integers(0, 254, masks[0].shape).astype(np.int16)


def ours(first: np.ndarray, second: np.ndarray, gap: np.ndarray) -> Any:
    """Find the regions of two masks that lie in memory."""

    def read(y: int, x: int, height: int, width: int, _margin: int) -> DisagreementBlock:
        cut = np.s_[y : y + height, x : x + width]
        return DisagreementBlock(CODES[first[cut], second[cut]], first[cut], second[cut], gap[cut])

    about = Compared("teacher", "student", ("0", "1", "2", "3"), (1.0, 1.0), (0.5, 0.5))
    return find_regions(read, (0, 0, *first.shape), about, depth=0)


def skimage(first: np.ndarray, second: np.ndarray, gap: np.ndarray) -> dict[str, np.ndarray]:
    """Find the same with scikit-image."""
    from skimage.measure import label, regionprops_table

    pairs = np.where(first != second, first.astype(np.int32) * VALUES + second, 0)
    labels = label(pairs, background=0, connectivity=2)
    values = np.stack([gap, pairs], axis=-1)
    return regionprops_table(labels, values, properties=("area", "bbox", "centroid", "intensity_mean"))


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


#: What is measured, by name: ``part(folder, quick)`` returns figures.
PARTS: dict[str, Callable[[Path, bool], dict[str, Any]]] = {"map": measure_map, "regions": measure_regions}

if __name__ == "__main__":
    sys.exit(main())
