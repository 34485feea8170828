"""Kill a prediction at random moments, again and again, and see whether its mask is that of an undisturbed one.

A program predicts a synthetic slide; it gets SIGKILL at a random moment: while it settles how, while tiles are under
way, while it finishes. Then it is started once more, and killed again. Whenever it comes to its end, the bytes of all
chunks of all levels are compared with those of a run that nobody disturbed, and a new mask is begun. At the end one
JSON object is printed:

``kills``, ``masks`` (that came to their end), ``kills_finishing`` (kills between the last tile and the end),
``identical`` (whether all masks had the bytes of the undisturbed one), ``tiles_recomputed_per_kill_max`` (chunks that
were on disk without being in the journal) and ``tiles_in_flight`` (that are worked on at the same time: what a kill may
cost).

Run it as ``python benchmarks/faults.py [--times 100] [--seed 0]``. It needs a system with SIGKILL.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import tifffile
import torch

from napari_kdseg.inference import PredictConfig, predict
from napari_kdseg.inference.tiles.threads import TILES_AT_ONCE
from napari_kdseg.jobs import Control, Event, Step
from napari_kdseg.masks.writing.journal import read_journal
from napari_kdseg.networks import NetworkSpec, create, save
from napari_kdseg.slides import open_slide

SLIDE = "synthetic:3000x2200?seed=1&mpp=0.5"
TILE = 128
NAME = "student"


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=100, help="how often it is killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kdseg-faults-") as folder:
        os.environ["KDSEG_HOME"] = str(Path(folder) / "home")
        result = measure(Path(folder), arguments.times, random.Random(arguments.seed))
    print(json.dumps(result))
    return 0 if result["identical"] else 1


def measure(folder: Path, times: int, dice: random.Random) -> dict[str, Any]:
    """Kill ``times`` times, and compare every mask that comes to its end."""
    slide, network = folder / "slide.tif", _network(folder / "network.safetensors")
    _in_a_process(_write_slide, slide).join()
    settings = _settings(slide, folder / "undisturbed.ome.zarr", network)
    began = time.monotonic()
    _in_a_process(_predict, settings).join()
    lasts = time.monotonic() - began
    expected = chunks(settings.output)
    tiles = len(read_journal(_journal(settings.output)).done)
    print(f"undisturbed: {tiles} tiles in {lasts:.1f} s", file=sys.stderr)
    disturbed = settings.model_copy(update={"output": folder / "disturbed.ome.zarr"})
    found: dict[str, Any] = {"kills": 0, "masks": 0, "kills_finishing": 0, "identical": True}
    recomputed = 0
    while found["kills"] < times or found["masks"] == 0:
        _last(disturbed).unlink(missing_ok=True)
        child = _in_a_process(_predict, disturbed)
        if found["kills"] < times:
            _wait_for_a_moment(disturbed, child, lasts, dice)
        else:
            child.join()
        if child.is_alive():
            child.kill()
            child.join()
            found["kills"] += 1
            lost, finishing = _lost(disturbed.output, tiles)
            recomputed = max(recomputed, lost)
            found["kills_finishing"] += finishing
        elif child.exitcode == 0:
            found["masks"] += 1
            found["identical"] &= chunks(disturbed.output) == expected
            shutil.rmtree(disturbed.output)
        else:
            raise RuntimeError(f"The prediction failed by itself, with exit code {child.exitcode}.")
    in_flight = min(os.cpu_count() or 1, TILES_AT_ONCE)
    return {
        **found,
        "tiles_recomputed_per_kill_max": recomputed,
        "tiles_in_flight": in_flight,
        "tiles": tiles,
    }


def _wait_for_a_moment(settings: PredictConfig, child: Any, lasts: float, dice: random.Random) -> None:
    """Wait for any moment of a run; of three times once for one about when it finishes."""
    if dice.random() < 2 / 3:
        child.join(dice.uniform(0, lasts))
        return
    while child.is_alive() and not _last(settings).exists():
        time.sleep(0.0005)
    child.join(dice.uniform(0, 0.1))


def _settings(slide: Path, output: Path, network: Path) -> PredictConfig:
    return PredictConfig(
        slide=str(slide), networks={NAME: network}, output=output, tile=TILE, halo=32, batch_size=1,
        precision="float32", probabilities=True, slide_mpp=0.5,
    )  # fmt: skip


def _write_slide(path: Path) -> None:
    with open_slide(SLIDE) as slide:
        pixels = slide.read(0, 0, 0, *slide.shape)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), compression="deflate")


def _network(path: Path) -> Path:
    torch.manual_seed(0)
    spec = NetworkSpec(architecture="enet", classes=("background", "gland", "tumour"), mpp=0.5)
    return Path(save(path, create("enet", 3, 3).eval(), spec))


def _in_a_process(target: Any, *arguments: Any) -> Any:
    """Run a function in a forked process: it is there at once, and nothing was computed in this one."""
    child = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    child.start()
    return child


def _predict(settings: PredictConfig) -> None:
    def emit(event: Event) -> None:
        if isinstance(event, Step) and event.done == event.total:
            _last(settings).touch()

    predict(settings, emit, Control())


def _last(settings: PredictConfig) -> Path:
    """Return the file that tells of the last tile of a run."""
    return settings.output.with_suffix(".last")


def _journal(output: Path) -> Path:
    return output / "labels" / NAME / "0" / "journal.jsonl"


def _lost(output: Path, tiles: int) -> tuple[int, bool]:
    """Return how many chunks of tiles are on disk that the journal does not know, and whether it knows all tiles."""
    done = read_journal(_journal(output)).done
    found = (item for item in _journal(output).parent.glob("c/*/*") if item.name.isdigit())
    there = {(int(item.parent.name), int(item.name)) for item in found}
    return len(there - set(done)), len(done) == tiles


def chunks(output: Path) -> dict[str, str]:
    """Return a hash of every chunk of every level of all masks."""
    return {
        str(item.relative_to(output)): hashlib.sha256(item.read_bytes()).hexdigest()
        for item in sorted(output.rglob("c/*/*"))
        if item.is_file() and item.name.isdigit()
    }


if __name__ == "__main__":
    sys.exit(main())
