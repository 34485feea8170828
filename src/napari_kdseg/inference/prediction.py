"""The jobs that lay the masks of networks over a slide, tile by tile, what is looked at first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from napari_kdseg.inference.config import PredictConfig
from napari_kdseg.inference.network.engine import choose_device
from napari_kdseg.inference.running.loop import MaskResult, PredictionLoop, PredictResult
from napari_kdseg.inference.running.preparation import Preparation, Ready
from napari_kdseg.jobs import Control, Emit
from napari_kdseg.masks.writing.slabs import Slab
from napari_kdseg.memory import blocks_kept
from napari_kdseg.slides import Slide, open_slide


def predict(config: PredictConfig, emit: Emit, control: Control) -> PredictResult:
    """Predict networks on one slide (a job).

    Parameters
    ----------
    config
        What to do. Running it again continues where it stopped, and adds a region to what is there.
    emit
        Receives ``Started``, one ``Step`` a tile (stage is the label's name; values ``mpx_per_s`` and the level-0
        rectangle ``y x h w``), ``Message`` and ``Checkpointed``.
    control
        Looked at after every batch, also for what is on screen. When cancelled, finished tiles are kept.

    Returns
    -------
    PredictResult

    Raises
    ------
    KdsegError
        If slide, checkpoint, settings or output do not work together.
    """
    with contextlib.closing(_opened(config)) as stored, _undisturbed():
        job = Preparation(config, stored, emit, control)
        store = job.store()
        with contextlib.ExitStack() as writers:
            masks = [job.begin_mask(name, path, store, writers) for name, path in config.networks.items()]
            return PredictionLoop(config, job.slide, masks, emit, control).run()


@dataclass(frozen=True)
class Begun:
    """A mask that was begun: its tiles that are not done yet, and how many there are in all."""

    tiles: int
    todo: tuple[tuple[int, int], ...]
    levels: int


def begin(config: PredictConfig, emit: Emit, control: Control) -> dict[str, Begun]:
    """Settle all that decides the bytes of the masks of ``config`` and make them, or open those that are there (a job).

    :func:`predict_slab` goes on from here, in any number of programs.
    """
    with contextlib.closing(_opened(config)) as stored, _undisturbed():
        job = Preparation(config, stored, emit, control)
        store = job.store()
        begun = {}
        for name, path in config.networks.items():
            with contextlib.ExitStack() as writers:
                mask = job.begin_mask(name, path, store, writers)
                todo = tuple(tile.index for tile in mask.lane.waiting)
                begun[name] = Begun(mask.total, todo, mask.writer.levels)
        return begun


def predict_slab(config: PredictConfig, slab: Slab, emit: Emit, control: Control) -> MaskResult:
    """Predict the tiles of ``config`` that lie in a slab of a mask that :func:`begin` has made.

    Others may predict other slabs of it meanwhile. The next :func:`predict` of ``config`` takes all of them over and
    finishes the mask.

    Parameters
    ----------
    config
        As :func:`begin` got it, with a single network; what is left open in it was settled there.
    slab
        Which tiles, and how far up the pyramid they are carried here.
    emit, control
        As for :func:`predict`.
    """
    going_on = config.model_copy(update={"overwrite": False})
    with contextlib.closing(_opened(config)) as stored, _undisturbed():
        job = Preparation(going_on, stored, emit, control)
        store = job.store()
        ((name, path),) = config.networks.items()
        with contextlib.ExitStack() as writers:
            mask = job.begin_mask(name, path, store, writers, slab)
            return PredictionLoop(going_on, job.slide, [mask], emit, control).run_through()[name]


def prepare(config: PredictConfig, emit: Emit, control: Control) -> dict[str, Ready]:
    """Load and measure all that a prediction of ``config`` needs, so that it begins at once (a job)."""
    with contextlib.closing(_opened(config)) as stored, _undisturbed():
        job = Preparation(config, stored, emit, control)
        return {name: job.try_out(path) for name, path in config.networks.items()}


def _opened(config: PredictConfig) -> Slide:
    """Open the slide: on a processor each thread decodes its own tiles, since all of them are busy anyway."""
    threads = 1 if choose_device(config.device).type == "cpu" else None
    return open_slide(config.slide, mpp=config.slide_mpp, threads=threads)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave the number of torch's threads as it was, and memory given back."""
    threads = torch.get_num_threads()
    try:
        with blocks_kept():
            yield
    finally:
        torch.set_num_threads(threads)
