"""How near to the network's own speed a slide is predicted, beside MONAI, a plain loop and TIAToolbox.

On a 40,000 x 40,000 px slide that is made here, a third of it tissue, with a small student (ENet) and a large teacher
(U-Net/ResNet-34). Every program has the same weights and the same tissue mask, reads the slide from disk and writes a
class mask. What is compared takes turns in one run, so that a busy machine slows all of it; figures are medians.

Ours is given a halo of 64 px, the context that the peers' windows have that share 25 %; what it does when none is
asked for (``auto``: the classes of the whole image on samples of this slide) is printed as ``..._default``.

Throughput is tissue area a second, over regions of the same slide (a smaller one for slow programs). Ours is timed
from the call of ``predict`` to its end: opening the slide, the overview, the tissue mask, reading, writing and the
pyramid included, with the network in memory and what is measured once per model known. Peers get the network in
memory and the tissue mask.

``of_model_limit of_model_limit_teacher``
    Input pixels a second of a whole prediction (at its best setting), halo included, over those of nothing but the
    same forward of preloaded tiles (bytes in, classes out) at the same tile, batch, threads and precision; the faster
    of all threads in one forward, and of a forward a thread. ``..._fp32``: both in float32.
``of_network_alone of_network_alone_teacher``
    The same over the network's own layers on windows that are normalised already, without any arg max.
``halo_overhead halo_overhead_teacher``
    Pixels that the network sees of a tile, over those it keeps, minus 1; ``halo_overhead_default...``: with the halo
    that is chosen when none is asked for.
``over_monai_fp32 over_monai over_monai_bfloat16``
    Ours in float32 over MONAI in float32 (its only default); ours at its best over MONAI in float32; ours at its best
    over MONAI under bfloat16 autocast. MONAI: ``PatchWSIDataset`` (OpenSlide) and ``SlidingWindowInferer``, 512 px,
    overlap 0.25, Gaussian; see ``inference_peers.py``.
``over_plain_loop_fp32 over_plain_loop``
    Ours in float32, and at its best, over OpenSlide + ``DataLoader`` in float32, 512 px windows, 25 % overlap
    cropped.
``over_tiatoolbox_fp32 over_tiatoolbox``
    The same over TIAToolbox's ``SemanticSegmentor``, on a smaller slide of the same make; see
    ``inference_tiatoolbox.py``, and give ``--tiatoolbox-python``.
``teacher_over_student``
    Seconds a slide of the teacher over those of the student, both at their best; both are printed
    (``student_s_per_slide teacher_s_per_slide``, from the tissue area a second).
``first_tile_s``
    From the call, network in memory, to the event that tells that the first tile of a place on the slide is on disk.
``peak_rss_mb peak_rss_mb_teacher``
    Memory that predicting a region of a 100,000 x 80,000 px slide takes beyond a process that has the network in
    memory and has predicted one tile.
``busy_elsewhere``
    Share of the processors that other programs used meanwhile: figures of a busy machine are not to be quoted.

``--quick`` leaves out the teacher's limit, what is compared in float32 with the limit, MONAI in bfloat16 and the
defaults, predicts small regions with tiles of 768 px of a slide that repeats itself and takes networks that were not
trained: under 50 s on two quiet cores. Without it the networks are trained for a minute or two, once, and kept with the
slide in ``--folder``. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import psutil
import torch
from torch import Tensor

from inference_peers import PEERS, Box, Task
from inference_slide import BLOCK, NETWORKS, SHAPE, write_network, write_slide
from napari_kdseg.demo import machine
from napari_kdseg.inference import PredictConfig, predict
from napari_kdseg.inference.network.engine import fast_arithmetic
from napari_kdseg.inference.network.loading import loaded_network
from napari_kdseg.jobs import Done, Event, Step, run_inline, start_in_thread
from napari_kdseg.memory import keep_memory
from napari_kdseg.networks import load, to_input
from napari_kdseg.slides import TissueMask, open_slide, tissue_of

GIANT = "synthetic:100000x80000?seed=5&mpp=0.5"
WARM_UP_S = 0.5
"""Seconds that each way of taking the limit is tried, at first."""
HALO = 64
"""Context around a tile where ours is compared: what the peers' windows of 512 px have that share 25 %."""
KEPT = Path(tempfile.gettempdir()) / "napari-kdseg-inference-benchmark"
CLICKS = ((6, 1), (2, 7), (8, 8))
"""Places on the slide that are clicked at, in blocks."""
TARGETS = {
    "of_model_limit": "at least 0.85 (CPU)",
    "of_model_limit_teacher": "at least 0.9 (GPU)",
    "over_monai_fp32": "at least 2.5",
    "over_monai": "at least 4",
    "over_plain_loop_fp32": "at least 2.5",
    "over_plain_loop": "at least 4",
    "over_tiatoolbox": "at least 3",
    "first_tile_s": "under 1.5",
    "peak_rss_mb": "under 1500",
}


@dataclass(frozen=True)
class Sizes:
    """How much is predicted: level-0 pixels on a side, and how often."""

    limit: int
    student: int
    teacher: int
    peers: int
    giant: int
    rounds: int
    peer_rounds: int
    limit_s: float
    """Seconds that the limit is taken before and after each prediction: for long, since speed comes and goes."""
    tile: int | Literal["auto"] = "auto"


FULL = Sizes(
    limit=12288, student=8192, teacher=4096, peers=4096, giant=6144, rounds=5, peer_rounds=3, limit_s=2.5
)
QUICK = Sizes(
    limit=3072,
    student=3072,
    teacher=1536,
    peers=1536,
    giant=768,
    rounds=1,
    peer_rounds=1,
    limit_s=0.5,
    tile=768,
)


@dataclass(frozen=True)
class Ours:
    """One prediction of ours: how long it took, over what, and how the network was run."""

    seconds: float
    box: Box
    tile: int
    halo: int
    batch: int
    threads: int
    arithmetic: str
    windows: int

    @property
    def window(self) -> int:
        """Side of what the network sees at once."""
        return self.tile + 2 * self.halo

    @property
    def overhead(self) -> float:
        """Pixels that the network sees of a tile over those it keeps, minus 1."""
        return (self.window / self.tile) ** 2 - 1

    @property
    def pushed(self) -> int:
        """Pixels that the network saw."""
        return self.windows * self.window**2


@dataclass(frozen=True)
class Scene:
    """What everybody predicts."""

    folder: Path
    slide: Path
    networks: dict[str, Path]
    tissue: TissueMask
    device: str
    tile: int | Literal["auto"]
    best: str
    """The precision of our best setting: untrained networks are not asked whether they keep their classes."""

    def output(self) -> Path:
        """Return a place for a mask, where nothing is."""
        output = self.folder / "out.ome.zarr"
        shutil.rmtree(output, ignore_errors=True)
        return output


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small regions, fewer rounds")
    parser.add_argument("--folder", type=Path, default=KEPT, help=f"of slide and networks, default {KEPT}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--tiatoolbox-python", type=Path, help="Python of an environment with tiatoolbox")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    keep_memory()  # as the command does
    sizes = QUICK if arguments.quick else FULL
    if arguments.memory_of is not None:
        print(json.dumps({"peak_rss_mb": memory_of(arguments.memory_of, sizes, arguments.device)}))
        return 0
    with tempfile.TemporaryDirectory() as scratch, load_of_others() as others:
        os.environ["KDSEG_HOME"] = str(arguments.folder)  # what is measured of a model is kept with it
        figures: dict[str, Any] = {"quick": arguments.quick, "missing": {}}
        with ThreadPoolExecutor() as pool:  # memory is not a matter of time: beside the making of the slide
            networks, peaks = {}, {}
            for name, network in make_networks(arguments.folder, sizes):
                networks[name] = network
                if name == "student" or not arguments.quick:
                    peaks[name] = pool.submit(in_own_process, network, arguments)
            scene = make_scene(Path(scratch), arguments.folder, networks, arguments.device, sizes)
        for name, peak in peaks.items():
            figures[f"peak_rss_mb{suffix_of(name)}"] = peak.result()
        figures |= measure_networks(scene, sizes)
        figures |= measure_peers(scene, sizes, figures["missing"])
        if not arguments.quick:
            figures |= measure_defaults(scene, sizes, figures["tissue_mpx_per_s"].get("monai"))
        figures |= measure_tiatoolbox(scene, arguments.tiatoolbox_python, sizes, figures["missing"])
        figures["first_tile_s"] = first_tile(scene)
    figures["busy_elsewhere"] = others["share"]
    print(json.dumps({**figures, "targets": TARGETS, "machine": machine()}))
    return 0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def suffix_of(name: str) -> str:
    """Return how figures of a network end: those of the student are plain."""
    return "" if name == "student" else f"_{name}"


def make_networks(folder: Path, sizes: Sizes) -> Iterator[tuple[str, Path]]:
    """Train student and teacher, or take those of an earlier run: name and file of each."""
    folder.mkdir(parents=True, exist_ok=True)
    haste = sizes is QUICK
    for name in NETWORKS:
        yield name, write_network(folder / f"{name}{'-in-haste' if haste else ''}.safetensors", name, haste)


def make_scene(scratch: Path, folder: Path, networks: dict[str, Path], device: str, sizes: Sizes) -> Scene:
    """Make the slide, or take that of an earlier run."""
    haste = sizes is QUICK
    slide = write_slide(folder / f"slide{'-in-haste' if haste else ''}.tif", haste=haste)
    with open_slide(slide) as opened:
        tissue = tissue_of(opened)
    say(f"slide made: {tissue.fraction:.0%} tissue")
    best = fast_arithmetic(torch.device(device)) if haste else "auto"
    return Scene(scratch, slide, networks, tissue, device, sizes.tile, best)


# --- ours -------------------------------------------------------------------------------------------------------------


def config_for(
    slide: str | Path,
    network: Path,
    output: Path,
    region: Box,
    device: str,
    *,
    precision: str = "auto",
    halo: int | str = HALO,
    tile: int | str = "auto",
) -> PredictConfig:
    """Return the settings of one prediction; all that is not given is left at its default."""
    return PredictConfig(
        slide=str(slide),
        networks={"mask": network},
        output=output,
        region=region,
        precision=precision,
        halo=halo,
        tile=tile,
        device=device,
    )


def predict_ours(
    scene: Scene, network: Path, region: Box, precision: str = "auto", halo: int | str = HALO
) -> Ours:
    """Predict a region with the public API; this and :func:`config_for` know that API."""
    config = config_for(
        scene.slide,
        network,
        scene.output(),
        region,
        scene.device,
        precision=scene.best if precision == "auto" else precision,
        halo=halo,
        tile=scene.tile,
    )
    start = time.perf_counter()
    end = run_inline(predict, config).end
    seconds = time.perf_counter() - start
    if not isinstance(end, Done):
        raise RuntimeError(f"the prediction did not end well: {end}")
    (result,) = end.result.masks.values()
    plan = result.plan
    return Ours(
        seconds,
        grown(region, plan.tile),
        plan.tile,
        plan.context.halo,
        plan.batch_size,
        torch.get_num_threads(),
        plan.arithmetic,
        result.tiles_done,
    )


# --- the limit --------------------------------------------------------------------------------------------------------


class Limit:
    """Nothing but the forward of windows that are in memory.

    Parameters
    ----------
    scene, network
        Which network; windows are taken from the tissue of the slide.
    ours
        How it was run.
    alone
        The layers of the network alone, of normalised windows. Otherwise what a prediction does with a decoded tile:
        bytes in, classes out.
    """

    def __init__(self, scene: Scene, network: Path, ours: Ours, *, alone: bool):
        loaded = loaded_network(network, torch.device(scene.device))
        engine = loaded.engine(ours.arithmetic)
        side, core = ours.window, slice(ours.halo, ours.halo + ours.tile)
        with open_slide(scene.slide) as slide:
            y, x, _, _ = ours.box
            tiles = [slide.read(0, y, x + side * index, side, side) for index in range(ours.batch)]
        self._pixels = ours.batch * side**2
        batch = engine.collate(tiles)
        if alone:
            image = to_input(batch, loaded.spec, scene.device).to(getattr(torch, ours.arithmetic))
            image = image.contiguous(memory_format=torch.channels_last)
            self._forward = lambda: wait_for(engine.module(image))
        else:
            self._forward = lambda: engine.classify(batch, (core, core), probability=False)()
        every = {(1, ours.threads), (ours.threads, 1)} if engine.device.type == "cpu" else {(1, 1)}
        self._way = max(sorted(every), key=lambda way: self._run(*way, WARM_UP_S))

    def pixels_per_second(self, seconds: float) -> float:
        """Run for ``seconds``: all threads in one forward, or one forward in every thread, what is faster."""
        return self._run(*self._way, seconds)

    def _run(self, callers: int, threads: int, seconds: float) -> float:
        before = torch.get_num_threads()
        counts, start = [0] * callers, time.perf_counter()

        def work(index: int) -> None:
            torch.set_num_threads(threads)
            with torch.inference_mode():
                while time.perf_counter() - start < seconds or not counts[index]:
                    self._forward()
                    counts[index] += 1

        workers = [threading.Thread(target=work, args=(index,)) for index in range(callers)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        spent = time.perf_counter() - start
        torch.set_num_threads(before)
        return sum(counts) * self._pixels / spent


def wait_for(result: Tensor) -> None:
    """Wait until a GPU has computed ``result``."""
    if result.device.type == "cuda":
        torch.cuda.synchronize(result.device)


def measure_networks(scene: Scene, sizes: Sizes) -> dict[str, Any]:
    """Compare predictions with the limit of their network, and the teacher with the student."""
    figures: dict[str, Any] = {}
    for name, side in (("student", sizes.limit), ("teacher", sizes.teacher)):
        suffix = suffix_of(name)
        region, network, whole = tissue_box(side), scene.networks[name], (0, 0, *SHAPE)
        kinds = {"auto": suffix, "float32": f"{suffix}_fp32"}
        for precision, kind in list(kinds.items())[: 1 if sizes is QUICK else 2]:
            rounds = sizes.rounds if kind == "" else 1
            first = predict_ours(scene, network, (*region[:2], 512, 512), precision)  # measures, and warms up
            if name == "teacher" and sizes is QUICK:
                run = predict_ours(scene, network, region)
                rate = tissue_area(scene.tissue, run.box) / run.seconds
            else:
                shares, rate = of_limits(scene, network, region, precision, rounds, first, sizes.limit_s)
                figures |= {f"{limit}{kind}": share for limit, share in shares.items()}
            figures[f"{name}_s_per_slide{kind.removeprefix(suffix)}"] = round(
                tissue_area(scene.tissue, whole) / rate, 1
            )
            figures[f"{name}_run_as{kind.removeprefix(suffix)}"] = how(first)
            if precision == "auto":
                figures[f"halo_overhead{suffix}"] = round(first.overhead, 3)
            say(f"{name}, {precision}: {figures}")
    figures["teacher_over_student"] = round(
        figures["teacher_s_per_slide"] / figures["student_s_per_slide"], 2
    )
    return figures


def of_limits(
    scene: Scene, network: Path, region: Box, precision: str, rounds: int, first: Ours, limit_s: float
) -> tuple[dict[str, float], float]:
    """Predict a region in turns with the limits; return the share of each, and tissue pixels a second."""
    limits = {
        "of_model_limit": Limit(scene, network, first, alone=False),
        "of_network_alone": Limit(scene, network, first, alone=True),
    }
    shares, rates = defaultdict(list), []
    for _ in range(rounds):
        before = {name: limit.pixels_per_second(limit_s) for name, limit in limits.items()}
        ours = predict_ours(scene, network, region, precision)
        for name, limit in limits.items():
            fastest = (before[name] + limit.pixels_per_second(limit_s)) / 2
            shares[name].append(ours.pushed / ours.seconds / fastest)
        rates.append(tissue_area(scene.tissue, ours.box) / ours.seconds)
    return {name: round(median(found), 3) for name, found in shares.items()}, median(rates)


def measure_defaults(scene: Scene, sizes: Sizes, monai: float | None) -> dict[str, Any]:
    """Predict with the halo that is chosen when none is asked for: as a user gets it."""
    figures: dict[str, Any] = {}
    rates = {}
    for name, side in (("student", sizes.student), ("teacher", sizes.teacher)):
        network, region = scene.networks[name], tissue_box(side)
        predict_ours(scene, network, (*region[:2], 256, 256), halo="auto")
        run = predict_ours(scene, network, region, halo="auto")
        rates[name] = tissue_area(scene.tissue, run.box) / run.seconds
        suffix = suffix_of(name)
        figures[f"halo_overhead_default{suffix}"] = round(run.overhead, 3)
        figures[f"{name}_run_as_default"] = how(run)
    if "teacher" in rates:
        figures["teacher_over_student_default"] = round(rates["student"] / rates["teacher"], 2)
    figures["over_monai_default"] = round(rates["student"] / 1e6 / monai, 2) if monai else None
    say(f"defaults: {figures}")
    return figures


def how(ours: Ours) -> str:
    return (
        f"tile {ours.tile}, halo {ours.halo}, batch {ours.batch}, {ours.threads} threads, {ours.arithmetic}"
    )


# --- the peers --------------------------------------------------------------------------------------------------------


def measure_peers(scene: Scene, sizes: Sizes, missing: dict[str, str]) -> dict[str, Any]:
    """Compare tissue area a second with the peers that are installed, in turns."""
    rates = rates_in_turns(scene, sizes, missing)
    best, fp32 = rates["auto"], rates["float32"]

    def over(ours: float, peer: str) -> float | None:
        return round(ours / rates[peer], 2) if peer in rates else None

    figures = {
        "over_monai_fp32": over(fp32, "monai"),
        "over_monai": over(best, "monai"),
        "over_monai_bfloat16": over(best, "monai_bfloat16"),
        "over_plain_loop_fp32": over(fp32, "plain_loop"),
        "over_plain_loop": over(best, "plain_loop"),
        "tissue_mpx_per_s": {name: round(rate / 1e6, 3) for name, rate in rates.items()},
    }
    say(f"peers: {figures}")
    return figures


def rates_in_turns(scene: Scene, sizes: Sizes, missing: dict[str, str]) -> dict[str, float]:
    """Return tissue pixels a second of ours, as ``auto`` and ``float32``, and of every peer."""
    checkpoint = load(scene.networks["student"])
    task = Task(
        scene.slide,
        checkpoint.module,
        checkpoint.spec,
        scene.tissue,
        tissue_box(sizes.peers),
        scene.folder / "peer.zarr",
        scene.device,
    )
    peers = {name: peer for name, peer in PEERS.items() if sizes is not QUICK or name != "monai_bfloat16"}
    runs: dict[str, Callable[[], Box]] = {name: lambda peer=peer: peer(task) for name, peer in peers.items()}
    for precision in ("auto", "float32"):
        runs[precision] = lambda precision=precision: (
            predict_ours(scene, scene.networks["student"], tissue_box(sizes.student), precision).box
        )
    warm_up(task, peers, missing)
    for precision in ("auto", "float32"):  # what is measured once for each is known then
        predict_ours(scene, scene.networks["student"], (*tissue_box(512)[:2], 512, 512), precision)
    rates = defaultdict(list)
    for _ in range(sizes.peer_rounds):
        for name in [name for name in runs if name not in missing]:
            start = time.perf_counter()
            box = runs[name]()
            rates[name].append(tissue_area(scene.tissue, box) / (time.perf_counter() - start))
    return {name: median(found) for name, found in rates.items()}


def warm_up(task: Task, peers: dict[str, Callable[[Task], Box]], missing: dict[str, str]) -> None:
    """Have every peer predict a little, which imports it; say of those that cannot why."""
    for name, peer in peers.items():
        try:
            peer(replace(task, region=(*task.region[:2], 256, 256)))
        except Exception as error:  # whatever keeps a peer from running here is said in the report
            missing[name] = f"{type(error).__name__}: {error}"


def measure_tiatoolbox(
    scene: Scene, python: Path | None, sizes: Sizes, missing: dict[str, str]
) -> dict[str, Any]:
    """Run TIAToolbox in its own environment, between two predictions of ours."""
    absent = {"over_tiatoolbox": None, "over_tiatoolbox_fp32": None}
    if python is None:
        missing["tiatoolbox"] = (
            "no --tiatoolbox-python was given; inference_tiatoolbox.py says how to make one"
        )
        return absent
    blocks = np.zeros((3, 3), bool) if sizes is not QUICK else np.zeros((1, 2), bool)
    blocks[len(blocks) // 2, :-1] = True
    small = write_slide(scene.folder / "small.tif", blocks)
    with open_slide(small) as slide:
        tissue = tissue_of(slide)
    np.save(scene.folder / "mask.npy", tissue.mask.astype(np.uint8))
    command = [str(python), str(Path(__file__).with_name("inference_tiatoolbox.py"))]
    command += ["--slide", str(small), "--mask", str(scene.folder / "mask.npy")]
    command += ["--network", str(scene.networks["student"]), "--output", str(scene.folder / "tiatoolbox")]
    network, region = scene.networks["student"], tissue_box(sizes.student)
    rates = defaultdict(list)

    def ours(precision: str) -> None:
        run = predict_ours(scene, network, region, precision)
        rates[precision].append(tissue_area(scene.tissue, run.box) / run.seconds)

    for precision in ("auto", "float32"):
        ours(precision)
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        missing["tiatoolbox"] = done.stderr.strip().splitlines()[-1]
        return absent
    for precision in ("auto", "float32"):
        ours(precision)
    seconds = json.loads(done.stdout.splitlines()[-1])["seconds"]
    rate = float(tissue.mask.sum()) * math.prod(tissue.downsample) / seconds
    return {
        "over_tiatoolbox": round(median(rates["auto"]) / rate, 2),
        "over_tiatoolbox_fp32": round(median(rates["float32"]) / rate, 2),
        "tissue_mpx_per_s_tiatoolbox": round(rate / 1e6, 3),
    }


# --- the first tile, and memory ---------------------------------------------------------------------------------------


def first_tile(scene: Scene) -> float:
    """Return the seconds from a click on the slide to the first tile there that is on disk."""
    found = []
    for row, column in CLICKS[: 1 if scene.tile != "auto" else None]:
        region = (row * BLOCK, column * BLOCK, 2048, 2048)
        config = config_for(
            scene.slide, scene.networks["student"], scene.output(), region, scene.device, tile=scene.tile
        )
        arrived = threading.Event()

        def notice(event: Event, arrived: threading.Event = arrived) -> None:
            if isinstance(event, Step):
                arrived.set()

        start = time.perf_counter()
        job = start_in_thread(predict, config, notice)
        arrived.wait(60)
        found.append(time.perf_counter() - start)
        job.control.cancel()
        job.join()
    return round(median(found), 3)


def in_own_process(network: Path, arguments: argparse.Namespace) -> float:
    """Measure memory in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", str(network), "--device", arguments.device]
    command += ["--quick"] if arguments.quick else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring memory failed:\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1])["peak_rss_mb"])


def memory_of(network: Path, sizes: Sizes, device: str) -> float:
    """Predict a region of a giant slide; return the peak of memory above that after one tile, in MB."""
    process, peak, over = psutil.Process(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.005):
            peak = max(peak, process.memory_info().rss)

    with tempfile.TemporaryDirectory() as scratch:
        for name, box in (
            ("one", (40_000, 50_000, 256, 256)),
            ("all", (44_000, 48_000, sizes.giant, sizes.giant)),
        ):
            config = config_for(
                GIANT, network, Path(scratch) / f"{name}.ome.zarr", box, device, tile=sizes.tile
            )
            if name == "all":
                ctypes.CDLL(None).malloc_trim(0)  # what is kept for a prediction that comes soon counts, too
                base = peak = process.memory_info().rss
                watcher = threading.Thread(target=watch)
                watcher.start()
            end = run_inline(predict, config).end
            if not isinstance(end, Done):
                raise RuntimeError(f"the prediction did not end well: {end}")
        over.set()
        watcher.join()
    return round((peak - base) / 2**20, 1)


# --- areas, and the machine -------------------------------------------------------------------------------------------


def tissue_box(side: int) -> Box:
    """Return a region of the slide, inside a section."""
    return 3 * BLOCK, 6 * BLOCK, side, side


def grown(region: Box, tile: int) -> Box:
    """Return the whole tiles of ours that a region touches."""
    y, x, height, width = region
    top, left = y // tile * tile, x // tile * tile
    return top, left, -(-(y + height) // tile) * tile - top, -(-(x + width) // tile) * tile - left


def tissue_area(tissue: TissueMask, box: Box) -> float:
    """Return the level-0 pixels of a region that are tissue."""
    rows, columns = ((np.arange(tissue.mask.shape[axis]) + 0.5) * tissue.downsample[axis] for axis in (0, 1))
    y, x, height, width = box
    inside = tissue.mask[(rows >= y) & (rows < y + height)][:, (columns >= x) & (columns < x + width)]
    return float(inside.sum() * math.prod(tissue.downsample))


@contextmanager
def load_of_others() -> Iterator[dict[str, float]]:
    """Measure which share of the processors other programs use."""

    def used() -> tuple[float, float]:
        own = os.times()
        return psutil.cpu_times().user + psutil.cpu_times().system, sum(own[:4])

    found: dict[str, float] = {}
    start, (all_before, own_before) = time.perf_counter(), used()
    yield found
    all_after, own_after = used()
    spent = (time.perf_counter() - start) * (os.cpu_count() or 1)
    found["share"] = round(max(0.0, (all_after - all_before) - (own_after - own_before)) / spent, 3)


if __name__ == "__main__":
    sys.exit(main())
