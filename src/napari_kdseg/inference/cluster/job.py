"""The job that predicts many slides on the workers of a dask scheduler.

With at least as many slides as workers, a task is a slide. Otherwise it is a slab of one: a first task settles what
decides the bytes of its masks and makes them, one task a slab fills them, and a last one makes the coarsest levels and
finishes. A task that is done twice, because its worker was lost, finds in the journal what is done already.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from napari_kdseg.errors import ConfigurationError, KdsegError, explain
from napari_kdseg.inference.cluster.config import LOCAL, PredictManyConfig
from napari_kdseg.inference.config import PredictConfig
from napari_kdseg.inference.prediction import Begun
from napari_kdseg.inference.provenance import versions
from napari_kdseg.inference.running.loop import MaskResult, PredictResult
from napari_kdseg.jobs import Checkpointed, Control, Emit, JobCancelled, Message, Started, Step
from napari_kdseg.masks.writing.slabs import Slab

try:
    from dask.distributed import Client, Future, Variable, wait

    from napari_kdseg.inference.cluster import tasks
    from napari_kdseg.inference.cluster.local import start_workers, threads_of_a_worker
except ImportError as missing:
    raise ConfigurationError(
        "Several workers need the package distributed, which is not installed. Install it with: "
        "pip install distributed"
    ) from missing

#: How often dask tries a task again that failed for reasons which may pass.
RETRIES = 2
#: A slab is at most one chunk of this level: 8 x 8 tiles.
LARGEST_SLAB = 3
SLABS_PER_WORKER = 3
#: Seconds between two looks at the switches of the job.
INTERVAL = 0.3
#: Seconds that workers have to stop before their tasks are taken from them.
GRACE = 30.0
#: Seconds within which a scheduler has to answer.
TIMEOUT = 20


@dataclass(frozen=True)
class PredictManyResult:
    """What a prediction of many slides did.

    Attributes
    ----------
    stores
        What was done in each store that was finished.
    failures
        For each of the others, the slide and a sentence.
    """

    stores: dict[Path, PredictResult]
    failures: dict[Path, str]


def predict_many(config: PredictManyConfig, emit: Emit, control: Control) -> PredictManyResult:
    """Predict slides on the workers of a dask scheduler (a job).

    Parameters
    ----------
    config
        What to do. Running it again continues where it stopped, also on one machine by
        :func:`~napari_kdseg.inference.prediction.predict`, whose masks are continued here, too.
    emit
        Receives ``Started`` (a slide a step), ``Step`` (stage: slide and mask; tiles), ``Message`` and
        ``Checkpointed`` for every slide that is done.
    control
        When cancelled, the workers stop after the tiles in flight.

    Raises
    ------
    KdsegError
        If no slide could be predicted.
    """
    control.check()
    with _workers(config) as client:
        batch = _Batch(config, client, emit, control)
        emit(Started(f"{len(config.slides)} slides", len(config.slides)))
        result = batch.run()
    if not result.stores:
        raise KdsegError(" ".join(dict.fromkeys(result.failures.values())))
    return result


@contextlib.contextmanager
def _workers(config: PredictManyConfig) -> Iterator[Client]:
    """Give a client of the scheduler that was asked for."""
    with contextlib.ExitStack() as stack:
        address: Any = config.scheduler
        if address == LOCAL:
            one = config.slides[0]
            address = stack.enter_context(start_workers(one.device, config.workers, one.threads))
        client = stack.enter_context(_connected(address))
        stack.enter_context(client.as_current())
        yield client


def _connected(address: Any) -> Client:
    try:
        return Client(address, set_as_default=False, timeout=TIMEOUT)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"No dask scheduler answers at {address} ({error}). Check the address, and that it runs with the same "
            "version of distributed."
        ) from error


class _SlideProgress:
    """A slide on its way: what its tasks did so far."""

    def __init__(self, config: PredictConfig):
        self.config = config
        self.began = time.monotonic()
        self.begun: dict[str, Begun] = {}
        self.done: dict[str, list[MaskResult]] = {}
        self.slabs_left = 0

    @property
    def name(self) -> str:
        """What people call it."""
        return Path(self.config.slide.partition("?")[0]).name

    def kept(self, mask: str) -> int:
        """How many tiles were there before."""
        return self.begun[mask].tiles - len(self.begun[mask].todo)

    def finished(self, mask: str) -> int:
        """How many tiles there are by now."""
        return self.kept(mask) + sum(item.tiles_done + item.tiles_skipped for item in self.done[mask])

    def result(self, last: PredictResult) -> PredictResult:
        """Add up what the tasks did, of which ``last`` was the last."""
        if not self.begun:
            return last
        seconds = time.monotonic() - self.began
        return PredictResult(
            last.output, {name: self._sum(name, mask, seconds) for name, mask in last.masks.items()}
        )

    def _sum(self, name: str, last: MaskResult, seconds: float) -> MaskResult:
        results = [*self.done[name], last]
        return replace(
            last,
            tiles_done=sum(item.tiles_done for item in results),
            tiles_skipped=sum(item.tiles_skipped for item in results),
            tiles_kept=self.kept(name),
            seconds=seconds,
            mpx_per_s=sum(item.mpx_per_s * item.seconds for item in results) / max(seconds, 1e-9),
        )


class _Batch:
    """The tasks of all slides, and what follows from each that ends."""

    def __init__(self, config: PredictManyConfig, client: Client, emit: Emit, control: Control):
        self._client = client
        self._emit = emit
        self._control = control
        self._slides = [self._settled(item, config) for item in config.absolute()]
        self._token = f"kdseg-{uuid.uuid4().hex[:12]}"
        self._orders = Variable(self._token, client=client)
        self._pending: dict[Future, Callable[[Any], None]] = {}
        self._results: dict[Path, PredictResult] = {}
        self._failures: dict[Path, str] = {}
        self._said: set[str] = set()

    def run(self) -> PredictManyResult:
        """Submit the first task of every slide, then what follows, until nothing is left."""
        workers = self._client.scheduler_info()["workers"]
        self._compare_versions(bool(workers))
        self._orders.set("go")
        self._workers = max(1, len(workers))
        try:
            for config in self._slides:
                self._start(config, whole=len(self._slides) >= len(workers) > 0)
            while self._pending:
                self._check_control()
                self._collect()
        except (OSError, CancelledError) as error:
            raise KdsegError(
                "The connection to the dask scheduler was lost. See that it runs, then run the same again to go on: "
                "what is done is kept."
            ) from error
        except BaseException:
            self._stop()
            raise
        finally:
            with contextlib.suppress(OSError):  # a scheduler that was lost keeps no orders
                self._orders.delete()
        return PredictManyResult(self._results, self._failures)

    def _settled(self, config: PredictConfig, whole: PredictManyConfig) -> PredictConfig:
        """Say how many threads a worker uses that was started here."""
        if whole.scheduler != LOCAL or whole.workers is not None or config.threads is not None:
            return config
        return config.model_copy(update={"threads": threads_of_a_worker(None)})

    def _compare_versions(self, any_workers: bool) -> None:
        if not any_workers:
            self._say(Message("No worker has come to the scheduler yet; waiting for the first."))
            return
        here = versions()
        for worker, there in self._client.run(versions).items():
            other = [
                f"{name} {there[name]} instead of {here[name]}" for name in here if there[name] != here[name]
            ]
            if other:
                self._say(
                    Message(
                        f"The worker at {worker} has {', '.join(other)}; masks may differ in a few pixels.",
                        "warning",
                    )
                )

    def _submit(self, then: Callable[[Any], None], task: Callable[..., Any], *arguments: Any) -> None:
        future = self._client.submit(
            task, *arguments, key=f"{task.__name__}-{uuid.uuid4().hex}", retries=RETRIES, pure=False
        )
        self._pending[future] = then

    def _start(self, config: PredictConfig, *, whole: bool) -> None:
        slide = _SlideProgress(config)
        if not whole:
            self._submit(partial(self._fill, slide), tasks.run_begin, config, self._token)
            return
        topic = f"{self._token}-{len(self._pending)}"
        self._client.subscribe_topic(topic, lambda event: self._progress(slide, event[1]))
        self._submit(partial(self._finished, slide), tasks.run_slide, config, self._token, topic)

    def _fill(self, slide: _SlideProgress, outcome: tasks.Outcome) -> None:
        """Submit the slabs of a slide whose masks were made."""
        if not self._went_well(slide, outcome):
            return
        slide.begun = outcome.result
        slide.config = slide.config.model_copy(update={"overwrite": False})  # that is done
        for name, begun in slide.begun.items():
            slide.done[name] = []
            alone = slide.config.model_copy(update={"networks": {name: slide.config.networks[name]}})
            for slab in slabs_for(begun, self._workers):
                slide.slabs_left += 1
                self._submit(partial(self._filled, slide, name), tasks.run_slab, alone, slab, self._token)
        self._finish_when_full(slide)

    def _filled(self, slide: _SlideProgress, mask: str, outcome: tasks.Outcome) -> None:
        slide.slabs_left -= 1
        if self._went_well(slide, outcome):
            slide.done[mask].append(outcome.result)
            done, total = slide.finished(mask), slide.begun[mask].tiles
            self._emit(Step(f"{slide.name} {mask}", min(done, total), total))
            self._finish_when_full(slide)

    def _finish_when_full(self, slide: _SlideProgress) -> None:
        if slide.slabs_left == 0 and slide.config.output not in self._failures:
            self._submit(partial(self._finished, slide), tasks.run_slide, slide.config, self._token)

    def _finished(self, slide: _SlideProgress, outcome: tasks.Outcome) -> None:
        if self._went_well(slide, outcome):
            result = slide.result(outcome.result)
            self._results[slide.config.output] = result
            self._emit(Checkpointed(result.output))

    def _went_well(self, slide: _SlideProgress, outcome: tasks.Outcome) -> bool:
        for message in outcome.messages:
            self._say(replace(message, text=f"{slide.name}: {message.text}"))
        if outcome.failure is not None and slide.config.output not in self._failures:
            sentence = f"{slide.name}: {outcome.failure}"
            self._failures[slide.config.output] = sentence
            self._say(Message(sentence, "warning"))
        return outcome.failure is None and not outcome.cancelled

    def _progress(self, slide: _SlideProgress, told: dict[str, Any]) -> None:
        self._emit(Step(f"{slide.name} {told['stage']}", told["done"], told["total"]))

    def _collect(self) -> None:
        """Wait a moment for tasks to end, and go on from those that did."""
        with contextlib.suppress(TimeoutError):
            wait(list(self._pending), timeout=INTERVAL, return_when="FIRST_COMPLETED")
        for future in [future for future in self._pending if future.done()]:
            self._pending.pop(future)(_outcome(future))

    def _check_control(self) -> None:
        """Look at the switches; while the job is paused, so are the workers."""
        if self._control.paused:
            self._orders.set("pause")
            self._control.check()
            self._orders.set("go")
        self._control.check()

    def _stop(self) -> None:
        """Have the workers stop in good order, and wait for them, so that the same command can go on at once."""
        pending = list(self._pending)
        with contextlib.suppress(OSError, CancelledError):  # without a scheduler they stop by themselves
            self._orders.set("stop")
            with contextlib.suppress(TimeoutError):
                wait(pending, timeout=GRACE)
            self._client.cancel(pending)

    def _say(self, message: Message) -> None:
        if message.text not in self._said:
            self._said.add(message.text)
            self._emit(message)


def slabs_for(begun: Begun, workers: int) -> list[Slab]:
    """Cut what is left of a mask into slabs: as large as leaves every worker a few, in the order of its tiles."""
    for level in range(min(LARGEST_SLAB, begun.levels - 1), -1, -1):
        slabs = list(dict.fromkeys(Slab.around(tile, level) for tile in begun.todo))
        if level <= 1 or len(slabs) >= SLABS_PER_WORKER * workers:
            break
    return slabs


def _outcome(future: Future) -> tasks.Outcome:
    """Return how a task ended; what dask gave up after trying it again is put into words."""
    try:
        return future.result()
    except CancelledError:
        return tasks.Outcome(failure="The scheduler dropped this task. Run the same command again to go on.")
    except JobCancelled:
        return tasks.Outcome(cancelled=True)
    except Exception as error:
        if type(error).__name__ == "KilledWorker":
            return tasks.Outcome(
                failure="Several workers died one after the other while they predicted this slide, perhaps of too "
                "little memory. Use fewer workers a machine, or a smaller tile; what is done is kept."
            )
        return tasks.Outcome(failure=explain(error))
