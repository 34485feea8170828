"""The whole distillation on small tiles: its run folder, exact resume, cancel, and failures in plain words."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from napari_kdseg.distillation import StudentStage
from napari_kdseg.jobs import (
    Cancelled,
    Checkpointed,
    Done,
    Failed,
    Message,
    RunningJob,
    Started,
    Step,
    Terminal,
    Validated,
    run_inline,
    run_job,
)
from napari_kdseg.networks import NetworkSpec, create_from, inspect, load, save
from napari_kdseg.training import (
    DataConfig,
    DistillConfig,
    NetworkChoice,
    OptimiserConfig,
    distill,
    read_history,
    resume_config,
)

SMALL = NetworkChoice(
    architecture="unet/tu-resnet18", options={"encoder_depth": 3, "decoder_channels": [16, 8, 8]}
)
ROLES = ("@stem", "@middle", "@feature")
STAGES = ("teacher", "false_pixel_assistant", "boundary_assistant", "student")


@pytest.fixture
def config(make_tiles, tmp_path):
    """18 tiles: 15 to train on in 3 batches of 5; every stage has two epochs."""
    return DistillConfig(
        data=DataConfig(folder=make_tiles(18), input_size=32),
        teacher=SMALL,
        student=NetworkChoice(architecture="enet"),
        settings={"assistant_epochs_factor": 1.0, "queue_length": 64},
        teacher_epochs=2,
        epochs=2,
        batch_size=5,
        optimiser=OptimiserConfig(learning_rate=3e-3),
        threads=torch.get_num_threads(),
        output=tmp_path / "run",
    )


def elsewhere(config: DistillConfig, name: str, **changes) -> DistillConfig:
    return config.model_copy(update={"output": config.output.with_name(name), **changes})


def cancel_at(config: DistillConfig, stage: str, steps: int) -> RunningJob:
    """Cancel the job from an observer after so many steps of a stage."""
    running = RunningJob()
    running.observe(
        lambda event: (
            running.control.cancel()
            if isinstance(event, Step) and (event.stage, event.done) == (stage, steps)
            else None
        )
    )
    run_job(distill, config, running.emit, running.control)
    assert isinstance(running.end, Cancelled), running.end
    assert isinstance(running.history[-2], Checkpointed)
    return running


def kill_at(config: DistillConfig, stage: str, steps: int) -> None:
    """End the job after so many steps of a stage without a last word or a last checkpoint."""

    def kill(event):
        if isinstance(event, Step) and (event.stage, event.done) == (stage, steps):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_inline(distill, config, kill)


def curve(folder: Path) -> list[tuple]:
    """Everything recorded but the speed, to the last digit."""
    lines = []
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        record["values"].pop("images_per_s", None)
        lines.append(record)
    return lines


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load(folder / "checkpoints" / f"{name}.safetensors").module.state_dict()


# -- the whole thing ---------------------------------------------------------------------------------


def test_the_whole_job(config):
    running = run_inline(distill, config.model_copy(update={"previews": True}))
    assert isinstance(running.end, Done), running.end
    result, history = running.end.result, running.history
    assert isinstance(history[0], Started)
    assert sum(isinstance(event, Terminal) for event in history) == 1
    assert tuple(dict.fromkeys(event.stage for event in history if isinstance(event, Step))) == STAGES
    for stage in STAGES:
        steps = [event for event in history if isinstance(event, Step) and event.stage == stage]
        assert [event.done for event in steps] == list(range(1, 7))
        assert {event.total for event in steps} == {6}
        assert {"loss", "lr", "images_per_s"} <= set(steps[-1].values)
        rates = [event.values["lr"] for event in steps]
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] > 0
        scored = [event for event in history if isinstance(event, Validated) and event.stage == stage]
        assert [event.epoch for event in scored] == [1, 2]
        assert {"train_loss", "val_loss", "val_dice", "val_iou"} <= set(scored[0].metrics)
        assert (config.output / "previews" / f"{stage}-002.png").is_file()
        last = config.output / "checkpoints" / f"{stage}-last.safetensors"
        assert last.is_file() == (stage in ("teacher", "student")), (
            "all others keep their last weights anyway"
        )
    assert {"segmentation", "kd"} <= set(steps[-1].values)
    assert set(result.metrics) == set(STAGES)
    assert result.metrics["student"]["val_dice"] == max(event.metrics["val_dice"] for event in scored)
    assert all(path.is_file() for path in result.checkpoints.values())
    assert {event.path for event in history if isinstance(event, Checkpointed)} >= set(
        result.checkpoints.values()
    )
    report = json.loads((config.output / "report" / "summary.json").read_text())
    assert report["networks"]["student"]["parameters"] == 349_212
    assert report["settings"]["kd_weight"] == 1.0
    spec = inspect(result.checkpoints["student"])
    assert (spec.architecture, spec.method, spec.input_size) == ("enet", "plc-kd", 32)
    assert spec.classes == ("background", "foreground")
    assert spec.metrics["val_dice"] == result.metrics["student"]["val_dice"]
    assert not (config.output / ".lock").exists()
    steps_only = [event for event in history if isinstance(event, Step)]
    assert [event for event in read_history(config.output) if isinstance(event, Step)] == steps_only


def test_the_teacher_is_in_no_checkpoint_of_the_student(config):
    cancel_at(config, "student", 2)
    state = torch.load(config.output / "checkpoints" / "state.pt", weights_only=True)
    enet = create_from(NetworkSpec(architecture="enet", classes=("a", "b")))
    assert set(state["network"]) == set(enet.state_dict())
    elements = sum(t.numel() for t in _tensors(state["stage_state"]))
    assert elements < 1000, "the stage's state holds no network"


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    for item in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    ):
        yield from _tensors(item)


# -- resume ------------------------------------------------------------------------------------------


def test_resume_gives_the_curve_of_a_run_never_stopped(config):
    whole = elsewhere(config, "whole")
    assert isinstance(run_inline(distill, whole).end, Done)
    # In the middle of an epoch of every stage, and after the last batch of one; killed in the first batch of another.
    stops = [
        (cancel_at, "teacher", 2),
        (kill_at, "false_pixel_assistant", 4),
        (cancel_at, "false_pixel_assistant", 5),
        (cancel_at, "boundary_assistant", 1),
        (kill_at, "boundary_assistant", 6),
        (cancel_at, "student", 3),
        (cancel_at, "student", 5),
    ]
    for stop, stage, steps in stops:
        stop(config, stage, steps)
        assert not (config.output / ".lock").exists()
        config = resume_config(config.output)
    running = run_inline(distill, config)
    assert isinstance(running.end, Done), running.end
    assert curve(config.output) == curve(whole.output)
    for stage in STAGES:
        ours, theirs = weights(config.output, stage), weights(whole.output, stage)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), stage


def as_written_before_revisions(folder: Path) -> None:
    """Turn a run that was told of old forms and layers into one begun when there were no others."""
    config = json.loads((folder / "config.json").read_text())
    config["student"]["options"], config["settings"]["student_layers"] = {}, ROLES
    (folder / "config.json").write_text(json.dumps(config))
    state = torch.load(folder / "checkpoints" / "state.pt", weights_only=True)
    assert state.pop("revision") == 2
    torch.save(state, folder / "checkpoints" / "state.pt")
    for path in (folder / "checkpoints").glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["kdseg"])
        del header["revision"]
        if path.name.startswith("student"):
            del header["options"]
        save_file(load_file(path), path, metadata={"kdseg": json.dumps(header)})


@pytest.mark.parametrize(
    ("student", "options", "layers"),
    [
        ("enet", {"upsampling_activation": True}, ("initial", "stage3", "stage5")),
        ("espnet", {}, ("join1", "join3", "fuse")),
    ],
)
def test_a_run_from_before_networks_were_corrected_goes_on_as_it_began(config, student, options, layers):
    """The same curve and weights as those of a run that was told of the old form, or of the old layers."""
    told = {
        "method": "at",
        "student": NetworkChoice(architecture=student, options=options),
        "settings": {"student_layers": layers, "teacher_layers": ROLES},
        "teacher_epochs": 1,
    }
    whole = elsewhere(config, "told", **told)
    assert isinstance(run_inline(distill, whole).end, Done)
    begun = elsewhere(config, "begun", **told)
    cancel_at(begun, "student", 4)
    as_written_before_revisions(begun.output)
    assert isinstance(run_inline(distill, resume_config(begun.output)).end, Done)
    assert curve(begun.output) == curve(whole.output)
    kept = inspect(begun.output / "checkpoints" / "student.safetensors")
    assert (kept.revision, kept.options) == (1, {})
    ours, theirs = weights(begun.output, "student"), weights(whole.output, "student")
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_line_cut_off_by_a_kill_is_written_again(config):
    config = config.model_copy(update={"method": "alone", "settings": {}})
    whole = elsewhere(config, "whole")
    run_inline(distill, whole)
    kill_at(config, "student", 5)
    with (config.output / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "stage": "student", "done": 6, "total": 6, "pos')
    assert isinstance(run_inline(distill, config).end, Done)
    assert curve(config.output) == curve(whole.output)


def test_a_run_killed_before_its_first_checkpoint_starts_again(config):
    config = config.model_copy(update={"method": "alone", "settings": {}})
    cancel_at(config, "student", 1)
    (config.output / "checkpoints" / "state.pt").unlink()
    assert isinstance(run_inline(distill, config).end, Done)
    assert [record["done"] for record in curve(config.output) if record["kind"] == "step"] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]


def test_a_finished_run_is_scored_again_and_not_trained(config):
    config = config.model_copy(update={"method": "alone", "settings": {}})
    first = run_inline(distill, config).end
    again = run_inline(distill, config)
    assert not any(isinstance(event, Step) for event in again.history)
    assert again.end.result.metrics == first.result.metrics


def test_a_resumed_run_needs_the_same_data_and_settings(config):
    config = config.model_copy(update={"method": "alone", "settings": {}})
    cancel_at(config, "student", 2)
    other = run_inline(distill, config.model_copy(update={"epochs": 7}))
    assert "other settings (epochs)" in other.end.message
    sorted((config.data.folder / "images").iterdir())[0].unlink()
    changed = run_inline(distill, config)
    assert "data changed" in changed.end.message
    assert len(curve(config.output)) == 2, "nothing was lost"


def test_cancelled_while_validating(config, monkeypatch):
    config = config.model_copy(update={"method": "alone", "settings": {}})
    whole = elsewhere(config, "whole")
    run_inline(distill, whole)
    from napari_kdseg.training.run import loop

    running = RunningJob()
    evaluate = loop.evaluate

    def cancel_and_evaluate(*arguments):
        running.control.cancel()
        return evaluate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", cancel_and_evaluate)
        assert isinstance(run_job(distill, config, running.emit, running.control), Cancelled)
    assert isinstance(run_inline(distill, config).end, Done)
    assert curve(config.output) == curve(whole.output)


# -- given networks ----------------------------------------------------------------------------------


@pytest.fixture
def teacher(tmp_path):
    spec = NetworkSpec(
        architecture="unet/tu-resnet18",
        classes=("background", "gland"),
        options=SMALL.options,
        mean=(0.7, 0.5, 0.6),
        std=(0.2, 0.2, 0.2),
        mpp=2.0,
    )
    torch.manual_seed(0)
    return save(tmp_path / "given.safetensors", create_from(spec), spec)


def test_a_given_teacher_is_scored_frozen_and_shared(config, teacher):
    config = config.model_copy(
        update={
            "teacher": NetworkChoice(checkpoint=teacher),
            "method": "kd",
            "settings": {},
            "data": config.data.model_copy(update={"mpp": 0.5}),
        }
    )
    running = run_inline(distill, config)
    assert isinstance(running.end, Done), running.end
    texts = [event.text for event in running.history if isinstance(event, Message)]
    assert any("teacher's Dice on the 3 validation tiles" in text for text in texts)
    assert any("trained at 2 µm per pixel, here it sees 0.5" in text for text in texts)
    assert {event.stage for event in running.history if isinstance(event, Step)} == {"student"}
    before, after = load(teacher).module.state_dict(), weights(config.output, "teacher")
    assert all(torch.equal(before[key], after[key]) for key in before)
    student = inspect(config.output / "checkpoints" / "student.safetensors")
    assert student.mean == (0.7, 0.5, 0.6)
    assert student.classes == ("background", "gland"), "names come from the teacher, where the data have none"
    assert student.mpp == 0.5


def test_a_run_goes_on_without_the_file_of_its_teacher(config, teacher):
    given = {"teacher": NetworkChoice(checkpoint=teacher), "method": "kd", "settings": {}}
    config = config.model_copy(update=given)
    cancel_at(config, "student", 2)
    teacher.unlink()
    assert isinstance(run_inline(distill, config).end, Done)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"classes": ("background", "a", "b")}, "has 3 classes (background, a, b), the data have 2"),
        ({"in_channels": 1}, "takes images of 1 channels, but these have 3"),
    ],
)
def test_a_teacher_that_does_not_fit(config, tmp_path, fields, words):
    spec = NetworkSpec(**{"architecture": "enet", "classes": ("background", "a"), **fields})
    path = save(tmp_path / "misfit.safetensors", create_from(spec), spec)
    data = config.data.model_copy(update={"classes": ("background", "gland")})
    end = run_inline(
        distill, config.model_copy(update={"teacher": NetworkChoice(checkpoint=path), "data": data})
    ).end
    assert isinstance(end, Failed)
    assert words in end.message


def test_a_student_may_start_from_a_checkpoint(config, tmp_path):
    spec = NetworkSpec(architecture="enet", classes=("background", "gland"))
    torch.manual_seed(5)
    path = save(tmp_path / "start.safetensors", create_from(spec), spec)
    config = config.model_copy(
        update={"student": NetworkChoice(checkpoint=path), "method": "alone", "settings": {}, "epochs": 1}
    )
    assert isinstance(run_inline(distill, config).end, Done)
    start, end = load(path).module.state_dict(), weights(config.output, "student")
    assert not all(torch.equal(start[key], end[key]) for key in start)


# -- failures ----------------------------------------------------------------------------------------


def test_what_does_not_fit_fails_before_anything_is_trained(config):
    data = config.data.model_copy(update={"input_size": 36})
    end = run_inline(distill, config.model_copy(update={"data": data})).end
    assert isinstance(end, Failed)
    assert "multiple of 32, not 36. Set the input size to 32" in end.message
    gpu = config.model_copy(update={"device": "cuda"})
    if not torch.cuda.is_available():
        assert "No GPU was found" in run_inline(distill, gpu).end.message
        assert (
            "16 bits need a GPU"
            in run_inline(distill, config.model_copy(update={"precision": "16"})).end.message
        )
    assert not config.output.exists()


def test_out_of_memory_keeps_the_last_checkpoint(config, monkeypatch):
    config = config.model_copy(update={"method": "alone", "settings": {}})
    honest, calls = StudentStage.loss, []

    def greedy(stage, image, target):
        calls.append(1)
        if len(calls) == 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return honest(stage, image, target)

    with monkeypatch.context() as patch:
        patch.setattr(StudentStage, "loss", greedy)
        end = run_inline(distill, config).end
    assert isinstance(end, Failed)
    assert "not enough memory" in end.message
    assert "smaller batch" in end.message
    assert "OutOfMemoryError" in end.details
    load(config.output / "checkpoints" / "student.safetensors")
    assert not (config.output / ".lock").exists()
    resumed = run_inline(distill, config)
    assert isinstance(resumed.end, Done)
    assert [record["done"] for record in curve(config.output) if record["kind"] == "step"] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_named(config, monkeypatch, value):
    config = config.model_copy(update={"method": "alone", "settings": {}})
    honest, calls = StudentStage.segmentation, []

    def broken(stage, logits, target):
        calls.append(1)
        return honest(stage, logits, target) * (value if len(calls) == 4 else 1.0)

    monkeypatch.setattr(StudentStage, "segmentation", broken)
    end = run_inline(distill, config).end
    assert isinstance(end, Failed)
    assert f"'segmentation' of the student is {value} in epoch 2" in end.message
    network = load(config.output / "checkpoints" / "student.safetensors").module
    assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())


def test_bad_data_does_not_occupy_the_run_folder(config):
    mask = sorted((config.data.folder / "masks").iterdir())[0]
    content = mask.read_bytes()
    mask.unlink()
    end = run_inline(distill, config).end
    assert "1 image has no mask" in end.message
    mask.write_bytes(content)
    mended = config.model_copy(update={"method": "alone", "settings": {}, "epochs": 1})
    assert isinstance(run_inline(distill, mended).end, Done)


def test_threads_are_given_back(config):
    before = torch.get_num_threads()
    seen = []
    running = RunningJob()
    running.observe(lambda event: seen.append(torch.get_num_threads()) if isinstance(event, Step) else None)
    alone = config.model_copy(update={"method": "alone", "settings": {}, "epochs": 1, "threads": before + 1})
    run_job(distill, alone, running.emit, running.control)
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before
