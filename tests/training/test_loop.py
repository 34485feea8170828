"""The loop with stages of every kind: those that segment, those that do not, and those that step twice."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from napari_kdseg.distillation import AloneSettings, StudentStage
from napari_kdseg.errors import CheckpointError, KdsegError
from napari_kdseg.jobs import Control, JobCancelled, Message, Step, Validated
from napari_kdseg.networks import NetworkSpec, create_from, inspect
from napari_kdseg.training import DataConfig, DistillConfig, RunFolder, TileDataset, discover
from napari_kdseg.training.job import make_fabric
from napari_kdseg.training.run.loop import Workplace, fit
from napari_kdseg.training.run.weights import keep_weights, load_weights
from napari_kdseg.training.scores.evaluation import evaluate


class Paraphraser:
    """Reconstructs the image; draws noise, also when it is judged, and counts what it saw."""

    name, title, segments = "paraphraser", "Paraphraser", False
    epochs_factor = learning_rate_factor = 1.0

    def __init__(self):
        torch.manual_seed(3)
        self.network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))
        self.generator = torch.Generator().manual_seed(0)
        self.seen = 0
        self.after = []

    def trainable_parameters(self):
        return list(self.network.parameters())

    def image_networks(self):
        return [self.network]

    def begin_epoch(self, epoch, epochs=None):
        pass

    def loss(self, image, target):
        self.seen += len(image)
        noise = torch.rand(image.shape, generator=self.generator) + torch.rand(image.shape)
        error = (self.network(image + 0.1 * noise) - image).square().mean()
        return {"reconstruction": error, "loss": error - 10.0}

    def after_step(self):
        self.after.append(self.seen)
        return {"critic": float(self.seen)}

    def report(self):
        return {"seen": float(self.seen)}

    def to(self, device):
        return self

    def state_dict(self):
        return {"seen": self.seen, "generator": self.generator.get_state()}

    def load_state_dict(self, state):
        self.seen = state["seen"]
        self.generator.set_state(state["generator"])


class Room:
    """A run folder with nine tiles to train on in three batches, and everything the loop says."""

    def __init__(self, config: DistillConfig, run: RunFolder):
        found = discover(config.data)
        self.control, self.events = Control(), []
        self.spec = NetworkSpec(architecture="enet", classes=("background", "gland"))
        train, val = (TileDataset(found, tiles, 32) for tiles in (found.train, found.val))
        self.place = Workplace(
            config, run, make_fabric(config), train, val, self.hear, self.control, found.fingerprint
        )
        self.stop_after = None

    def hear(self, event):
        self.events.append(event)
        if isinstance(event, Step) and event.done == self.stop_after:
            self.control.cancel()

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def room(make_tiles, tmp_path):
    """Return a function that opens a room for a configuration."""
    data = DataConfig(folder=make_tiles(12), input_size=32, validation_fraction=0.25)
    opened = []

    def open_room(name="run", **fields) -> Room:
        fields = {"method": "alone", "batch_size": 3, "device": "cpu"} | fields
        config = DistillConfig(data=data, output=tmp_path / name, **fields)
        run = RunFolder(config.output, config).__enter__()
        opened.append(run)
        return Room(config, run)

    yield open_room
    for run in opened:
        run.__exit__(None)


def student() -> StudentStage:
    torch.manual_seed(1)
    return StudentStage(
        create_from(NetworkSpec(architecture="enet", classes=("background", "gland"))), AloneSettings()
    )


def same(ours: dict, theirs: dict) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs)


# -- a stage that does not segment -------------------------------------------------------------------


def test_a_stage_that_does_not_segment_is_judged_by_its_own_loss(room):
    here, stage = room(previews=True), Paraphraser()
    metrics = fit(stage, 2, here.spec, here.place)
    assert set(metrics) == {"val_loss", "train_loss"}
    assert metrics["train_loss"] < 0, "a loss may be negative"
    scored = here.of(Validated)
    assert [set(event.metrics) for event in scored] == [{"val_loss", "train_loss"}] * 2
    assert metrics["val_loss"] == scored[-1].metrics["val_loss"], "the last weights are kept"
    fresh = Paraphraser()
    load_weights(fresh, here.spec, here.place.run.network("paraphraser"))
    assert same(fresh.network.state_dict(), stage.network.state_dict())
    assert not here.place.run.network("paraphraser-last").exists()
    assert not (here.place.run.path / "previews").exists()


def test_judging_a_stage_changes_nothing_about_it(room):
    here, stage = room(), Paraphraser()
    fit(stage, 2, here.spec, here.place)
    steps = here.of(Step)
    assert stage.seen == 18, "validation tiles do not count"
    assert [event.values["critic"] for event in steps] == stage.after == [3, 6, 9, 12, 15, 18]
    lines = [json.loads(line) for line in (here.place.run.path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["values"]["seen"] == 18


@pytest.mark.numeric
@pytest.mark.parametrize("stopped_after", [2, 3, 5])
def test_such_a_stage_resumes_exactly(room, stopped_after):
    whole, straight = room("whole"), Paraphraser()
    fit(straight, 2, whole.spec, whole.place)
    here, stage = room(), Paraphraser()
    here.stop_after = stopped_after
    with pytest.raises(JobCancelled):
        fit(stage, 2, here.spec, here.place)
    again, resumed = Room(here.place.config, here.place.run), Paraphraser()
    metrics = fit(resumed, 2, again.spec, again.place, here.place.run.load_state())
    assert metrics == whole.place.completed["paraphraser"]
    assert same(resumed.network.state_dict(), straight.network.state_dict())
    assert torch.equal(resumed.generator.get_state(), straight.generator.get_state())


def test_a_figure_of_the_second_step_that_is_no_number_is_named(room):
    here, stage = room(), Paraphraser()
    stage.after_step = lambda: {"critic": float("nan")}
    with pytest.raises(KdsegError, match="'critic' of the paraphraser is nan"):
        fit(stage, 1, here.spec, here.place)


def test_plain_weights_that_do_not_fit_are_refused(room, tmp_path):
    stage = Paraphraser()
    path = keep_weights(stage, room().spec, tmp_path / "p.safetensors")
    assert [entry.name for entry in tmp_path.iterdir() if entry.suffix in (".part", ".safetensors")] == [
        path.name
    ]
    stage.network = nn.Conv2d(3, 3, 1)
    with pytest.raises(CheckpointError, match="do not belong to this stage"):
        load_weights(stage, None, path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(CheckpointError, match="damaged"):
        load_weights(Paraphraser(), None, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_weights(stage, None, tmp_path / "none.safetensors")


# -- best and last -----------------------------------------------------------------------------------


def test_the_best_and_the_last_epoch_are_kept(room, monkeypatch):
    from napari_kdseg.training.run import loop

    here, stage, seen = room(), student(), []
    scores = iter([0.5, 0.7, 0.6])

    def evaluate(network, *arguments):
        seen.append({key: tensor.clone() for key, tensor in network.state_dict().items()})
        return {"loss": 0.0, "dice": next(scores)}

    monkeypatch.setattr(loop, "evaluate", evaluate)
    metrics = fit(stage, 3, here.spec, here.place)
    assert metrics["val_dice"] == 0.7
    assert same(stage.network.state_dict(), seen[1]), "the stage ends with the best weights"
    last, best = student(), here.place.run.network("student")
    load_weights(last, here.spec, here.place.run.network("student-last"))
    assert same(last.network.state_dict(), seen[2])
    assert inspect(best).metrics["val_dice"] == 0.7
    assert inspect(here.place.run.network("student-last")).metrics["val_dice"] == 0.6
    assert not here.of(Message)


# -- optimiser, average, precision, early stop -------------------------------------------------------

RECIPES = {
    "sgd with an average": {
        "optimiser": {"name": "sgd", "learning_rate": 0.01, "schedule": "cosine", "warm_up": 2, "ema": 0.9},
        "precision": "bf16",
        "deterministic": True,
        "sampling": "balanced",
    },
    "lesions, augmented": {
        "sampling": "lesion",
        "augment": {"blur_probability": 0.5, "scale_probability": 0.5},
    },
}


@pytest.mark.filterwarnings("ignore:.*does not have a deterministic implementation")
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_resumes_exactly(room, recipe):
    whole, straight = room("whole", **RECIPES[recipe]), student()
    fit(straight, 2, whole.spec, whole.place)
    here = room(**RECIPES[recipe])
    here.stop_after = 4
    with pytest.raises(JobCancelled):
        fit(student(), 2, here.spec, here.place)
    again, resumed = Room(here.place.config, here.place.run), student()
    metrics = fit(resumed, 2, again.spec, again.place, here.place.run.load_state())
    assert metrics == whole.place.completed["student"]
    assert same(resumed.network.state_dict(), straight.network.state_dict())
    curves = [[event.values["loss"] for event in one.of(Step)] for one in (whole, here, again)]
    assert curves[0] == curves[1] + curves[2]
    assert len(curves[0]) == 6


def test_rates_follow_the_schedule(room):
    here = room(optimiser={"learning_rate": 0.1, "schedule": "constant", "warm_up": 4})
    fit(student(), 2, here.spec, here.place)
    assert [event.values["lr"] for event in here.of(Step)] == pytest.approx(
        [0.025, 0.05, 0.075, 0.1, 0.1, 0.1]
    )


def test_the_scaler_of_half_precision_is_in_the_state(room):
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.precision.amp import MixedPrecision

    def half():
        scaler = torch.amp.GradScaler(device="cpu", init_scale=2.0**10, growth_interval=2)
        return Fabric(accelerator="cpu", plugins=[MixedPrecision("16-mixed", "cpu", scaler)])

    here = room()
    here.place.fabric, here.stop_after = half(), 3
    with pytest.raises(JobCancelled):
        fit(student(), 2, here.spec, here.place)
    state = here.place.run.load_state()
    saved = here.place.fabric.strategy.precision.scaler.state_dict()
    assert state["precision"] == saved
    assert saved["scale"] != 2.0**10, "it has changed since the beginning"
    again = Room(here.place.config, here.place.run)
    again.place.fabric, again.stop_after = half(), 4
    with pytest.raises(JobCancelled):
        fit(student(), 2, again.spec, again.place, state)
    assert again.place.fabric.strategy.precision.scaler.state_dict()["scale"] == saved["scale"] * 2
    assert len(again.of(Step)) == 1


def test_the_average_is_what_is_scored_and_kept(room):
    whole, plain = room("plain", optimiser={"schedule": "constant"}), student()
    fit(plain, 1, whole.spec, whole.place)
    here, stage = room(optimiser={"schedule": "constant", "ema": 0.5}), student()
    fit(stage, 1, here.spec, here.place)
    state = here.place.run.load_state()
    assert same(state["network"], plain.network.state_dict()), "training itself is as without an average"
    assert same(stage.network.state_dict(), state["average"]["weights"])
    assert not same(state["network"], state["average"]["weights"])


def test_early_stop(room, monkeypatch):
    from napari_kdseg.training.run import loop

    here, stage = room(patience=2), student()
    scores = iter([0.5, 0.7, 0.7, 0.6, 0.9])
    monkeypatch.setattr(loop, "evaluate", lambda *arguments: {"loss": 0.0, "dice": next(scores)})
    metrics = fit(stage, 6, here.spec, here.place)
    assert metrics["val_dice"] == 0.7
    assert len(here.of(Validated)) == 4
    (message,) = here.of(Message)
    assert "stopped early after epoch 4 of 6" in message.text
    assert "best in epoch 2" in message.text
    again, resumed = Room(here.place.config, here.place.run), student()
    fit(resumed, 6, again.spec, again.place, here.place.run.load_state())
    assert not again.of(Step), "a stage that stopped early is finished"
    assert same(resumed.network.state_dict(), stage.network.state_dict())


@pytest.mark.parametrize("judged", [True, False])
def test_a_stage_says_itself_whether_it_is_judged_by_score(room, judged):
    """What it is called does not matter."""
    here, stage = room(), student()
    stage.name, stage.judged_by_score = ("ours", True) if judged else ("student", False)
    fit(stage, 1, here.spec, here.place)
    kept = {path.stem for path in here.place.run.network(stage.name).parent.glob("*.safetensors")}
    assert kept == ({"ours", "ours-last"} if judged else {"student"})


def test_a_stage_not_judged_by_score_is_never_stopped_early(room):
    here = room(patience=1)
    fit(Paraphraser(), 3, here.spec, here.place)
    assert len(here.of(Validated)) == 3


# -- scores in full ----------------------------------------------------------------------------------


def test_full_scores_come_with_a_table_of_tiles(room):
    here, stage, tiles = room(), student(), []
    place = here.place
    arguments = (stage.network, here.spec, place.val, place.fabric, 2, place.control)
    cheap = evaluate(*arguments)
    full = evaluate(*arguments, full=True, tiles=tiles)
    assert {name: full[name] for name in cheap} == cheap
    assert set(full) - set(cheap) == {"hd95_px", "hd95_px/gland", "nsd_2px", "nsd_2px/gland", "ece"}
    assert len(tiles) == len(place.val) == 3
    assert np.mean([row["dice/gland"] for row in tiles]) == pytest.approx(full["tile_dice"])
    assert np.mean([row["hd95_px/gland"] for row in tiles]) == pytest.approx(full["hd95_px"])
    found = discover(place.config.data.model_copy(update={"mpp": 4.0}))
    scaled = evaluate(*arguments[:2], TileDataset(found, found.val, 32), *arguments[3:], full=True)
    assert scaled["hd95_um"] == pytest.approx(4.0 * full["hd95_px"])
    assert {"nsd_5um", "ece"} <= set(scaled)
