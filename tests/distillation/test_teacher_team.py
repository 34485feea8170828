from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from napari_kdseg.distillation.correction.teacher_team import TeacherTeam
from napari_kdseg.distillation.settings import PlcKdSettings
from napari_kdseg.errors import ConfigurationError, DataError

RULES = ("replace_if_right", "replace_if_wrong", "mean")


@pytest.fixture
def team_of(says):
    def make(teacher, false_pixel=None, boundary=None, feature=None, **settings):
        assistants = [None if logits is None else says(logits) for logits in (false_pixel, boundary)]
        return TeacherTeam(says(teacher, feature), *assistants, PlcKdSettings(**settings))

    return make


def naive_steps(teacher, false_pixel, boundary, target, rule):
    """P^I, P^F, P^B and the stage before the similarity correction, one pixel at a time in float64."""
    maps = [np.asarray(z.double().softmax(1)) for z in (teacher, false_pixel, boundary)]
    logits = [np.asarray(z) for z in (teacher, false_pixel, boundary)]
    steps = [maps[0].copy() for _ in range(3)]
    stage = np.zeros(target.shape, dtype=np.uint8)
    for n, i, j in itertools.product(*(range(size) for size in target.shape)):
        label = int(target[n, i, j])
        at = (n, slice(None), i, j)
        said = [int(z[at].argmax()) for z in logits]
        current = maps[0][at]
        is_wrong = label not in (255, said[0])
        for step in (1, 2):
            if rule == "mean":
                current = sum(p[at] for p in maps[: step + 1]) / (step + 1)
                now_wrong = label not in (255, int(current.argmax()))
            else:
                replaced = is_wrong and (rule == "replace_if_wrong" or said[step] == label)
                current = maps[step][at] if replaced else current
                now_wrong = is_wrong and not (replaced and said[step] == label)
            if is_wrong and not now_wrong:
                stage[n, i, j] = step
            is_wrong = now_wrong
            steps[step][at] = current
    return [torch.from_numpy(step) for step in steps], torch.from_numpy(stage)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(6))
def test_steps_equal_naive_loop(team_of, random_case, rule, seed):
    image, target, teacher, false_pixel, boundary, feature = random_case(seed)
    steps, stage = naive_steps(teacher, false_pixel, boundary, target, rule)
    result = team_of(teacher, false_pixel, boundary, feature, rule=rule).correct(image, target)
    for ours, naive in zip((result.initial, result.false_pixel, result.boundary), steps, strict=True):
        torch.testing.assert_close(ours.double(), naive, rtol=1e-5, atol=1e-6)
    by_assistants = (result.mended_by == 1) | (result.mended_by == 2)
    assert torch.equal(result.mended_by[by_assistants], stage[by_assistants])


def wrong(probabilities, target):
    return (target != 255) & (probabilities.argmax(1) != target)


@pytest.mark.parametrize("similarity", ["feature", "rgb", "prob"])
@pytest.mark.parametrize("rule", RULES)
def test_the_three_promises_over_many_seeds(team_of, random_case, rule, similarity):
    for seed in range(60):
        image, target, teacher, false_pixel, boundary, feature = random_case(seed)
        team = team_of(
            teacher, false_pixel, boundary, feature, rule=rule, similarity=similarity, bank_chunk=17
        )
        result = team.correct(image, target)
        labelled = target != 255
        maps = (result.initial, result.false_pixel, result.boundary, result.ultimate)
        # 1. all correct
        assert torch.equal(result.ultimate.argmax(1)[labelled], target[labelled])
        for p in maps:
            assert torch.isfinite(p).all()
            torch.testing.assert_close(p.sum(1), torch.ones(target.shape), rtol=1e-5, atol=1e-5)
        if rule != "mean":
            # 2. what the teacher had right is untouched, bit for bit, and so is what is not labelled
            untouched = ~wrong(result.initial, target)
            for p in maps[1:]:
                assert torch.equal(p.movedim(1, -1)[untouched], result.initial.movedim(1, -1)[untouched])
            assert (result.mended_by[untouched & labelled] == 0).all()
            # 3. no step makes more errors
            counts = result.counts().wrong
            assert list(counts) == sorted(counts, reverse=True)
        assert (result.mended_by == 255).equal(~labelled)
        assert not (result.mended_by == 5).any()


def test_counts_add_up(team_of, random_case):
    for seed in range(20):
        image, target, teacher, false_pixel, boundary, feature = random_case(seed)
        result = team_of(teacher, false_pixel, boundary, feature).correct(image, target)
        counts = result.counts()
        maps = (result.initial, result.false_pixel, result.boundary, result.ultimate)
        assert counts.labelled == int((target != 255).sum())
        assert counts.wrong == tuple(int(wrong(p, target).sum()) for p in maps)
        mended = {step: sum(by_class) for step, by_class in counts.mended.items()}
        assert mended["false_pixel_assistant"] == counts.wrong[0] - counts.wrong[1]
        assert mended["boundary_assistant"] == counts.wrong[1] - counts.wrong[2]
        assert mended["similarity"] + mended["fallback"] == counts.wrong[2] - counts.wrong[3]
        for c in range(teacher.shape[1]):
            teacher_wrong = int((wrong(result.initial, target) & (target == c)).sum())
            assert sum(by_class[c] for by_class in counts.mended.values()) == teacher_wrong


def test_false_pixel_assistant_wins_where_both_are_right(team_of):
    target = torch.ones(1, 1, 1, dtype=torch.long)
    says_zero, says_one, shouts_one = (
        torch.tensor(z).reshape(1, 2, 1, 1) for z in ([1.0, 0], [0, 1.0], [0, 9.0])
    )
    result = team_of(says_zero, says_one, shouts_one).correct(torch.zeros(1, 3, 1, 1), target)
    assert torch.equal(result.ultimate, says_one.softmax(1))
    assert result.mended_by.item() == 1


def test_without_similarity_the_rest_stays_wrong_and_is_marked(team_of, random_case):
    image, target, teacher, false_pixel, boundary, feature = random_case(3)
    result = team_of(teacher, false_pixel, boundary, feature, use_similarity=False).correct(image, target)
    assert torch.equal(result.ultimate, result.boundary)
    assert torch.equal(result.mended_by == 5, wrong(result.boundary, target))


@pytest.mark.parametrize("switch", ["use_false_pixel_assistant", "use_boundary_assistant"])
def test_switches_leave_an_assistant_out(team_of, random_case, switch):
    image, target, teacher, false_pixel, boundary, feature = random_case(4)
    off = team_of(teacher, false_pixel, boundary, feature, **{switch: False}).correct(image, target)
    given = {"false_pixel": false_pixel, "boundary": boundary}
    given.pop(switch.removeprefix("use_").removesuffix("_assistant"))
    absent = team_of(teacher, feature=feature, **given).correct(image, target)
    assert torch.equal(off.ultimate, absent.ultimate)
    assert torch.equal(off.mended_by, absent.mended_by)


def test_boundary_only_reaches_both_sides_of_a_contour(team_of):
    target = torch.zeros(1, 8, 20, dtype=torch.long)
    target[..., 10:] = 1
    target[..., :2] = 255
    teacher = torch.nn.functional.one_hot(1 - target.clamp(max=1), 2).movedim(-1, 1).float()  # all wrong
    result = team_of(teacher, boundary=-teacher, boundary_only=3).correct(torch.zeros(1, 3, 8, 20), target)
    assert torch.equal((result.mended_by == 2)[0, 0].nonzero().flatten(), torch.arange(7, 13))


def test_members_are_in_eval_and_get_no_gradient(tiny_net, lesions):
    image, target = lesions(0)
    nets = [tiny_net(seed) for seed in range(3)]
    team = TeacherTeam(*nets, PlcKdSettings())
    before = [{key: value.clone() for key, value in net.state_dict().items()} for net in nets]
    for net in nets:
        net.train()
    result = team.correct(image, target)
    assert not result.ultimate.requires_grad
    for net, old in zip(nets, before, strict=True):
        assert not net.training
        assert all(torch.equal(value, old[key]) for key, value in net.state_dict().items())
    alone = torch.cat([team.correct(image[n : n + 1], target[n : n + 1]).initial for n in range(len(image))])
    torch.testing.assert_close(alone, result.initial)  # eval mode: an image does not depend on its batch


def test_feature_is_taken_before_the_classifier(says, random_case):
    image, target, teacher, *_, feature = random_case(5)
    by_default = TeacherTeam(says(teacher, feature), None, None, PlcKdSettings())
    by_name = TeacherTeam(
        says(teacher, feature), None, None, PlcKdSettings(), feature_path="segmentation_head"
    )
    assert by_default.feature_path == "decoder"
    assert by_name.correct(image, target).initial.equal(by_default.correct(image, target).initial)
    with pytest.raises(ConfigurationError, match="no layer 'nowhere'"):
        TeacherTeam(says(teacher), None, None, PlcKdSettings(), feature_path="nowhere").correct(image, target)


def test_rgb_compares_colour_around_the_mean(says):
    """A dark pixel of the very same hue is nearer in raw direction, a bright one of nearly the same hue is meant."""
    dark, bright, asked = [5.0, 4, 4], [10, 8.5, 8], [10.0, 8, 8]
    image = torch.tensor([dark, bright, asked]).T.reshape(1, 3, 1, 3)
    target = torch.ones(1, 1, 3, dtype=torch.long)
    p1 = torch.tensor([0.6, 0.9, 0.2])
    logits = torch.stack([1 - p1, p1]).log().reshape(1, 2, 1, 3)
    result = TeacherTeam(says(logits), None, None, PlcKdSettings(similarity="rgb")).correct(image, target)
    torch.testing.assert_close(result.ultimate[0, 1, 0], torch.tensor([0.6, 0.9, 0.9]))


def test_state_keeps_the_running_means(team_of, random_case):
    image, target, teacher, *_, feature = random_case(2)
    first, second = (team_of(teacher, feature=feature) for _ in range(2))
    first.load_state_dict(second.state_dict())  # nothing seen yet
    first.correct(image, target)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.state_dict()["class_means"]["mean"], second.state_dict()["class_means"]["mean"])


def test_failures_in_plain_words(team_of):
    image, logits = torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 4, 4)
    with pytest.raises(DataError, match=r"label 7.*only 0 to 1"):
        team_of(logits).correct(image, torch.full((1, 4, 4), 7))
    with pytest.raises(DataError, match="same size"):
        team_of(logits).correct(image, torch.zeros(1, 4, 5, dtype=torch.long))
    with pytest.raises(ConfigurationError, match="architecture"):
        team_of(logits, torch.zeros(1, 3, 4, 4)).correct(image, torch.zeros(1, 4, 4, dtype=torch.long))
    with pytest.raises(ConfigurationError, match="feeds its classifier"):
        TeacherTeam(nn.Conv2d(3, 2, 1), None, None, PlcKdSettings())
    TeacherTeam(nn.Conv2d(3, 2, 1), None, None, PlcKdSettings(similarity="rgb"))  # needs no feature
