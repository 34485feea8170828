"""How near to the decoder's limit a view of a gigapixel slide is read, beside the other ways to read it.

On a 40,000 x 40,000 JPEG pyramid that is made here, random 1024 x 1024 views over all levels. The limit is imagecodecs
decoding exactly the covered tiles from memory in one thread. Ours and the limit take turns view by view, so that a busy
machine slows both; ratios are of the sums. ``--quick`` takes under 50 s on two cores. Prints one JSON object last:

``read_256_over_limit read_512_over_limit two_threads_over_limit pan_over_limit`` (uncached but for the pan),
``openslide_over_read napari_wsi_over_read fastslide_over_read`` (256 px tiles; fastslide beside two threads of ours),
``layer_over_limit`` (through napari's slicing), ``pan_rss_mb twelve_slides_rss_mb`` (memory), ``first_picture_s
next_field_ms longest_read_ms`` (a real window; needs a display or xvfb-run), all peers beside the limit, and what is
missing why.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import imagecodecs
import numpy as np
import tifffile

from napari_kdseg.demo import machine
from napari_kdseg.slides import TileCache, open_slide
from viewport_peers import PEERS
from viewport_slides import covered_tiles, random_views, write_giant, write_slide

SHAPE, LEVELS, SIDE = (40_000, 40_000), 6, 1024
GIANT = (80_000, 100_000)
STEP = 100
"""Pixels that a pan moves from view to view."""
FASTEST = "limit, its output well placed"
TARGETS = {
    "read_256_over_limit": "at most 1.4",
    "read_512_over_limit": "at most 1.15",
    "two_threads_over_limit": "at most 0.85",
    "pan_over_limit": "at most 0.3",
    "openslide_over_read": "at least 3.3",
    "napari_wsi_over_read": "at least 8",
    "fastslide_over_read": "at least 1",
    "layer_over_limit": "at most 1.6",
    "pan_rss_mb": "under 600",
    "twelve_slides_rss_mb": "under 1000",
    "first_picture_s": "under 1",
    "next_field_ms": "under 250",
    "longest_read_ms": "at most 16",
}

Look = Callable[[int, int, int], Any]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="60 views instead of 200, one round of the peers"
    )
    quick = parser.parse_args().quick
    figures: dict[str, Any] = {"quick": quick}
    with tempfile.TemporaryDirectory() as folder:
        files = {tile: write_slide(Path(folder) / f"{tile}.tif", SHAPE, tile) for tile in (256, 512)}
        say("slides made")
        figures |= measure_reading(files, views=60 if quick else 200, rounds=3 if quick else 5)
        figures |= measure_peers(files[256], views=30 if quick else 200)
        giant = write_giant(Path(folder) / "giant.tif", GIANT, 256)
        figures |= in_napari("layer", files[256])
        figures |= in_napari("pan", giant)
        figures |= in_napari("twelve", giant)
        figures |= in_napari("window", files[256], screen=True)
    print(json.dumps({**figures, "targets": TARGETS, "machine": machine()}))
    return 0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure_reading(files: dict[int, Path], views: int, rounds: int) -> dict[str, Any]:
    """Time our reader, its two threads and a pan."""
    figures: dict[str, Any] = {}
    for tile, path in files.items():
        places = random_views(views, SHAPE, LEVELS)
        with (
            open_slide(path, threads=1, cache=TileCache(0)) as one,
            open_slide(path, threads=2, cache=TileCache(0)) as two,
        ):
            looks = {"one": reader(one), "two": reader(two)}
            over = [over_limit(path, places, looks) for _ in range(rounds)]
        figures[f"read_{tile}_over_limit"] = middle_of(over, "one")
        figures[f"two_threads_{tile}_over_limit"] = middle_of(over, "two")
        figures[f"read_{tile}_over_fastest_limit"] = middle_of(over, "one", FASTEST)
    figures["two_threads_over_limit"] = figures["two_threads_256_over_limit"]
    figures["pan_over_limit"] = round(median(pan_over_limit(files[256], views) for _ in range(rounds)), 3)
    say(f"read: {figures}")
    return figures


def reader(slide: Any) -> Look:
    return lambda level, y, x: slide.read(level, y, x, SIDE, SIDE)


def over_limit(path: Path, places: list[tuple[int, int, int]], looks: dict[str, Look]) -> dict[str, float]:
    """Time every way to look and the limit, in turns view by view; return the ratios of the sums.

    Where imagecodecs happens to place its output decides whether libjpeg-turbo writes past the processor's cache. So
    the limit is also taken with a place chosen well: :data:`FASTEST`.
    """
    with tifffile.TiffFile(path) as tif:
        tile = tif.pages.first.tilewidth
    well_placed = np.empty(tile * tile * 3 + 64, np.uint8)
    start_at = 8 - well_placed.__array_interface__["data"][0] % 32 + 32
    out = well_placed[start_at : start_at + tile * tile * 3].reshape(tile, tile, 3)
    seconds = dict.fromkeys(looks, 0.0)
    limit = fastest = 0.0
    for number, (place, tiles) in enumerate(zip(places, covered_tiles(path, places), strict=True)):
        limit += decode(tiles) / 2
        for name in turned(list(looks), number):
            start = time.perf_counter()
            looks[name](*place)
            seconds[name] += time.perf_counter() - start
        limit += decode(tiles) / 2
        fastest += decode(tiles, out)
    return {name: spent / limit for name, spent in seconds.items()} | {FASTEST: fastest / limit}


def turned(names: list[str], number: int) -> Iterator[str]:
    yield from names[number % len(names) :]
    yield from names[: number % len(names)]


def decode(tiles: list[bytes], out: np.ndarray | None = None) -> float:
    """Decode tiles as the file has them; return the seconds it took."""
    start = time.perf_counter()
    for data in tiles:
        imagecodecs.jpeg8_decode(data, colorspace="ycbcr", outcolorspace="rgb", out=out)
    return time.perf_counter() - start


def middle_of(rounds: list[dict[str, float]], name: str, beside: str | None = None) -> float:
    return round(median(ratios[name] / (ratios[beside] if beside else 1) for ratios in rounds), 3)


def pan_over_limit(path: Path, views: int) -> float:
    """Move over level 1 in small steps; the limit decodes all covered tiles at every step, ours keeps them."""
    places = [(1, 3000, 2000 + STEP * number % 15_000) for number in range(views)]
    with open_slide(path, threads=1, cache=TileCache(128 * 2**20)) as slide:
        return over_limit(path, places, {"pan": reader(slide)})["pan"]


def measure_peers(path: Path, views: int) -> dict[str, Any]:
    """Time the peers that are installed, beside our reader with one and with two threads."""
    places = random_views(views, SHAPE, LEVELS)
    looks, missing = {}, {}
    for name, make in PEERS.items():
        try:
            looks[name] = make(path)
            looks[name](*places[0])
        except Exception as error:  # whatever keeps a peer from reading here is said in the report
            looks.pop(name, None)
            missing[name] = f"{type(error).__name__}: {error}"
    with (
        open_slide(path, threads=1, cache=TileCache(0)) as one,
        open_slide(path, threads=2, cache=TileCache(0)) as two,
    ):
        over = over_limit(path, places, {"read": reader(one), "read_two": reader(two), **looks})

    def beside(name: str, ours: str = "read") -> float | None:
        return round(over[name] / over[ours], 2) if name in over else None

    figures = {
        "openslide_over_read": beside("openslide"),
        "napari_wsi_over_read": beside("napari_wsi_design"),
        "napari_wsi_itself_over_read": beside("napari_wsi"),
        "fastslide_over_read": beside("fastslide", "read_two"),
        "peers_over_limit": {name: round(over[name], 2) if name in over else None for name in PEERS},
        "missing": missing,
    }
    say(f"peers: {figures}")
    return figures


def in_napari(what: str, path: Path, *, screen: bool = False) -> dict[str, Any]:
    """Run one part of ``viewport_window.py`` in a process of its own, whose memory and threads are its own."""
    command = [sys.executable, str(Path(__file__).with_name("viewport_window.py")), what, str(path)]
    if screen and sys.platform == "linux" and not os.environ.get("DISPLAY"):
        if shutil.which("xvfb-run") is None:
            return {"first_picture_s": None, "next_field_ms": None, "no_window": "no display and no xvfb-run"}
        command = ["xvfb-run", "--auto-servernum", "--server-args=-screen 0 1600x1000x24", *command]
    own = {
        "NAPARI_ASYNC": "0",
        "NAPARI_CONFIG": str(path.with_name("napari.yaml")),
    }  # not the settings of the user
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **own}
    )
    if done.returncode:
        raise RuntimeError(f"{what} failed:\n{done.stderr}")
    figures = json.loads(done.stdout.splitlines()[-1])
    say(f"{what}: {figures}")
    return figures


if __name__ == "__main__":
    sys.exit(main())
