"""CIRKD's relations in the batch and to the memory, against loops; the queues; the method."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from napari_kdseg.distillation.distiller import Given
from napari_kdseg.distillation.losses.cirkd_memory import (
    ClassQueues,
    MemoryContrast,
    distinct,
    memory_contrast,
)
from napari_kdseg.distillation.losses.cirkd_mini_batch import cirkd_mini_batch
from napari_kdseg.distillation.methods.cirkd import CIRKD
from napari_kdseg.errors import ConfigurationError


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def unit(vector):
    length = np.linalg.norm(vector)
    return vector / length if length else vector


def divergence(similar_t, similar_s, tau):
    """KL(softmax(similar_t / tau) || softmax(similar_s / tau)) in float64."""
    p, q = (np.exp(np.asarray(similar) / tau) for similar in (similar_t, similar_s))
    p, q = p / p.sum(), q / q.sum()
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


# -- relations in the batch -------------------------------------------------------------------------------------------


def naive_embeddings(feature, labels, grid):
    """Unit means of the pixels that count in each window of one image, ``None`` where none does."""
    feature = np.asarray(feature, dtype=np.float64)
    _, h, w = feature.shape
    result = []
    for i, j in np.ndindex(*grid):
        pixels = [
            feature[:, y, x]
            for y in range(i * h // grid[0], math.ceil((i + 1) * h / grid[0]))
            for x in range(j * w // grid[1], math.ceil((j + 1) * w / grid[1]))
            if labels is None or labels[y * labels.shape[0] // h, x * labels.shape[1] // w] != 255
        ]
        result.append(unit(sum(pixels)) if pixels else None)
    return result


def naive_mini_batch(student, teacher, target, grid, tau):
    images = []
    for n in range(len(student)):
        labels = None if target is None else np.asarray(target[n])
        both = zip(
            naive_embeddings(student[n], labels, grid),
            naive_embeddings(teacher[n], labels, grid),
            strict=True,
        )
        kept = [(s, t) for s, t in both if s is not None and t is not None]
        if kept:
            images.append(kept)
    total = 0.0
    for one, other in itertools.product(images, images):
        rows = [divergence([t @ v for _, v in other], [s @ v for v, _ in other], tau) for s, t in one]
        total += sum(rows) / len(rows)
    return total / len(images) ** 2


@pytest.mark.parametrize(
    ("of_student", "of_teacher", "nodes", "grid"),
    [
        ((2, 3, 4, 4), (2, 5, 4, 4), 1024, (4, 4)),
        ((3, 4, 6, 5), (3, 4, 6, 5), 10, (3, 3)),
        ((2, 3, 4, 6), (2, 2, 8, 6), 12, (2, 3)),
        ((1, 2, 5, 7), (1, 6, 3, 4), 35, (3, 4)),
    ],
)
@pytest.mark.parametrize("tau", [0.1, 1.0])
@pytest.mark.parametrize("labelled", [True, False])
def test_mini_batch_equals_naive_loop(of_student, of_teacher, nodes, grid, tau, labelled):
    student, teacher = random(*of_student), random(*of_teacher, seed=1)
    target = None
    if labelled:
        target = torch.zeros(of_student[0], 8, 12, dtype=torch.long)
        target[0, :4] = 255
        if of_student[0] > 1:
            target[1] = 255
    value = cirkd_mini_batch(student, teacher, target, temperature=tau, nodes=nodes)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(naive_mini_batch(student, teacher, target, grid, tau), rel=1e-4)


def test_mini_batch_gradient():
    def loss(feature):
        return cirkd_mini_batch(feature, teacher, target, temperature=0.5, nodes=6)

    teacher = random(2, 3, 4, 3, seed=1).requires_grad_()
    target = torch.zeros(2, 4, 3, dtype=torch.long)
    target[0, 0, 0] = 255
    student = random(2, 2, 4, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(loss, student)
    loss(student).backward()
    assert teacher.grad is None
    assert not student.grad[0, :, 0, 0].any()  # ignored


def test_mini_batch_is_zero_where_both_agree_or_nothing_counts():
    student = random(3, 4, 5, 3).requires_grad_()
    for value in (
        cirkd_mini_batch(student, student),
        cirkd_mini_batch(student, 3 * student),
        cirkd_mini_batch(student, random(3, 2, 5, 3), torch.full((3, 10, 6), 255)),
    ):
        (gradient,) = torch.autograd.grad(value, student)
        assert value.item() == pytest.approx(0, abs=1e-6)
        assert gradient.abs().max() < 1e-5


@pytest.mark.parametrize(
    "student", [torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4), torch.ones(1, 1, 1, 1)], ids=str
)
def test_mini_batch_is_finite_on_degenerate_features(student):
    student.requires_grad_()
    for teacher in (random(len(student), 5, 4, 4), torch.zeros(len(student), 2, 3, 7)):
        value = cirkd_mini_batch(student, teacher)
        (gradient,) = torch.autograd.grad(value, student)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mini_batch_in_half_precision_and_autocast(dtype):
    student, teacher = (1e4 * random(2, 3, 4, 4).clamp(-6, 6)).to(dtype), random(2, 3, 4, 4, seed=1).to(dtype)
    student.requires_grad_()
    value = cirkd_mini_batch(student, teacher)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(student.grad).all()
    with torch.autocast("cpu", dtype=dtype):
        assert cirkd_mini_batch(student, teacher).item() == value.item()


def test_mini_batch_refuses():
    one = torch.zeros(1, 2, 3, 3)
    with pytest.raises(ConfigurationError, match="temperature"):
        cirkd_mini_batch(one, one, temperature=0)
    with pytest.raises(ConfigurationError, match="node"):
        cirkd_mini_batch(one, one, nodes=0)
    with pytest.raises(ConfigurationError, match=r"\(1, 2, 3, 3\).*\(2, 2, 3, 3\)"):
        cirkd_mini_batch(one, torch.zeros(2, 2, 3, 3))


# -- relations to the memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("anchors", "held", "channels"), [(5, 7, 3), (1, 2, 4), (9, 1, 2)])
@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_memory_contrast_equals_naive_loop(anchors, held, channels, tau):
    student, teacher = random(anchors, channels), random(anchors, channels, seed=1)
    memory = nn.functional.normalize(random(held, channels, seed=2), dim=1)
    s, t, v = (np.asarray(x, dtype=np.float64) for x in (student, teacher, memory))
    rows = [divergence(v @ unit(t[a]), v @ unit(s[a]), tau) for a in range(anchors)]
    value = memory_contrast(student, teacher, memory, temperature=tau)
    assert value.item() == pytest.approx(sum(rows) / len(rows), rel=1e-4, abs=1e-7)


def test_memory_contrast_gradient():
    def loss(embeddings):
        return memory_contrast(embeddings, teacher, memory, temperature=0.5)

    teacher = random(4, 3, seed=1).double().requires_grad_()
    memory = nn.functional.normalize(random(6, 3, seed=2).double(), dim=1)
    student = random(4, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(loss, student)
    loss(student).backward()
    assert teacher.grad is None


@pytest.mark.parametrize(("anchors", "held"), [(0, 3), (4, 0), (0, 0)])
def test_no_pixel_or_no_memory_is_zero_with_graph(anchors, held):
    student = random(anchors, 3).requires_grad_()
    value = memory_contrast(student, random(anchors, 3), random(held, 3))
    value.backward()
    assert value == 0
    assert student.grad is not None


# -- queues -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 3, 7])
def test_queues_are_first_in_first_out(length, contents):
    """Against a plain list cut to its last entries, for pushes smaller and larger than the queue."""
    queues, plain = ClassQueues(2, length, 1), {0: [], 1: []}
    number = 0
    for step in range(40):
        c, count = step % 2, (step * 5) % 9
        new = [float(number + k) for k in range(count)]
        number += count
        queues.push(c, torch.tensor(new).reshape(-1, 1))
        plain[c] = (plain[c] + new)[-length:]
        assert contents(queues, c).flatten().tolist() == plain[c]
        assert queues.sizes == (len(plain[0]), len(plain[1]))


def test_sample_takes_as_many_of_each_class_without_repeating():
    queues = ClassQueues(3, 50, 1)
    queues.push(0, torch.arange(30.0).reshape(-1, 1))
    queues.push(2, 100 + torch.arange(4.0).reshape(-1, 1))
    drawn = queues.sample(24, seeded()).flatten()
    assert len(drawn.unique()) == len(drawn) == 8 + 4  # 8 each; class 1 has none, class 2 four only
    assert (drawn < 30).sum() == 8
    assert drawn[8:].tolist() == [100, 101, 102, 103]
    assert ClassQueues(3, 5, 2).sample(9, seeded()).shape == (0, 2)


def test_distinct_draws_every_set_as_often():
    generator, counts = seeded(3), {}
    for _ in range(6000):
        drawn = tuple(sorted(distinct(5, 3, generator).tolist()))
        counts[drawn] = counts.get(drawn, 0) + 1
    assert sorted(counts) == list(itertools.combinations(range(5), 3))
    assert all(abs(count - 600) < 5 * math.sqrt(600) for count in counts.values())
    assert distinct(2, 5, generator).tolist() == [0, 1]
    assert distinct(0, 5, generator).tolist() == []


# -- the module -------------------------------------------------------------------------------------------------------


def memory_module(kind="pixel", classes=3, channels=(2, 4), seed=0, **options):
    options = {"queue_length": 40, "samples": 12, **options}
    shapes = [torch.Size((1, channels[0], 8, 8))], [torch.Size((1, channels[1], 8, 8)), (1, classes, 16, 16)]
    return MemoryContrast(*shapes, seeded(seed), kind=kind, **options)


def class_features(target, grid, channels=4):
    """A teacher's feature whose pixels point along axis c where the label is c, with lengths that differ."""
    labels = target[:, :: target.shape[1] // grid, :: target.shape[2] // grid]
    axes = torch.eye(channels)[labels.clamp(max=channels - 1)].movedim(-1, 1)
    return axes * (1 + torch.rand(axes.shape, generator=seeded(9)))


@pytest.mark.parametrize("kind", ["pixel", "region"])
def test_queue_of_a_class_holds_that_class_only(kind, contents):
    """The released code remembers positions of a permutation, not of the class: its queues would fail here."""
    module = memory_module(kind, pixels_per_image=5)
    for seed in range(6):
        target = torch.randint(0, 3, (2, 16, 16), generator=seeded(seed))
        target[:, :4] = 255
        target[0, 4:10] = 0
        module(random(2, 2, 8, 8), (class_features(target, 8), random(2, 3, 16, 16)), target)
    assert module.queues.sizes == ((40, 40, 40) if kind == "pixel" else (12, 12, 12))
    for c in range(3):
        expected = torch.eye(4)[c].expand(module.queues.sizes[c], 4)
        torch.testing.assert_close(contents(module.queues, c), expected)


def test_pixels_are_remembered_as_they_are_and_regions_as_their_mean(contents):
    feature, target = random(1, 4, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)
    target[0, 1, 1:3] = 2
    target[0, 3] = 255
    embeddings = nn.functional.normalize(feature, dim=1)[0]
    pixels, regions = memory_module("pixel"), memory_module("region")
    for module in (pixels, regions):
        module(random(1, 2, 4, 4), (feature, random(1, 3, 4, 4)), target)
    torch.testing.assert_close(contents(pixels.queues, 2), embeddings[:, 1, 1:3].T)
    mean = embeddings[:, 1, 1:3].mean(dim=1)
    torch.testing.assert_close(contents(regions.queues, 2), (mean / mean.norm())[None])
    assert pixels.queues.sizes == (10, 0, 2)  # 12 of 16 pixels are labelled, at most 16 remembered
    assert regions.queues.sizes == (1, 0, 1)
    remembered = {tuple(row.tolist()) for row in contents(pixels.queues, 0)}
    assert len(remembered) == 10


@pytest.mark.parametrize("kind", ["pixel", "region"])
def test_module_equals_memory_contrast_of_its_parts(kind, contents):
    """All pixels compared, the whole memory read: no draw is left, and the value is that of the equation."""
    module = memory_module(kind, samples=10**6, queue_length=1000, pixels_per_image=1000)
    target = torch.randint(0, 3, (2, 5, 6), generator=seeded(1))
    target[1, 2:] = 255
    student, feature = random(2, 2, 5, 6), random(2, 4, 5, 6, seed=1)
    value = module(student, (feature, random(2, 3, 5, 6)), target)
    memory = torch.cat([contents(module.queues, c) for c in range(3)])
    with torch.no_grad():
        projected = module.projector(student)
    places = (target != 255).nonzero()
    rows = []
    for n, i, j in places.tolist():
        u_s = unit(np.asarray(projected[n, :, i, j], dtype=np.float64))
        u_t = unit(np.asarray(feature[n, :, i, j], dtype=np.float64))
        v = np.asarray(memory, dtype=np.float64)
        rows.append(divergence(v @ u_t, v @ u_s, 0.1))
    assert value.item() == pytest.approx(sum(rows) / len(rows), rel=1e-4)


def test_zero_where_projection_equals_the_teacher():
    module = memory_module(channels=(4, 4))
    module.projector = nn.Identity()
    feature = random(2, 4, 8, 8).requires_grad_()
    target = torch.randint(0, 3, (2, 16, 16), generator=seeded())
    value = module(feature, (feature, random(2, 3, 16, 16)), target)
    (gradient,) = torch.autograd.grad(value, feature)
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert gradient.abs().max() < 1e-5


def test_gradient_reaches_student_and_projector_only():
    module = memory_module()
    student, teacher = random(2, 2, 8, 8).requires_grad_(), random(2, 4, 8, 8, seed=1).requires_grad_()
    logits = random(2, 3, 16, 16).requires_grad_()
    module(student, (teacher, logits), torch.randint(0, 3, (2, 16, 16), generator=seeded())).backward()
    assert student.grad.any()
    assert teacher.grad is None
    assert logits.grad is None
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())
    assert sum(parameter.numel() for parameter in module.parameters()) == 2 * 4 + 2 * 4 + 4 * 4


def test_anchors_are_bounded():
    seen = []
    module = memory_module(anchors=5)
    draw = module._draw_anchors
    module._draw_anchors = lambda *values: seen.append(draw(*values)) or seen[-1]
    target = torch.zeros(2, 16, 16, dtype=torch.long)
    target[0, :8] = 255
    module(random(2, 2, 8, 8), (random(2, 4, 8, 8), random(2, 3, 16, 16)), target)
    (places,) = seen
    assert len(places.unique()) == len(places) == 10
    assert places.min() >= 32  # the first four rows of the first image are ignored
    assert places.max() < 128


def test_remembers_in_training_only_and_never_what_is_ignored():
    module = memory_module()
    inputs = random(2, 2, 8, 8), (random(2, 4, 8, 8), random(2, 3, 16, 16))
    student = inputs[0].requires_grad_()
    value = module(*inputs, torch.full((2, 16, 16), 255))
    value.backward()
    assert value == 0
    assert not student.grad.any()
    assert module.queues.sizes == (0, 0, 0)
    module.eval()
    value = module(*inputs, torch.zeros(2, 16, 16, dtype=torch.long))
    assert value == 0
    assert value.requires_grad
    assert module.queues.sizes == (0, 0, 0)
    out_of_range = torch.full((2, 16, 16), 3)
    module.train()(*inputs, out_of_range)
    assert module.queues.sizes == (0, 0, 0)
    module(
        *inputs, torch.arange(2).repeat(2, 16, 8), ignore_index=1
    )  # an ignored label may be a class's number
    assert module.queues.sizes == (32, 0, 0)


@pytest.mark.parametrize("kind", ["pixel", "region"])
def test_grids_may_differ_and_features_may_be_degenerate(kind):
    target = torch.zeros(1, 9, 7, dtype=torch.long)
    target[0, 4, 3] = 1
    for of_student, of_teacher in [((5, 3), (9, 7)), ((9, 7), (4, 3)), ((1, 2), (3, 3))]:
        for feature in (
            random(1, 4, *of_teacher),
            torch.zeros(1, 4, *of_teacher),
            torch.ones(1, 4, *of_teacher),
        ):
            module = memory_module(kind)
            for student in (random(1, 2, *of_student), torch.zeros(1, 2, *of_student)):
                student.requires_grad_()
                value = module(student, (feature, random(1, 3, 9, 7)), target)
                value.backward()
                assert torch.isfinite(value)
                assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_module_takes_half_precision(dtype):
    module = memory_module()
    student = random(2, 2, 8, 8).to(dtype).requires_grad_()
    target = torch.randint(0, 3, (2, 16, 16), generator=seeded())
    with torch.autocast("cpu", dtype=dtype):
        value = module(student, (random(2, 4, 8, 8).to(dtype), random(2, 3, 16, 16)), target)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()
    assert module.queues.values.dtype == torch.float32


@pytest.mark.parametrize("kind", ["pixel", "region"])
def test_resumes_exactly(kind, tmp_path):
    """A module loaded from a file goes on as the one that was saved: same queues, same draws, same values."""

    def steps(module, seeds):
        values = []
        for seed in seeds:
            target = torch.randint(0, 3, (2, 16, 16), generator=seeded(seed))
            inputs = random(2, 2, 8, 8, seed=seed), (random(2, 4, 8, 8, seed=seed), random(2, 3, 16, 16))
            values.append(module(*inputs, target).item())
        return values

    options = {"queue_length": 20, "samples": 6, "pixels_per_image": 3, "anchors": 7}
    module = memory_module(kind, **options)
    steps(module, range(5))
    torch.save(module.state_dict(), tmp_path / "state.pt")
    resumed = memory_module(kind, seed=99, **options)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    going_on = copy.deepcopy(module)
    assert steps(resumed, range(5, 9)) == steps(module, range(5, 9)) == steps(going_on, range(5, 9))
    assert steps(memory_module(kind, **options), [3]) == steps(memory_module(kind, **options), [3])
    assert steps(memory_module(kind, **options), [3]) != steps(memory_module(kind, seed=1, **options), [3])


def test_module_refuses():
    module = memory_module()
    with pytest.raises(ConfigurationError, match="ground truth"):
        module(random(1, 2, 8, 8), (random(1, 4, 8, 8), random(1, 3, 16, 16)))
    with pytest.raises(ConfigurationError, match="'image'"):
        memory_module("image")
    with pytest.raises(ConfigurationError, match="temperature"):
        memory_module(temperature=0)
    for number in ("queue_length", "samples", "pixels_per_image", "anchors"):
        with pytest.raises(ConfigurationError, match="at least one"):
            memory_module(**{number: 0})


# -- the method -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "terms"),
    [
        (None, {"kd": 1.0, "mini_batch": 1.0, "memory_pixel": 0.1, "memory_region": 0.1}),
        ("mini-batch", {"kd": 1.0, "mini_batch": 1.0}),
        ("memory-pixel", {"kd": 1.0, "memory_pixel": 0.1}),
        ("memory-region", {"kd": 1.0, "memory_region": 0.1}),
    ],
)
def test_terms_and_weights_of_each_variant(variant, terms):
    method = CIRKD.preset(variant) if variant else CIRKD
    recipe = method.build(method.settings(), Given(nn.Identity()))
    assert {term.name: term.weight for term in recipe.terms} == terms


@pytest.mark.parametrize("variant", [None, "mini-batch", "memory-pixel", "memory-region"])
@pytest.mark.parametrize("classes", [2, 7])
def test_method_trains(variant, classes, tiny_net, lesions):
    method = CIRKD.preset(variant) if variant else CIRKD
    teacher, student = tiny_net(1, classes=classes, width=6), tiny_net(2, classes=classes)
    settings = method.settings({"nodes": 36, "pixel_queue_length": 50, "region_queue_length": 20})
    (stage,) = method.stages(teacher, student, settings, input_shape=(3, 24, 24))
    stage.begin_epoch(0, 1)
    optimiser = torch.optim.Adam(stage.trainable_parameters(), lr=0.01)
    history = []
    for step in range(8):
        values = stage.loss(*lesions(step % 2, classes=classes))
        optimiser.zero_grad()
        values["loss"].backward()
        optimiser.step()
        history.append({name: value.item() for name, value in values.items()})
        assert all(math.isfinite(value) for value in history[-1].values())
    named = {term.name for term in stage.terms}
    assert all(history[0][name] > 0 for name in named)
    assert history[-1]["loss"] < history[0]["loss"]
    weights = {term.name: term.weight for term in stage.terms}
    total = history[0]["segmentation"] + sum(weights[name] * history[0][name] for name in named)
    assert history[0]["loss"] == pytest.approx(total, rel=1e-5)
    assert not any(parameter.grad is not None for parameter in teacher.parameters())


def test_refuses_two_layers_and_cautions_one_image():
    with pytest.raises(ConfigurationError, match="one layer of each"):
        CIRKD.build(CIRKD.settings({"student_layers": ("encoder", "decoder")}), Given(nn.Identity()))
    assert CIRKD.caution(2, 8) == []
    (sentence,) = CIRKD.caution(2, 1)
    assert "one image" in sentence
