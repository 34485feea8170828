"""The training loop of one stage: AdamW with polynomial decay, validation and a checkpoint every epoch, exact resume.

Device and precision are lightning-fabric's; the loop is ours, because a method may have stages of its own. Everything
random is either drawn from hashes of (seed, stage, epoch) or kept in the state, so that a resumed run repeats the
curve of one that was never stopped: bit by bit on a CPU with the same number of threads.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from napari_kdseg.distillation import Stage, cross_entropy_dice
from napari_kdseg.errors import KdsegError
from napari_kdseg.jobs import Checkpointed, Control, Emit, JobCancelled, Step, Validated
from napari_kdseg.networks import NetworkSpec, load, save, to_input
from napari_kdseg.training.config import DistillConfig
from napari_kdseg.training.dataset import TileDataset, all_batches, batch_count, train_batches
from napari_kdseg.training.metrics import SegmentationScore
from napari_kdseg.training.previews import save_preview
from napari_kdseg.training.run_folder import RunFolder
from napari_kdseg.training.tile import stable_hash

JUDGED_BY_SCORE = ("teacher", "student")
"""Stages that keep the weights of their best epoch on validation; all others keep those of their last.

An assistant is there to be right where the teacher is wrong. Its own score is best while it still is a copy of the
teacher, so choosing by score would undo its training.
"""


@dataclass
class Workplace:
    """What all stages of a run share."""

    config: DistillConfig
    run: RunFolder
    fabric: Fabric
    train: TileDataset
    val: TileDataset
    emit: Emit
    control: Control
    fingerprint: str
    position: int = 0
    completed: dict[str, dict[str, float]] = field(default_factory=dict)

    def checkpointed(self, path: Path) -> None:
        """Say that ``path`` is safely on disk."""
        self.emit(Checkpointed(path))


@dataclass
class Progress:
    """Where a stage stands, in plain values."""

    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    best: float = -math.inf
    best_metrics: dict[str, float] = field(default_factory=dict)


def fit(
    stage: Stage, epochs: int, spec: NetworkSpec, place: Workplace, state: dict[str, Any] | None = None
) -> dict[str, float]:
    """Train a stage from its first epoch, or from ``state``, to its last; it ends with the weights that are kept.

    They are in the run folder as ``<stage>.safetensors`` from the first epoch on; see :data:`JUDGED_BY_SCORE`.

    Parameters
    ----------
    stage
        What is trained.
    epochs
        Passes over the training tiles.
    spec
        Description of the stage's network.
    place
        Data, device, run folder, observers.
    state
        What :meth:`RunFolder.load_state` returned, if it is of this stage.

    Returns
    -------
    dict
        Scores of the kept weights on the validation set.

    Raises
    ------
    JobCancelled
        If the job was asked to stop; the state is saved before.
    KdsegError
        If a loss is not finite any more.
    """
    return _Fit(stage, epochs, spec, place).run(state)


class _Fit:
    def __init__(self, stage: Stage, epochs: int, spec: NetworkSpec, place: Workplace):
        self.stage, self.epochs, self.spec, self.place = stage, epochs, spec, place
        self.progress = Progress()
        self.batches = batch_count(len(place.train), place.config.batch_size)
        self.rate = place.config.optimiser.learning_rate * stage.learning_rate_factor
        stage.to(place.fabric.device)
        optimiser = torch.optim.AdamW(
            stage.trainable_parameters(), lr=self.rate, weight_decay=place.config.optimiser.weight_decay
        )
        self.optimiser: Any = place.fabric.setup_optimizers(optimiser)
        self.ticked = time.perf_counter()

    def run(self, state: dict[str, Any] | None) -> dict[str, float]:
        torch.manual_seed(stable_hash(self.place.config.seed, "stage", self.stage.name))
        if state is not None:
            self._restore(state)
        while self.progress.epoch < self.epochs:
            self.stage.begin_epoch(self.progress.epoch, self.epochs)
            if state is not None and self.progress.batch > 0:  # sums of the epoch begun go on
                self.stage.load_state_dict(state["stage_state"])
            state = None
            try:
                self._train_epoch()
                self._validate()
            except JobCancelled:
                self._save_state()
                raise
            self.progress.epoch, self.progress.batch, self.progress.sums = self.progress.epoch + 1, 0, {}
            self._save_state()
        kept = load(self.place.run.network(self.stage.name), expect=self.spec)
        self.stage.network.load_state_dict(kept.module.state_dict())
        self.place.completed[self.stage.name] = self.progress.best_metrics
        return self.progress.best_metrics

    # -- one epoch ------------------------------------------------------------------------------------------------

    def _train_epoch(self) -> None:
        config, progress = self.place.config, self.progress
        self.stage.network.train()
        self.ticked = time.perf_counter()
        batches: Any = train_batches(
            self.place.train,
            config.batch_size,
            seed=config.seed,
            stage=self.stage.name,
            epoch=progress.epoch,
            start=progress.batch,
            augment=config.augment,
        )
        with closing(batches):
            for images, targets in batches:
                self.place.control.check()
                self._step(images, targets)
        self.place.control.check()

    def _step(self, images: Tensor, targets: Tensor) -> None:
        fabric, progress = self.place.fabric, self.progress
        done = progress.epoch * self.batches + progress.batch
        rate = self._set_rate(done)
        image, target = to_input(images, self.spec, fabric.device), targets.to(fabric.device)
        with fabric.autocast():
            terms = self.stage.loss(image, target)
        values = self._values(terms)
        self.optimiser.zero_grad(set_to_none=True)
        fabric.backward(terms["loss"])
        fabric.clip_gradients(
            self.stage.network,
            self.optimiser,
            max_norm=self.place.config.optimiser.clip,
            error_if_nonfinite=False,
        )
        self.optimiser.step()
        progress.batch += 1
        progress.sums = dict(Counter(progress.sums) + Counter({"loss": values["loss"], "batches": 1.0}))
        now = time.perf_counter()
        values |= {"lr": rate, "images_per_s": len(images) / max(now - self.ticked, 1e-9)}
        self.ticked = now
        self.place.position += 1
        event = Step(self.stage.name, done + 1, self.epochs * self.batches, values)
        self.place.run.record(event, self.place.position)
        self.place.emit(event)

    def _set_rate(self, done: int) -> float:
        """Polynomial decay over all steps of the stage."""
        share = 1 - done / (self.epochs * self.batches)
        rate = self.rate * share**self.place.config.optimiser.poly_power
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return rate

    def _values(self, terms: dict[str, Tensor]) -> dict[str, float]:
        """Bring all terms to the CPU at once; a term that is not finite ends the run before it spoils the weights."""
        numbers = torch.stack([term.detach().float() for term in terms.values()]).tolist()
        values = dict(zip(terms, numbers, strict=True))
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise KdsegError(
                f"The loss term '{broken[0]}' of the {self.stage.title.lower()} is {values[broken[0]]} in epoch "
                f"{self.progress.epoch + 1}, so training cannot go on. Start again with a lower learning rate "
                f"(it is {self.place.config.optimiser.learning_rate:g}) or with 32 bits; the networks so far are kept."
            )
        return values

    # -- validation -----------------------------------------------------------------------------------------------

    def _validate(self) -> None:
        place, progress = self.place, self.progress
        scores = evaluate(
            self.stage.network, self.spec, place.val, place.fabric, place.config.batch_size, place.control
        )
        metrics = {f"val_{name}": value for name, value in scores.items()}
        batches = progress.sums.get("batches", 0.0)
        metrics["train_loss"] = progress.sums.get("loss", 0.0) / batches if batches else math.nan
        shown = {
            name: value for name, value in metrics.items() if "/" not in name or len(self.spec.classes) > 2
        }
        event = Validated(self.stage.name, progress.epoch + 1, self.epochs, shown)
        logged = Validated(event.stage, event.epoch, event.epochs, metrics | self.stage.report())
        place.run.record(logged, place.position)
        place.emit(event)
        score = -1.0 if math.isnan(scores["dice"]) else scores["dice"]
        if score > progress.best or self.stage.name not in JUDGED_BY_SCORE:
            progress.best, progress.best_metrics = score, metrics
            known = {name: value for name, value in metrics.items() if math.isfinite(value)}
            spec = self.spec.model_copy(update={"metrics": known})
            place.checkpointed(save(place.run.network(self.stage.name), self.stage.network, spec))
        if place.config.previews:
            save_preview(place.run, self.stage, progress.epoch, place.val, self.spec, place.fabric)

    # -- state ----------------------------------------------------------------------------------------------------

    def _save_state(self) -> None:
        place = self.place
        state = {
            "fingerprint": place.fingerprint,
            "stage": self.stage.name,
            "progress": asdict(self.progress),
            "network": self.stage.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "stage_state": self.stage.state_dict(),
            "precision": place.fabric.strategy.precision.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "completed": place.completed,
            "position": place.position,
            "metrics_size": place.run.metrics_size(),
        }
        place.checkpointed(place.run.save_state(state))

    def _restore(self, state: dict[str, Any]) -> None:
        self.progress = Progress(**state["progress"])
        self.stage.network.load_state_dict(state["network"])
        self.stage.load_state_dict(state["stage_state"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.place.fabric.strategy.precision.load_state_dict(state["precision"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] and torch.cuda.device_count() == len(state["random_cuda"]):
            torch.cuda.set_rng_state_all(state["random_cuda"])


@torch.no_grad()
def evaluate(
    network: nn.Module,
    spec: NetworkSpec,
    dataset: TileDataset,
    fabric: Fabric,
    batch_size: int,
    control: Control,
) -> dict[str, float]:
    """Score a network on every tile of a split.

    Returns
    -------
    dict
        As :meth:`SegmentationScore.summary`, and ``loss``: cross entropy plus Dice, the mean over the batches' tiles.
    """
    score, loss, training = SegmentationScore(spec.classes), 0.0, network.training
    network.to(fabric.device).eval()
    for images, targets in all_batches(dataset, batch_size):
        control.check()
        target = targets.to(fabric.device)
        with fabric.autocast():
            logits = network(to_input(images, spec, fabric.device))
        loss += float(cross_entropy_dice(logits, target)) * len(images)
        score.add(logits.argmax(dim=1), target)
    network.train(training)
    return {"loss": loss / max(len(dataset), 1), **score.summary()}
