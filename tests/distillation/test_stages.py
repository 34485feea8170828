from __future__ import annotations

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from napari_kdseg.distillation import LOGITS, SOFT_LABELS, PlcKdSettings, Term
from napari_kdseg.distillation.auxiliary.assistants import (
    BoundaryAssistantStage,
    FalsePixelAssistantStage,
    new_assistant,
)
from napari_kdseg.distillation.correction.teacher_team import TeacherTeam
from napari_kdseg.distillation.losses.knowledge_distillation import kd, soft_label_kl
from napari_kdseg.distillation.losses.segmentation import cross_entropy_dice
from napari_kdseg.distillation.settings import AloneSettings
from napari_kdseg.distillation.stages import StudentStage, freeze
from napari_kdseg.errors import ConfigurationError


def through_a_file(state):
    """Save and load as a checkpoint would: only tensors and plain values survive."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def snapshot(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def feature_error(student, teacher, target, *, ignore_index=255):
    """FitNet's hint loss: mean squared difference of two features."""
    return F.mse_loss(student, teacher)


def projection(student_shapes, teacher_shapes):
    return nn.Conv2d(student_shapes[0][1], teacher_shapes[0][1], 1, bias=False)


# The student


def test_student_loss_is_the_weighted_sum(tiny_net, lesions):
    image, target = lesions(0)
    teacher, student = freeze(tiny_net(1)), tiny_net(2).eval()
    settings = AloneSettings(cross_entropy_weight=0.5, dice_weight=2.0)
    terms = [
        Term("kd", kd, weight=3.0),
        Term("late", kd, weight=5.0, schedule=lambda epoch: min(epoch / 4, 1.0)),
    ]
    stage = StudentStage(student, settings, terms, teachers=[teacher])
    for epoch, factor in ((0, 0.0), (2, 0.5), (9, 1.0)):
        stage.begin_epoch(epoch)
        values = stage.loss(image, target)
        segmentation = cross_entropy_dice(student(image), target, cross_entropy_weight=0.5, dice_weight=2.0)
        divergence = kd(student(image), teacher(image), target)
        torch.testing.assert_close(values["segmentation"], segmentation)
        torch.testing.assert_close(values["kd"], divergence)
        torch.testing.assert_close(values["loss"], segmentation + (3.0 + 5.0 * factor) * divergence)


def test_gradient_reaches_the_student_only_and_the_teacher_stays_frozen(tiny_net, lesions):
    image, target = lesions(0)
    teacher, student = freeze(tiny_net(1)), tiny_net(2)
    assistants = [tiny_net(3), tiny_net(4)]
    team = TeacherTeam(teacher, *assistants, PlcKdSettings())
    term = Term("kd", soft_label_kl, teacher_taps=(SOFT_LABELS,), team=team)
    stage = StudentStage(student, PlcKdSettings(), [term], teachers=[teacher])
    stage.network.train()
    teacher.train()  # whatever others do to it
    before = snapshot(teacher)
    stage.loss(image, target)["loss"].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in student.parameters())
    assert all(
        parameter.grad is None for network in (teacher, *assistants) for parameter in network.parameters()
    )
    assert not teacher.training
    assert same(before, snapshot(teacher))
    assert set(stage.trainable_parameters()) == set(student.parameters())
    assert not any("teacher" in key for key in stage.state_dict())


def test_soft_labels_are_the_corrected_ones(tiny_net, lesions):
    image, target = lesions(0)
    teacher, student = freeze(tiny_net(1)), tiny_net(2).eval()
    team = TeacherTeam(teacher, None, None, PlcKdSettings())
    term = Term("kd", soft_label_kl, teacher_taps=(SOFT_LABELS,), team=team)
    stage = StudentStage(student, PlcKdSettings(), [term], teachers=[teacher])
    corrected = TeacherTeam(teacher, None, None, PlcKdSettings()).correct(image, target)
    value = stage.loss(image, target)["kd"]
    torch.testing.assert_close(value, soft_label_kl(student(image), corrected.ultimate, target))
    counts, report = corrected.counts(), stage.report()
    assert report["labelled"] == target.numel()
    assert report["wrong/teacher"] == counts.wrong[0] > 0
    assert report["wrong/corrected"] == 0
    assert report["mended/similarity"] + report["mended/fallback"] == counts.wrong[0]
    stage.loss(image, target)
    assert stage.report()["labelled"] == 2 * target.numel()
    stage.begin_epoch(1)
    assert stage.report() == {}


def test_feature_taps_and_connector(tiny_net, lesions):
    image, target = lesions(0)
    teacher, student = freeze(tiny_net(1, width=12)), tiny_net(2, width=8)
    term = Term("fitnet", feature_error, ("decoder",), ("encoder",), weight=10.0, connector=projection)
    stage = StudentStage(student, AloneSettings(), [term], teachers=[teacher], input_shape=(3, 24, 24))
    assert student.training
    connector = stage.connectors["fitnet"]
    assert tuple(connector.weight.shape) == (12, 8, 1, 1)
    assert len(stage.trainable_parameters()) == len(list(student.parameters())) + 1

    values = stage.loss(image, target)
    values["loss"].backward()
    assert connector.weight.grad.any()
    student.eval()
    by_hand = F.mse_loss(connector(student.decoder(student.encoder(image))), teacher.encoder(image))
    torch.testing.assert_close(stage.loss(image, target)["fitnet"], by_hand)

    optimiser = torch.optim.Adam(stage.trainable_parameters(), lr=0.01)
    student.train()
    for _ in range(30):
        optimiser.zero_grad()
        stage.loss(image, target)["loss"].backward()
        optimiser.step()
    assert stage.loss(image, target)["fitnet"] < 0.7 * values["fitnet"]

    other = StudentStage(tiny_net(2), AloneSettings(), [term], teachers=[teacher])
    other.load_state_dict(through_a_file(stage.state_dict()))
    assert torch.equal(other.connectors["fitnet"].weight, connector.weight)


def test_one_pass_serves_soft_labels_logits_and_features(tiny_net, lesions):
    image, target = lesions(0)
    teacher, student = freeze(tiny_net(1)), tiny_net(2)
    team = TeacherTeam(teacher, None, None, PlcKdSettings())
    seen = {}

    def look(student, teacher, target, *, ignore_index):
        seen["student"], seen["teacher"] = student, teacher
        return student[0].mean()

    term = Term("look", look, (LOGITS, "decoder"), (SOFT_LABELS, LOGITS, "encoder"), team=team)
    passes = []
    teacher.register_forward_hook(lambda *_: passes.append(1))
    stage = StudentStage(student, PlcKdSettings(), [term], teachers=[teacher])
    passes.clear()
    stage.loss(image, target)
    assert len(passes) == 1
    assert [tuple(tensor.shape[:2]) for tensor in seen["student"]] == [(4, 2), (4, 8)]
    assert torch.equal(seen["teacher"][1], teacher(image))
    assert torch.equal(seen["teacher"][2], teacher.encoder(image))


def test_student_stage_fails_early(tiny_net):
    term = Term("kd", kd)
    with pytest.raises(ConfigurationError, match="there is none"):
        StudentStage(tiny_net(), AloneSettings(), [term])
    soft = Term("kd", soft_label_kl, teacher_taps=(SOFT_LABELS,))
    with pytest.raises(ConfigurationError, match="no teacher team"):
        StudentStage(tiny_net(), AloneSettings(), [soft], teachers=[tiny_net()])
    wrong = Term("fitnet", feature_error, ("encodr",), ("encoder",), connector=projection)
    with pytest.raises(ConfigurationError, match="no layer 'encodr'"):
        StudentStage(tiny_net(), AloneSettings(), [wrong], teachers=[tiny_net()])


# The assistants


@pytest.mark.parametrize("initialise", ["teacher", "scratch"])
def test_new_assistant_is_a_copy_of_its_own(tiny_net, initialise):
    teacher = freeze(tiny_net(1))
    random_state = torch.get_rng_state()
    assistant, again, other = (
        new_assistant(teacher, PlcKdSettings(initialise=initialise), seed) for seed in (0, 0, 1)
    )
    assert torch.equal(random_state, torch.get_rng_state())
    assert assistant.training
    assert all(parameter.requires_grad for parameter in assistant.parameters())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert same(snapshot(assistant), snapshot(again))
    assert same(snapshot(assistant), snapshot(teacher)) == (initialise == "teacher")
    assert same(snapshot(assistant), snapshot(other)) == (initialise == "teacher")
    with torch.no_grad():
        next(assistant.parameters()).add_(1)
    assert same(snapshot(teacher), snapshot(tiny_net(1)))


def test_scratch_needs_layers_that_can_start_anew(tiny_net):
    teacher = tiny_net()
    teacher.decoder.gain = nn.Parameter(torch.ones(3))
    with pytest.raises(ConfigurationError, match=r"'decoder'.*'gain'.*start from the teacher"):
        new_assistant(teacher, PlcKdSettings(initialise="scratch"), 0)


def false_pixel_stage(tiny_net, **settings):
    teacher = freeze(tiny_net(1))
    options = {"queue_length": 200, "pixels_per_image": 20, "warm_up_epochs": 3, **settings}
    constants = PlcKdSettings(**options)
    return FalsePixelAssistantStage(teacher, new_assistant(teacher, constants, 0), constants, seed=5)


def test_first_only_the_queues_are_filled(tiny_net, lesions):
    stage = false_pixel_stage(tiny_net)
    before = snapshot(stage.network)
    stage.begin_epoch(0)
    batches = 0
    while stage.warming_up:
        values = stage.loss(*lesions(batches))
        batches += 1
        if stage.warming_up:
            assert values["loss"].item() == 0
            assert set(values) == {"loss"}
            values["loss"].backward()
            assert not any(parameter.grad.any() for parameter in stage.network.parameters())
            assert same(before, snapshot(stage.network))
    assert batches == 3  # 4 images a batch, 20 of each class: 80, 160, 200
    assert stage.queues.full
    assert {"synthetic", "real", "loss"} == set(values)
    torch.testing.assert_close(values["loss"], (values["synthetic"] + values["real"]) / 2)
    assert stage.report()["queue/0"] == stage.report()["queue/1"] == 1.0


@pytest.mark.parametrize(("told", "first_epoch"), [(None, 3), (2, 1), (1, 0), (100, 3)])
def test_warm_up_is_capped(tiny_net, lesions, told, first_epoch):
    stage = false_pixel_stage(tiny_net, queue_length=10**6)
    for epoch in range(first_epoch + 1):
        stage.begin_epoch(epoch, told)
        values = stage.loss(*lesions(epoch))
        assert stage.warming_up == (epoch < first_epoch)
    assert values["loss"] > 0
    stage.begin_epoch(0)
    assert not stage.warming_up  # once warm, always warm


@pytest.mark.parametrize("real_fraction", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 4])
def test_share_of_real_images(tiny_net, lesions, real_fraction, count):
    stage = false_pixel_stage(tiny_net, real_fraction=real_fraction, warm_up_epochs=0)
    total = 40
    for seed in range(total):
        values = stage.loss(*lesions(seed, count=count))
        assert values["loss"].requires_grad
    report = stage.report()
    assert report["images/real"] + report["images/synthetic"] == total * count
    tolerance = 0 if (real_fraction * count).is_integer() else 0.2
    assert abs(report["images/real"] / (total * count) - real_fraction) <= tolerance + 1e-9


def test_running_statistics_come_from_real_images(tiny_net, lesions):
    mixed, literal = (
        false_pixel_stage(tiny_net, warm_up_epochs=0),
        false_pixel_stage(tiny_net, warm_up_epochs=0, real_fraction=0.0),
    )
    image, target = lesions(0)
    alone = copy.deepcopy(mixed.network)
    alone(image[:2])
    mixed.loss(image, target)
    torch.testing.assert_close(mixed.network.encoder[1].running_mean, alone.encoder[1].running_mean)
    assert mixed.network.encoder[1].momentum == 0.1
    before = snapshot(literal.network)
    literal.loss(image, target)
    assert not torch.equal(before["encoder.1.running_mean"], literal.network.encoder[1].running_mean)


def test_masks_come_from_the_sampler_and_must_hold_two_classes(tiny_net, lesions):
    asked = []

    def sample_masks(count, generator):
        asked.append(count)
        masks = torch.zeros(count, 12, 12, dtype=torch.uint8)
        masks[0, 3:7, 2:5] = 1  # only the first of them is usable
        return masks

    teacher = freeze(tiny_net(1))
    constants = PlcKdSettings(warm_up_epochs=0, real_fraction=0.0)
    stage = FalsePixelAssistantStage(
        teacher, new_assistant(teacher, constants, 0), constants, sample_masks=sample_masks
    )
    drawn = stage.masks.draw(4, torch.Size((24, 24)), torch.Generator())
    assert asked == [4, 3, 2, 1]
    assert drawn.shape == (4, 24, 24)
    expected = torch.zeros(24, 24, dtype=torch.long)
    expected[6:14, 4:10] = 1
    assert all(torch.equal(mask, expected) for mask in drawn)
    image, target = lesions(0)
    assert (
        stage.loss(image, torch.full_like(target, 255))["loss"].item() == 0
    )  # a shape, but no false pixel to fill it
    assert stage.loss(image, target)["loss"] > 0


def test_batches_without_a_lesion_do_not_stop_the_assistant(tiny_net, lesions):
    stage = false_pixel_stage(tiny_net, warm_up_epochs=0)
    image, _ = lesions(0)
    background = torch.zeros(4, 24, 24, dtype=torch.long)
    values = stage.loss(image, background)  # no shape was ever seen: the whole batch is real
    assert set(values) == {"real", "loss"}
    stage.loss(*lesions(1))
    assert "synthetic" in stage.loss(image, background)  # a shape of an earlier batch
    nothing = false_pixel_stage(tiny_net, warm_up_epochs=0, real_fraction=0.0)
    assert nothing.loss(image, background)["loss"].item() == 0
    assert torch.isfinite(stage.loss(image, torch.full_like(background, 255))["loss"])


def test_empty_queue_is_seeded_with_a_warning(says, tiny_net, lesions, caplog):
    image, target = lesions(0)
    never_wrong = says(F.one_hot(target, 2).movedim(-1, 1).float() + 0.01 * torch.randn(4, 2, 24, 24))
    constants = PlcKdSettings(warm_up_epochs=0, pixels_per_image=7)
    stage = FalsePixelAssistantStage(never_wrong, tiny_net(2), constants)
    stage.loss(image, target)
    assert stage.queues.sizes[0] == 28
    assert "made no mistake in class 0" in caplog.text
    assert "made no mistake in class 1" in caplog.text
    caplog.clear()
    stage.loss(image, target)
    assert not caplog.text
    assert stage.queues.sizes[0] == 28


def test_boundary_stage_trains_on_the_transform(tiny_net, lesions):
    constants = PlcKdSettings(boundary_width=2)
    image, target = lesions(0)
    stage = BoundaryAssistantStage(tiny_net(1), constants, seed=1)
    seen = []
    stage.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    stage.loss(image, target)["loss"].backward()
    for n in range(4):
        assert not torch.equal(seen[0][n], image[n])
        assert torch.equal(seen[0][n][:, target[n] == 0], image[n][:, target[n] == 0])
    assert stage.report() == {"images/transformed": 4.0, "images/unchanged": 0.0}
    half = BoundaryAssistantStage(tiny_net(1), PlcKdSettings(boundary_real_fraction=0.5), seed=1)
    half.loss(image, target)
    assert half.report()["images/unchanged"] == 2.0


# Resuming


def stages_for_resume(tiny_net):
    teacher = freeze(tiny_net(1))
    constants = PlcKdSettings(
        queue_length=150, pixels_per_image=20, warm_up_epochs=2, boundary_real_fraction=0.3
    )
    team = TeacherTeam(teacher, tiny_net(6), tiny_net(7), constants)
    term = Term("kd", soft_label_kl, teacher_taps=(SOFT_LABELS,), team=team)
    return {
        "false_pixel": FalsePixelAssistantStage(
            teacher, new_assistant(teacher, constants, 0), constants, seed=3
        ),
        "boundary": BoundaryAssistantStage(new_assistant(teacher, constants, 1), constants, seed=3),
        "student": StudentStage(tiny_net(2), constants, [term], teachers=[teacher]),
    }


@pytest.mark.parametrize("which", ["false_pixel", "boundary", "student"])
@pytest.mark.parametrize("stop", [1, 5])
def test_resumed_run_is_bit_identical(tiny_net, lesions, which, stop):
    def steps(stage, optimiser, first, last):
        losses = []
        for step in range(first, last):
            if step % 4 == 0:
                stage.begin_epoch(step // 4, 3)
            optimiser.zero_grad()
            values = stage.loss(*lesions(step))
            values["loss"].backward()
            optimiser.step()
            losses.append(values["loss"].item())
        return losses

    straight = stages_for_resume(tiny_net)[which]
    optimiser = torch.optim.SGD(straight.trainable_parameters(), lr=0.05, momentum=0.9)
    losses = steps(straight, optimiser, 0, stop)
    saved = through_a_file([straight.network.state_dict(), straight.state_dict(), optimiser.state_dict()])
    losses += steps(straight, optimiser, stop, 10)

    torch.manual_seed(12345)  # the global generator plays no part
    resumed = stages_for_resume(tiny_net)[which]
    optimiser = torch.optim.SGD(resumed.trainable_parameters(), lr=0.05, momentum=0.9)
    resumed.network.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    optimiser.load_state_dict(saved[2])
    assert losses[stop:] == steps(resumed, optimiser, stop, 10)
    assert same(snapshot(straight.network), snapshot(resumed.network))
    assert straight.report() == resumed.report()


@pytest.mark.parametrize("stop", [3, 4])
def test_state_loaded_after_the_epoch_began(tiny_net, lesions, stop):
    """As a loop resumes: in the middle of epoch 0, or at the start of epoch 1, when the sums of epoch 0 are past."""
    straight, resumed = (stages_for_resume(tiny_net)["student"] for _ in range(2))
    state = None
    for step in range(6):
        if step % 4 == 0:
            straight.begin_epoch(step // 4)
        if step == stop:
            resumed.begin_epoch(step // 4)
            resumed.load_state_dict(state)
        elif step > stop and step % 4 == 0:
            resumed.begin_epoch(step // 4)
        straight.loss(*lesions(step))
        state = through_a_file(straight.state_dict())
        if step >= stop:
            resumed.loss(*lesions(step))
            assert resumed.report() == straight.report()
            assert resumed.epoch == straight.epoch
