from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

from napari_kdseg.distillation.auxiliary.critic import (
    AdversarialDistillation,
    Critic,
    CriticStage,
    SelfAttention,
    critic_values,
    new_critic,
)
from napari_kdseg.distillation.losses.adversarial import critic_loss, gradient_penalty, student_loss
from napari_kdseg.distillation.settings import AloneSettings
from napari_kdseg.errors import ConfigurationError

NARROW = {"widths": (8, 8, 16, 16)}


def logits(seed, count=2, classes=3, size=(64, 64), scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, classes, *size, generator=generator)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# -- losses -------------------------------------------------------------------------------------------------------


def test_signs_of_the_losses():
    of_student, of_teacher = torch.tensor([1.0, 2.0]), torch.tensor([4.0, 7.0])
    assert critic_loss(of_student, of_teacher).item() == 1.5 - 5.5
    assert student_loss(of_student).item() == -1.5


def test_gradient_penalty_of_a_linear_critic():
    """The gradient of <w, Y> is w everywhere, whatever the interpolate."""
    w = torch.randn(3, 5, 4, dtype=torch.float64)
    student, teacher = torch.randn(2, 3, 5, 4).double(), torch.randn(2, 3, 5, 4).double()
    value = gradient_penalty(lambda y, _: (y * w).sum((1, 2, 3)), student, teacher)
    assert value.item() == pytest.approx((np.sqrt((w.numpy() ** 2).sum()) - 1) ** 2)


def test_gradient_penalty_of_a_quadratic_critic():
    """The gradient of |Y|^2 / 2 is Y: one random point between the outputs of each image, one share an image."""
    student, teacher = torch.randn(3, 2, 4, 5).double(), torch.randn(3, 2, 4, 5).double()
    value = gradient_penalty(
        lambda y, _: y.square().sum((1, 2, 3)) / 2, student, teacher, generator=generator(5)
    )
    shares = torch.rand(3, 1, 1, 1, generator=generator(5)).flatten().tolist()
    expected = 0.0
    for share, s, t in zip(shares, student.numpy(), teacher.numpy(), strict=True):
        between = s + share * (t - s)
        expected += (np.sqrt((between**2).sum()) - 1) ** 2 / 3
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_gradient_penalty_interpolates_the_output_only():
    image, seen = torch.randn(2, 1, 64, 64), []

    def critic(output, condition):
        seen.append(condition)
        return (output * condition).sum((1, 2, 3))

    value = gradient_penalty(critic, torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64), image)
    assert seen[0] is image
    slopes = image.expand(2, 3, 64, 64).flatten(1).double().numpy()
    assert value.item() == pytest.approx(((np.sqrt((slopes**2).sum(1)) - 1) ** 2).mean(), rel=1e-5)


def test_gradient_penalty_differentiates_the_sum_of_all_patches():
    """Two patches with weights w and 2 w: the slope of their sum is 3 w, of their mean 1.5 w."""
    w = torch.randn(3, 5, 4, dtype=torch.float64)
    student, teacher = torch.randn(2, 3, 5, 4).double(), torch.randn(2, 3, 5, 4).double()

    def patches(y, _):
        score = (y * w).sum((1, 2, 3))
        return torch.stack([score, 2 * score], dim=1)[:, None, None]

    value = gradient_penalty(patches, student, teacher)
    assert value.item() == pytest.approx((3 * np.sqrt((w.numpy() ** 2).sum()) - 1) ** 2)


@pytest.mark.parametrize(("side", "published"), [(64, 0.9531), (96, 0.8456), (128, 0.7402), (256, 0.3858)])
def test_gradient_penalty_is_the_published_one(side, published):
    """The penalty of SKD's and IFVD's code (CriterionAdditionalGP, utils/criterion.py) of the critic's patch map.

    The mean of the patches would give 0.9531, 0.9822, 0.9889 and 0.9955.
    """
    torch.manual_seed(0)
    critic = Critic(2).eval()
    student = torch.rand(2, 2, side, side).softmax(1)
    teacher = (6 * torch.rand(2, 2, side, side)).softmax(1)
    value = gradient_penalty(critic.patches, student, teacher, generator=generator(0))
    assert value.item() == pytest.approx(published, abs=6e-5)
    (distance, penalty) = (
        critic_values(critic, student, teacher, None, 10.0, generator(0))[name]
        for name in ("distance", "penalty")
    )
    assert penalty.item() == pytest.approx(published, abs=6e-5)
    with torch.no_grad():
        assert distance.item() == pytest.approx((critic(teacher) - critic(student)).mean().item(), abs=1e-6)


# -- the critic ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (16, 24), (64, 64), (65, 97), (40, 130)])
@pytest.mark.parametrize("channels", [0, 3])
def test_critic_scores_outputs_of_any_size(size, channels):
    critic = new_critic(2, channels, seed=0, **NARROW)
    image = torch.randn(3, 3, *size) if channels else None
    scores = critic(torch.rand(3, 2, *size), image)
    assert scores.shape == (3,)
    assert torch.isfinite(scores).all()


def test_critic_has_the_layers_of_its_lineage():
    critic = new_critic(5, 3, seed=0)
    strided = [layer for layer in critic.layers if isinstance(layer, nn.Conv2d)]
    assert [layer.weight.shape for layer in strided] == [
        (64, 8, 4, 4),
        (128, 64, 4, 4),
        (256, 128, 4, 4),
        (512, 256, 4, 4),
    ]
    assert [type(layer).__name__ for layer in critic.layers[4:]] == [
        "ParametrizedConv2d",
        "LeakyReLU",
        "SelfAttention",
    ] * 2
    with torch.no_grad():
        largest = [torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() for layer in strided]
    assert largest == pytest.approx([1.0] * 4, abs=0.15)
    assert not any("BatchNorm" in type(module).__name__ for module in critic.modules())
    output, image = torch.rand(1, 5, 96, 128), torch.rand(1, 3, 96, 128)
    patches = critic.eval().patches(output, image)
    assert patches.shape == (1, 1, 3, 5)
    assert critic(output, image).item() == pytest.approx(patches.mean().item())
    assert not any(isinstance(module, SelfAttention) for module in Critic(2, attention=False).modules())


def test_self_attention_starts_as_identity_and_then_mixes_pixels():
    attention = SelfAttention(16)
    x = torch.randn(2, 16, 3, 4)
    assert torch.equal(attention(x), x)
    attention.factor.data.fill_(0.7)
    flat = x.flatten(2)
    query, key, value = (
        layer.weight[:, :, 0, 0] @ flat + layer.bias[:, None]
        for layer in (attention.query, attention.key, attention.value)
    )
    expected = torch.zeros_like(flat)
    for n in range(2):
        for p in range(12):
            weight = (query[n, :, p] @ key[n]).softmax(0)
            expected[n, :, p] = sum(weight[q] * value[n, :, q] for q in range(12))
    torch.testing.assert_close(attention(x).flatten(2), flat + 0.7 * expected, rtol=1e-4, atol=1e-4)


def test_critic_is_drawn_from_its_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, same, other = (
        new_critic(2, 0, seed=3, **NARROW),
        new_critic(2, 0, seed=3, **NARROW),
        new_critic(2, 0, seed=4, **NARROW),
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.score.weight, same.score.weight)
    assert not torch.equal(one.score.weight, other.score.weight)


def test_critic_looks_at_the_image_if_conditioned():
    output, image = torch.rand(1, 2, 64, 64), torch.randn(1, 3, 64, 64)
    conditioned, free = new_critic(2, 3, seed=0, **NARROW).eval(), new_critic(2, 0, seed=0, **NARROW).eval()
    assert conditioned(output, image) != conditioned(output, -image)
    assert torch.equal(free(output, image), free(output, -image))
    half = nn.functional.interpolate(image, size=(128, 128), mode="nearest")
    torch.testing.assert_close(conditioned(output, half), conditioned(output, image))
    with pytest.raises(ConfigurationError, match="conditioned on the image, but got none"):
        conditioned(output)


def test_critic_is_exact_under_autocast():
    critic = new_critic(2, 3, seed=0, **NARROW).eval()
    output, image = torch.rand(1, 2, 64, 64), torch.randn(1, 3, 64, 64)
    expected = critic(output, image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(critic(output, image), expected)
    assert torch.isfinite(critic(output.half(), image.half())).all()


# -- the critic of SKD's code ------------------------------------------------------------------------------------

# Values of SKD's code (github.com/irfanICMLL/structure_knowledge_distillation, networks/sagan_models.py and
# utils/criterion.py, commit ce208e1) with the weights of `skd_critic`, in float64: the student's loss
# (CriterionAdvForG) and the norm of its gradient, E[D(S)] - E[D(T)] (CriterionAdv), the gradient penalty
# (CriterionAdditionalGP).
SKD_CODE = {
    (65, 2): (-0.007286678289851511, 0.015393412557955132, 0.021563927039773043, 0.9761586749856178),
    (65, 7): (0.024910869693794968, 0.02131705170876811, 0.021998951452614844, 0.9678209435782957),
    (96, 2): (-0.010082544056789789, 0.006046480251849077, 0.006766062987008163, 0.9202726363735692),
    (96, 7): (0.02904536782691777, 0.008131662847989496, 0.008228292635065141, 0.8926064738743242),
    (129, 7): (0.03485171085498741, 0.005044478728869437, -0.0007694211174704563, 0.8217605203687959),
}


def skd_critic(classes):
    """A critic with working attention, its spectral norms exact: the code's power iteration takes another order."""
    torch.manual_seed(0)
    critic = Critic(classes, normalise=True)
    for layer in critic.layers:
        if isinstance(layer, SelfAttention):
            layer.factor.data.fill_(0.5)
        elif isinstance(layer, nn.Conv2d):
            spectral = layer.parametrizations.weight
            left, _, right = torch.linalg.svd(
                spectral.original.detach().flatten(1).double(), full_matrices=False
            )
            spectral[0]._u.copy_(left[:, 0])
            spectral[0]._v.copy_(right[0])
    return critic


@pytest.mark.parametrize(("side", "classes"), SKD_CODE)
def test_critic_that_normalises_is_that_of_skds_code(side, classes):
    critic = skd_critic(classes)
    drawn = generator(1)
    student = torch.randn(2, classes, side, side, generator=drawn).requires_grad_()
    teacher = 3 * torch.randn(2, classes, side, side, generator=drawn)
    module = AdversarialDistillation(critic, generator(5), reads="logits", optimiser="sgd")
    value = module(student, teacher)
    (gradient,) = torch.autograd.grad(value, student)
    values = critic_values(critic.train(), student.detach(), teacher, None, 10.0, generator(5))
    seen = value.item(), gradient.norm().item(), -values["distance"].item(), values["penalty"].item()
    # float32 sums over up to 129 x 129 pixels and 512 channels: about 1e-6 of the scores' size, which is below 1
    assert seen == pytest.approx(SKD_CODE[side, classes], rel=1e-5, abs=2e-6)


def test_critic_that_normalises_does_not_see_the_scale():
    critic = skd_critic(3).train()
    output = logits(1)
    of_student, of_teacher = critic.both(output, 5 * output + 2)
    torch.testing.assert_close(of_student, of_teacher, rtol=1e-3, atol=1e-5)  # batch norm's epsilon is 1e-5


def test_outputs_are_averaged_over_squares_before_they_are_scored():
    module, student, teacher = make(channels=0, stride=8), logits(1, size=(64, 65)), logits(2, size=(64, 65))
    value = module(student, teacher)
    seen, _, _ = module._last
    assert seen.shape == (2, 3, 8, 9)
    means = student[:, :, :8, :8].mean((2, 3)).softmax(1)
    torch.testing.assert_close(seen[:, :, 0, 0], means)
    assert value.item() == pytest.approx(-module.critic.eval()(seen).mean().item())


def test_the_critics_optimiser_is_a_setting():
    """SGD with momentum, by hand: its weight scales the step."""
    steps = {}
    for weight in (1.0, 0.1):
        module = make(channels=0, optimiser="sgd", learning_rate=0.01, weight=weight)
        before = module.critic.score.weight.detach().clone()
        module(logits(1), logits(2))
        module.after_step(0, 10)
        decay = 5e-4 * before
        steps[weight] = (before - module.critic.score.weight.detach()) / 0.01 - decay
    torch.testing.assert_close(steps[0.1], 0.1 * steps[1.0], rtol=1e-3, atol=1e-5)
    (group,) = module._optimiser.param_groups
    assert group["momentum"] == 0.9


# -- beside the student -------------------------------------------------------------------------------------------


def make(seed=0, channels=3, classes=3, **options):
    critic = new_critic(classes, channels, seed=seed, **NARROW)
    return AdversarialDistillation(critic, generator(seed), **options)


def distance(module, student, teacher, image):
    """E[D(T)] - E[D(S)]."""
    with torch.no_grad():
        critic = module.critic.eval()
        return (critic(teacher.softmax(1), image) - critic(student.softmax(1), image)).mean().item()


def test_one_step_of_the_critic_parts_teacher_from_student():
    module, student, teacher, image = make(), logits(1, scale=0.1), logits(2, scale=4), logits(3)
    before = distance(module, student, teacher, image)
    module((student, image), teacher)
    figures = module.after_step(0, 10)
    assert distance(module, student, teacher, image) > before
    # in train mode spectral norm sharpens its estimate first, so the figure is near, not equal
    assert figures["distance"] == pytest.approx(before, abs=5e-3)
    assert figures["loss"] == pytest.approx(-figures["distance"] + 10 * figures["penalty"], rel=1e-5)


def test_one_step_of_the_student_raises_its_score():
    module, image = make(), logits(4)
    student = logits(5).requires_grad_()
    value = module((student, image), logits(6))
    (gradient,) = torch.autograd.grad(value, student)
    assert torch.isfinite(gradient).all()
    assert gradient.any()
    better = student.detach() - 10 * gradient / gradient.norm()
    assert -module((better, image), logits(6)) > -value


def test_student_loss_is_the_mean_score_of_its_probabilities():
    module, student, image = make(), logits(7), logits(8)
    value = module((student, image), logits(9))
    scores = module.critic.eval()(student.softmax(1), image)
    assert value.item() == pytest.approx(-scores.detach().mean().item())


def test_equal_outputs_have_no_distance():
    """Though every pass through spectral norm changes its estimate, and so all scores."""
    critic, output, image = new_critic(3, 3, seed=0, **NARROW).train(), logits(1).softmax(1), logits(2)
    critic.score.bias.data.fill_(100.0)
    for _ in range(3):
        values = critic_values(critic, output, output, image, 10.0, generator())
        assert values["distance"].item() == 0


def test_gradient_of_the_penalty_is_finite():
    critic = new_critic(3, 3, seed=0, **NARROW)
    values = critic_values(critic, logits(1).softmax(1), logits(2).softmax(1), logits(3), 10.0, generator())
    values["penalty"].backward()
    assert values["penalty"].item() > 0
    gradients = [parameter.grad for parameter in critic.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


def test_each_side_gets_its_own_gradient_only():
    module = make()
    student, teacher, image = (logits(seed).requires_grad_() for seed in (1, 2, 3))
    module((student, image), teacher).backward()
    assert student.grad.any()
    assert teacher.grad is None
    assert image.grad is None
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())
    student.grad = None
    module.after_step(0, 1)
    assert student.grad is None
    assert any(parameter.grad.any() for parameter in module.parameters() if parameter.grad is not None)


def test_critic_steps_once_for_each_forward_pass_that_trains():
    module, student = make(channels=0), logits(1)
    assert module.after_step(0, 1) == {}
    with torch.no_grad():  # validation
        module(student, logits(2))
    assert module.after_step(0, 1) == {}
    module(student, logits(2))
    assert set(module.after_step(0, 1)) == {"distance", "penalty", "loss"}
    assert module.after_step(0, 1) == {}


def test_learning_rate_decays_by_epochs():
    module = make(channels=0, learning_rate=0.01)
    rates = []
    for epoch in (0, 5, 10):
        module(logits(1), logits(2))
        module.after_step(epoch, 10)
        rates.append(module._optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([0.01, 0.01 * 0.5**0.9, 0.0])


@pytest.mark.parametrize("size", [(1, 1), (7, 5)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_degenerate_outputs_are_finite(size, dtype):
    module = make(channels=0)
    student = torch.zeros(1, 3, *size, dtype=dtype, requires_grad=True)
    target = torch.full((1, *size), 255)
    value = module(student, student.detach(), target, ignore_index=255)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(student.grad).all()
    assert all(np.isfinite(figure) for figure in module.after_step(0, 1).values())


def test_teacher_of_another_size_is_resized_and_of_other_classes_refused():
    module = make(channels=0)
    module(logits(1), logits(2, size=(32, 32)))
    assert np.isfinite(module.after_step(0, 1)["loss"])
    with pytest.raises(ConfigurationError, match="same task"):
        module(logits(1), logits(2, classes=4))


def run_steps(module, first, count):
    figures = []
    for step in range(first, first + count):
        module(
            (logits(step, size=(32, 32)), logits(100 + step, size=(32, 32))),
            logits(200 + step, size=(32, 32)),
        )
        figures.append(module.after_step(step, 10))
    return figures


def test_resumed_equals_never_stopped():
    module = make()
    run_steps(module, 0, 2)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    expected = run_steps(module, 2, 2)
    file.seek(0)
    resumed = make(seed=9)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert run_steps(resumed, 2, 2) == expected
    for name, tensor in module.critic.state_dict().items():
        assert torch.equal(tensor, resumed.critic.state_dict()[name]), name


def test_optimiser_moves_with_the_critic():
    module = make(channels=0)
    module(logits(1), logits(2))
    module.after_step(0, 1)
    module.to(torch.float64)
    moments = [state["exp_avg"] for state in module._optimiser.state.values()]
    assert moments
    assert all(moment.dtype == torch.float64 for moment in moments)


# -- before the student -------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, classes=2, channels=3):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Conv2d(4, classes, 1)

    def forward(self, image):
        return self.head(self.body(image))


def critic_stage(channels=3, seed=0):
    torch.manual_seed(seed)
    teacher, student = Net().requires_grad_(False), Net()
    teacher.head.weight.mul_(20)
    critic = new_critic(2, channels, seed, **NARROW)
    return CriticStage(critic, teacher, student, AloneSettings(), seed=seed, learning_rate_factor=0.2)


def steps(stage, optimiser, first, count):
    values = []
    for step in range(first, first + count):
        image = torch.randn(2, 3, 64, 64, generator=generator(step))
        terms = stage.loss(image, torch.full((2, 64, 64), 255))
        optimiser.zero_grad()
        terms["loss"].backward()
        optimiser.step()
        values.append({name: value.item() for name, value in terms.items()})
    return values


@pytest.mark.parametrize("channels", [0, 3])
def test_stage_teaches_the_critic_and_leaves_both_networks(channels):
    stage = critic_stage(channels)
    assert not stage.segments
    assert stage.name == "critic"
    before = copy.deepcopy((stage.student.state_dict(), stage.teacher.state_dict()))
    optimiser = torch.optim.Adam(stage.trainable_parameters(), lr=2e-4)
    values = steps(stage, optimiser, 0, 5)
    assert values[-1]["distance"] > values[0]["distance"]
    assert stage.student.training
    for network, state in zip((stage.student, stage.teacher), before, strict=True):
        assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())
        assert all(parameter.grad is None for parameter in network.parameters())


def test_stage_is_judged_without_gradient():
    stage = critic_stage()
    stage.network.eval()
    with torch.no_grad():
        terms = stage.loss(torch.randn(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.long))
    assert torch.isfinite(terms["loss"])
    assert not terms["loss"].requires_grad


def test_resumed_stage_equals_never_stopped():
    stage = critic_stage()
    optimiser = torch.optim.Adam(stage.trainable_parameters(), lr=2e-4)
    steps(stage, optimiser, 0, 1)
    file = io.BytesIO()
    torch.save((stage.state_dict(), stage.network.state_dict(), optimiser.state_dict()), file)
    expected = steps(stage, optimiser, 1, 2)
    file.seek(0)
    of_stage, of_network, of_optimiser = torch.load(file, weights_only=True)
    resumed = critic_stage()
    resumed.network.load_state_dict(of_network)
    resumed.load_state_dict(of_stage)
    optimiser = torch.optim.Adam(resumed.trainable_parameters(), lr=2e-4)
    optimiser.load_state_dict(of_optimiser)
    assert steps(resumed, optimiser, 1, 2) == expected
