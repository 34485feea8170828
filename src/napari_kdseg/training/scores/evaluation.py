"""How good a network is on a split: scores of a segmentation, or the mean loss of a stage that does not segment."""

from __future__ import annotations

import copy
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from napari_kdseg.distillation import Stage, at_size, cross_entropy_dice
from napari_kdseg.jobs import Control
from napari_kdseg.networks import NetworkSpec, divided, to_input
from napari_kdseg.training.scores.metrics import SegmentationScore
from napari_kdseg.training.tiles.dataset import TileDataset, all_batches


@torch.no_grad()
def evaluate(
    network: nn.Module,
    spec: NetworkSpec,
    dataset: TileDataset,
    fabric: Fabric,
    batch_size: int,
    control: Control,
    full: bool = False,
    tiles: list[dict[str, float]] | None = None,
) -> dict[str, float]:
    """Score a network on every tile of a split.

    Parameters
    ----------
    network, spec
        The network, and what its images and classes are.
    dataset, batch_size
        The tiles.
    fabric
        Device and precision.
    control
        Looked at after every batch.
    full
        Score contours and calibration too: distances in micrometres where the scale of every tile is known, else in
        pixels of the input.
    tiles
        Filled with the scores of each tile, in the order of ``dataset.tiles``.

    Returns
    -------
    dict
        As :meth:`SegmentationScore.summary`, and ``loss``: cross entropy plus Dice, the mean over the batches' tiles.
    """
    scales = dataset.scales()
    unit: Any = None if not full else "px" if scales is None else "um"
    score, loss, seen, training = SegmentationScore(spec.classes, unit), 0.0, 0, network.training
    network.to(fabric.device).eval()
    for images, targets in all_batches(dataset, batch_size):
        control.check()
        target = targets.to(fabric.device)
        with fabric.autocast(), divided([network]):
            logits = at_size(network(to_input(images, spec, fabric.device)), target.shape[-2:])
        loss += float(cross_entropy_dice(logits, target)) * len(images)
        score.add(
            logits.argmax(dim=1),
            target,
            probabilities=logits.float().softmax(dim=1) if full else None,
            scales=None if scales is None else scales[seen : seen + len(images)],
        )
        seen += len(images)
    network.train(training)
    if tiles is not None:
        tiles += score.tiles()
    return {"loss": loss / max(len(dataset), 1), **score.summary()}


def mean_loss(
    stage: Stage,
    spec: NetworkSpec,
    dataset: TileDataset,
    fabric: Fabric,
    batch_size: int,
    control: Control,
) -> float:
    """Judge a stage that does not segment: the mean of its own loss over the tiles of a split.

    The stage comes out as it went in: its state and the random generators of torch are put back, also when the job is
    cancelled on the way, so that judging it changes nothing about its training.
    """
    before, training = copy.deepcopy(stage.state_dict()), stage.network.training
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    loss = 0.0
    stage.network.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            for images, targets in all_batches(dataset, batch_size):
                control.check()
                with fabric.autocast():
                    terms = stage.loss(to_input(images, spec, fabric.device), targets.to(fabric.device))
                loss += float(terms["loss"]) * len(images)
    finally:
        stage.network.train(training)
        stage.load_state_dict(before)
    return loss / max(len(dataset), 1)
