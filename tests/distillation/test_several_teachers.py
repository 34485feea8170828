"""Several teachers, one term each: ``kd+cwd@2`` learns from the output of one and the channels of another."""

from __future__ import annotations

import pytest
import torch

from napari_kdseg.distillation import View, get_method, kd
from napari_kdseg.distillation.losses.cwd import cwd
from napari_kdseg.errors import ConfigurationError


@pytest.fixture
def batch(lesions):
    return lesions(4, count=2, size=16)


def test_each_term_reads_its_own_teacher(tiny_net, batch):
    first, second, student = (tiny_net(seed).eval() for seed in (1, 2, 3))
    method = get_method("kd+cwd@2")
    settings = method.settings()
    (stage,) = method.stages([first, second], student, settings, input_shape=(3, 16, 16))
    stage.network.eval()
    values = stage.loss(*batch)
    with torch.no_grad():
        image, target = batch
        expected = kd(student(image), first(image), target, temperature=settings.kd_temperature)
        torch.testing.assert_close(values["kd"], expected)
        expected = cwd(student(image), second(image), target, temperature=settings.cwd_temperature)
        torch.testing.assert_close(values["cwd"], expected)


def test_each_teacher_is_shown_its_own_view(tiny_net, batch):
    first, second = tiny_net(1), tiny_net(2)
    sizes = {}
    for name, network in (("first", first), ("second", second)):
        network.register_forward_hook(
            lambda _, inputs, __, name=name: sizes.update({name: inputs[0].shape[-1]})
        )
    method = get_method("kd+kd@2")
    views = [View(), View(factor=0.5)]
    (stage,) = method.stages([first, second], tiny_net(3), input_shape=(3, 16, 16), views=views)
    values = stage.loss(*batch)
    assert sizes == {"first": 16, "second": 8}
    assert {"kd", "kd_2"} <= set(values)


def test_two_teams_each_with_their_assistants(tiny_net, batch):
    method = get_method("plc-kd+plc-kd@2")
    settings = method.settings({"plc_kd_queue_length": 64, "plc_kd_2_queue_length": 64})
    first, second = tiny_net(1), tiny_net(2)
    stages = method.stages([first, second], tiny_net(3), settings, input_shape=(3, 16, 16))
    names = [stage.name for stage in stages]
    assert names == [
        "false_pixel_assistant",
        "boundary_assistant",
        "false_pixel_assistant_2",
        "boundary_assistant_2",
        "student",
    ]
    assert [stage.input_of for stage in stages] == [0, 0, 1, 1, None]
    assert stages[2].teacher is second
    student = stages[-1]
    assert [reader.team.teacher for reader in student.readers] == [first, second]
    assert student.readers[1].team.false_pixel_assistant is stages[2].network
    student.loss(*batch)
    assert {"wrong/teacher", "teacher_2/wrong/teacher"} <= set(student.report())
    again = method.stages([first, second], tiny_net(3), settings, input_shape=(3, 16, 16))[-1]
    again.load_state_dict(student.state_dict())
    kept = [reader.team.state_dict()["class_means"]["mean"] for reader in student.readers]
    assert not torch.equal(*kept)
    taken = [reader.team.state_dict()["class_means"]["mean"] for reader in again.readers]
    assert all(map(torch.equal, kept, taken))


def test_a_team_and_a_plain_term_run_their_teacher_once(tiny_net, batch):
    teacher, runs = tiny_net(1), []
    (stage,) = get_method("plc-kd:sc+cwd").stages(teacher, tiny_net(2), input_shape=(3, 16, 16))
    teacher.register_forward_hook(lambda *_: runs.append(1))
    stage.loss(*batch)
    assert len(runs) == 1


@pytest.mark.parametrize(
    ("name", "teachers"),
    [("kd", 1), ("kd@1", 1), ("kd@3", 3), ("plc-kd:f+b@2", 2), ("cwd+plc-kd:f+sc@2+kd", 2), ("alone", 0)],
)
def test_how_many_teachers_a_name_asks_for(name, teachers):
    assert get_method(name).teachers == teachers
    assert get_method(name).name == name


def test_what_cannot_be_is_said(tiny_net):
    for name in ("kd@", "kd@0", "kd@x", "kd@-1"):
        with pytest.raises(ConfigurationError, match="does not name a teacher"):
            get_method(name)
    with pytest.raises(ConfigurationError, match="learns from 2 teachers, but there is one"):
        get_method("kd+kd@2").stages(tiny_net(1), tiny_net(2))
