"""The training loop of one stage: steps, validation and a checkpoint every epoch, early stop, exact resume.

Device and precision are lightning-fabric's; the loop is ours, because a method may have stages of its own. Everything
random is either drawn from hashes of (seed, stage, epoch) or kept in the state, so that a resumed run repeats the
curve of one that was never stopped: bit by bit on a CPU with the same number of threads.
"""

from __future__ import annotations

import math
import time
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from napari_kdseg.distillation import Stage
from napari_kdseg.errors import KdsegError
from napari_kdseg.jobs import Checkpointed, Control, Emit, JobCancelled, Message, Step, Validated
from napari_kdseg.networks import NetworkSpec, divided, shares, to_input
from napari_kdseg.networks.spec import REVISION
from napari_kdseg.training.config import DistillConfig
from napari_kdseg.training.run.ema import WeightAverage
from napari_kdseg.training.run.gradient_watch import GradientWatch
from napari_kdseg.training.run.optimisers import deterministic, make_optimiser, rate_factor
from napari_kdseg.training.run.previews import save_preview
from napari_kdseg.training.run.run_folder import RunFolder
from napari_kdseg.training.run.weights import keep_weights, load_weights, segments
from napari_kdseg.training.scores.evaluation import evaluate, mean_loss
from napari_kdseg.training.tiles.dataset import TileDataset, batch_count, train_batches
from napari_kdseg.training.tiles.tile import stable_hash

LAST = "-last"
"""Added to the name of a stage judged by score, for the weights of its last epoch."""

SHOWN = ("train_loss", "val_loss", "val_dice", "val_iou", "val_miou", "val_tile_dice", "val_accuracy")
"""What observers are told after each epoch, of foreground classes also where there are several; the rest is logged."""


@dataclass
class Workplace:
    """What all stages of a run share; ``train`` and ``val`` are the tiles of the stage that is trained now.

    ``revision`` is that of the papers' networks when the run began (:class:`~napari_kdseg.networks.NetworkSpec`).
    """

    config: DistillConfig
    run: RunFolder
    fabric: Fabric
    train: TileDataset
    val: TileDataset
    emit: Emit
    control: Control
    fingerprint: str
    revision: int = REVISION
    position: int = 0
    completed: dict[str, dict[str, float]] = field(default_factory=dict)

    def checkpointed(self, path: Path) -> None:
        """Say that ``path`` is safely on disk."""
        self.emit(Checkpointed(path))


@dataclass
class Progress:
    """Where a stage stands, in plain values.

    ``stale`` counts the epochs since the best one, ``told`` names the terms that the user was warned of.
    """

    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    best: float = -math.inf
    stale: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)


def fit(
    stage: Stage, epochs: int, spec: NetworkSpec, workplace: Workplace, state: dict[str, Any] | None = None
) -> dict[str, float]:
    """Train a stage from its first epoch, or from ``state``, to its last; it ends with the weights that are kept.

    They are in the run folder as ``<stage>.safetensors`` from the first epoch on; of a stage that is
    ``judged_by_score`` those of its best epoch, with the last one beside it as ``<stage>-last.safetensors``.

    A stage with ``segments = False`` (a paraphraser, a critic) is judged by its own loss on the validation tiles.

    Parameters
    ----------
    stage
        What is trained.
    epochs
        Passes over the training tiles.
    spec
        Description of the stage's network.
    workplace
        Data, device, run folder, observers.
    state
        What :meth:`RunFolder.load_state` returned, if it is of this stage.

    Returns
    -------
    dict
        Scores of the kept weights on the validation set; of a stage that does not segment ``val_loss`` alone.

    Raises
    ------
    JobCancelled
        If the job was asked to stop; the state is saved before.
    KdsegError
        If a loss is not finite any more.
    """
    with deterministic(workplace.config.deterministic), divided(stage.image_networks()):
        return _Fit(stage, epochs, spec, workplace).run(state)


class _Fit:
    def __init__(self, stage: Stage, epochs: int, spec: NetworkSpec, workplace: Workplace):
        self.stage, self.epochs, self.spec, self.workplace = stage, epochs, spec, workplace
        self.judged_by_score = getattr(stage, "judged_by_score", False) and segments(stage)
        self.progress = Progress()
        self.batches = batch_count(len(workplace.train), workplace.config.batch_size)
        self.rate = workplace.config.optimiser.learning_rate * stage.learning_rate_factor
        stage.to(workplace.fabric.device)
        settings = workplace.config.optimiser
        optimiser = make_optimiser(stage.trainable_parameters(), settings, self.rate)
        self.optimiser: Any = workplace.fabric.setup_optimizers(optimiser)
        shares().spread([*stage.network.state_dict().values(), *stage.trainable_parameters()])
        averaged = settings.ema > 0 and segments(stage)
        self.average = WeightAverage(stage.network, settings.ema) if averaged else None
        self.watch = GradientWatch(stage, workplace.config, workplace.fabric, workplace.emit)
        self.watch.told = self.progress.told
        self.ticked = time.perf_counter()

    def run(self, state: dict[str, Any] | None) -> dict[str, float]:
        torch.manual_seed(self._seed())
        if state is not None:
            self._restore(state)
        if self.workplace.config.sampling != "all":
            self.workplace.train.presence(self.workplace.control.check)
        while self.progress.epoch < self.epochs:
            self.stage.begin_epoch(self.progress.epoch, self.epochs)
            if state is not None and self.progress.batch > 0:  # sums of the epoch begun go on
                self.stage.load_state_dict(state["stage_state"])
            state = None
            try:
                self._train_epoch()
                judged = self._is_judged()
                if judged:
                    self._validate()
            except JobCancelled:
                self._save_state()
                raise
            self.progress.epoch, self.progress.batch, self.progress.sums = self.progress.epoch + 1, 0, {}
            if judged:
                self._stop_early()
                self._save_state()
        load_weights(self.stage, self.spec, self.workplace.run.network(self.stage.name))
        self.workplace.completed[self.stage.name] = self.progress.best_metrics
        return self.progress.best_metrics

    def _seed(self) -> int:
        """Of dropout and the like: each process draws its own for its share of the images."""
        own = (shares().rank, self.workplace.position) if shares().rank else ()
        return stable_hash(self.workplace.config.seed, "stage", self.stage.name, *own)

    def _stop_early(self) -> None:
        """End a stage judged by score that has not become better for a while."""
        progress, patience = self.progress, self.workplace.config.patience
        if self.judged_by_score and 0 < patience <= progress.stale and progress.epoch < self.epochs:
            self.workplace.emit(
                Message(
                    f"{self.stage.title}: stopped early after epoch {progress.epoch} of {self.epochs}, because its "
                    f"validation Dice was best in epoch {progress.epoch - progress.stale}."
                )
            )
            progress.epoch = self.epochs

    # -- one epoch ------------------------------------------------------------------------------------------------

    def _train_epoch(self) -> None:
        config, progress = self.workplace.config, self.progress
        self.stage.network.train()
        self.ticked = time.perf_counter()
        batches: Any = train_batches(
            self.workplace.train,
            config.batch_size,
            seed=config.seed,
            stage=self.stage.name,
            epoch=progress.epoch,
            start=progress.batch,
            augment=config.augmentation if config.augment else False,
            sampling=config.sampling,
        )
        with closing(batches):
            for images, targets in batches:
                self.workplace.control.check()
                self._step(images, targets)
        self.workplace.control.check()

    def _step(self, images: Tensor, targets: Tensor) -> None:
        fabric, progress = self.workplace.fabric, self.progress
        done = progress.epoch * self.batches + progress.batch
        rate = self._set_rate(done)
        image, target = to_input(images, self.spec, fabric.device), targets.to(fabric.device)
        with fabric.autocast():
            terms = self.stage.loss(image, target)
        values = self._finite(terms)
        self.watch.look(done + 1, terms, values)
        self.optimiser.zero_grad(set_to_none=True)
        fabric.backward(terms["loss"])
        shares().average(self.stage.trainable_parameters())
        length = fabric.clip_gradients(
            self.stage.network,
            self.optimiser,
            max_norm=self.workplace.config.optimiser.clip,
            error_if_nonfinite=False,
        )
        self.watch.stepped(length)
        self.optimiser.step()
        if self.average is not None:
            self.average.update(self.stage.network)
        values |= self._after_step()
        progress.batch += 1
        for name, value in (("loss", values["loss"]), ("batches", 1.0)):
            progress.sums[name] = progress.sums.get(name, 0.0) + value
        now = time.perf_counter()
        values |= {"lr": rate, "images_per_s": len(images) / max(now - self.ticked, 1e-9)}
        self.ticked = now
        self.workplace.position += 1
        event = Step(self.stage.name, done + 1, self.epochs * self.batches, values)
        self.workplace.run.record(event, self.workplace.position)
        self.workplace.emit(event)

    def _set_rate(self, done: int) -> float:
        """Follow the schedule over all steps of the stage."""
        rate = self.rate * rate_factor(self.workplace.config.optimiser, done, self.epochs * self.batches)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return rate

    def _finite(self, terms: dict[str, Tensor]) -> dict[str, float]:
        """Bring all terms to the CPU at once; one that is not finite ends the run before it spoils the weights."""
        numbers = torch.stack([term.detach().float() for term in terms.values()]).tolist()
        values = dict(zip(terms, numbers, strict=True))
        self._refuse_broken(values)
        return values

    def _after_step(self) -> dict[str, float]:
        """Let a stage that steps more than this optimiser (a critic's) do so."""
        after_step = getattr(self.stage, "after_step", None)
        values = after_step() if after_step is not None else {}
        self._refuse_broken(values)
        return values

    def _refuse_broken(self, values: dict[str, float]) -> None:
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise KdsegError(
                f"The loss term '{broken[0]}' of the {self.stage.title.lower()} is {values[broken[0]]} in epoch "
                f"{self.progress.epoch + 1}, so training cannot go on. Start again with a lower learning "
                f"rate (it is {self.workplace.config.optimiser.learning_rate:g}) or with 32 bits; the networks so far "
                "are kept."
            )

    # -- validation -----------------------------------------------------------------------------------------------

    def _is_judged(self) -> bool:
        """Whether the epoch that was just trained ends with a validation; the last one always does."""
        done = self.progress.epoch + 1
        return done % self.workplace.config.validate_every == 0 or done >= self.epochs

    def _validate(self) -> None:
        """Score and keep the weights, or their average where there is one."""
        with nullcontext() if self.average is None else self.average.applied(self.stage.network):
            self._score_and_keep()

    def _score_and_keep(self) -> None:
        scores = self._scores()
        progress = self.progress
        metrics = {f"val_{name}": value for name, value in scores.items()}
        batches = progress.sums.get("batches", 0.0)
        metrics["train_loss"] = progress.sums.get("loss", 0.0) / batches if batches else math.nan
        if self.workplace.config.previews and segments(self.stage):
            save_preview(
                self.workplace.run,
                self.stage,
                progress.epoch,
                self.workplace.val,
                self.spec,
                self.workplace.fabric,
            )
        self._report(metrics)
        self._keep(metrics)

    def _scores(self) -> dict[str, float]:
        """Score the network on the validation tiles; one that does not segment is judged by its own loss."""
        stage, workplace, size = self.stage, self.workplace, self.workplace.config.batch_size
        if segments(stage):
            return evaluate(
                stage.network, self.spec, workplace.val, workplace.fabric, size, workplace.control
            )
        return {"loss": mean_loss(stage, self.spec, workplace.val, workplace.fabric, size, workplace.control)}

    def _report(self, metrics: dict[str, float]) -> None:
        """Tell observers the main figures, and write all of them down."""
        parts = len(self.spec.classes) > 2
        shown = {
            name: value
            for name, value in metrics.items()
            if name.partition("/")[0] in SHOWN and (parts or "/" not in name)
        }
        event = Validated(self.stage.name, self.progress.epoch + 1, self.epochs, shown)
        logged = Validated(event.stage, event.epoch, event.epochs, metrics | self.stage.report())
        self.workplace.run.record(logged, self.workplace.position)
        self.workplace.emit(event)

    def _keep(self, metrics: dict[str, float]) -> None:
        """Keep the weights as they are now: always as the last, where a score judges them also if they are the best."""
        stage, progress = self.stage, self.progress
        known = {name: value for name, value in metrics.items() if math.isfinite(value)}
        spec = self.spec.model_copy(update={"metrics": known})
        if not self.judged_by_score:
            progress.best_metrics = metrics
            self._write(spec, stage.name)
            return
        score = -1.0 if math.isnan(metrics["val_dice"]) else metrics["val_dice"]
        progress.stale += self.workplace.config.validate_every
        if score > progress.best:
            progress.best, progress.best_metrics, progress.stale = score, metrics, 0
            self._write(spec, stage.name)
        self._write(spec, f"{stage.name}{LAST}")

    def _write(self, spec: NetworkSpec, name: str) -> None:
        if self.workplace.run.writes:
            self.workplace.checkpointed(keep_weights(self.stage, spec, self.workplace.run.network(name)))

    # -- state ----------------------------------------------------------------------------------------------------

    def _save_state(self) -> None:
        """Write the state; of several processes the first does, and the others tell it that of their generators."""
        workplace = self.workplace
        generators = self._generators()
        state = {
            "fingerprint": workplace.fingerprint,
            "revision": workplace.revision,
            "stage": self.stage.name,
            "progress": asdict(self.progress),
            "network": self.stage.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "stage_state": self.stage.state_dict(),
            "precision": workplace.fabric.strategy.precision.state_dict(),
            "generators": generators,
            "completed": workplace.completed,
            "position": workplace.position,
            "metrics_size": workplace.run.metrics_size(),
        }
        workplace.checkpointed(workplace.run.save_state(state))

    def _generators(self) -> list[dict[str, Tensor]]:
        """Return the state of torch's generators in each process."""
        device = self.workplace.fabric.device
        states = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(device)
        by_kind = {kind: [part.cpu() for part in shares().all(state)] for kind, state in states.items()}
        return [{kind: by_kind[kind][rank] for kind in by_kind} for rank in range(shares().count)]

    def _restore(self, state: dict[str, Any]) -> None:
        self.progress = Progress(**state["progress"])
        self.watch.told = self.progress.told
        self.stage.network.load_state_dict(state["network"])
        self.stage.load_state_dict(state["stage_state"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.workplace.fabric.strategy.precision.load_state_dict(state["precision"])
        self._restore_generators(state["generators"])

    def _restore_generators(self, generators: list[dict[str, Tensor]]) -> None:
        if len(generators) != shares().count:
            self.workplace.emit(
                Message(
                    f"This run was stopped with {_processes(len(generators))} and goes on with "
                    f"{_processes(shares().count)}: dropout is drawn anew, and sums are rounded otherwise, so that the "
                    "weights will not be those of a run that was never stopped."
                )
            )
        if shares().rank >= len(generators):
            return
        own, device = generators[shares().rank], self.workplace.fabric.device
        torch.set_rng_state(own["cpu"])
        if device.type == "cuda" and "cuda" in own:
            torch.cuda.set_rng_state(own["cuda"], device)


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"
