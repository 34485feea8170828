"""CoCo DistillNet and SKD as methods: every variant runs its stages, and the parts of the recipe belong together."""

from __future__ import annotations

import copy
import io
from functools import partialmethod

import pytest
import torch
from torch import nn

from napari_kdseg.distillation.auxiliary.critic import Critic
from napari_kdseg.distillation.losses.cross_layer_correlation import cross_layer_correlation
from napari_kdseg.distillation.methods.coco import COCO
from napari_kdseg.distillation.methods.skd import SKD
from napari_kdseg.errors import ConfigurationError

SIDE = 32


class Net(nn.Module):
    """Encoder to 1/8 and decoder back to 1/4 and 1; ``wide`` makes it another family with another classifier."""

    def __init__(self, classes, width, wide=False):
        super().__init__()
        kernel = 5 if wide else 3
        down = [self.layer(3, width, kernel), *(self.layer(width, width, kernel) for _ in range(2))]
        self.encoder = nn.Sequential(*down)
        self.decoder = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(width, width + 1, 3, padding=1))
        self.segmentation_head = nn.Sequential(
            nn.Upsample(scale_factor=4), nn.Conv2d(width + 1, classes, kernel_size=1)
        )

    @staticmethod
    def layer(before, after, kernel):
        convolution = nn.Conv2d(before, after, kernel, stride=2, padding=kernel // 2)
        return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))

    def forward(self, image):
        return self.segmentation_head(self.decoder(self.encoder(image)))


@pytest.fixture(autouse=True)
def _narrow_critic(monkeypatch):
    """Give the critic few channels, to be fast; its own tests build the full one."""
    monkeypatch.setattr(Critic, "__init__", partialmethod(Critic.__init__, widths=(8, 8, 16, 16)))


def pair(classes, family=0):
    torch.manual_seed(classes)
    return Net(classes, 6, wide=family == 0), Net(classes, 4, wide=family == 1)


def stages(method, classes=2, family=0, **values):
    teacher, student = pair(classes, family)
    settings = method.settings(values)
    made = method.stages(teacher, student, settings, seed=3, input_shape=(3, SIDE, SIDE))
    return {stage.name: stage for stage in made}


def train(stage, count, optimiser=None, first=0, classes=2):
    """Step as the training loop does, and return every figure of every step."""
    optimiser = optimiser or torch.optim.AdamW(stage.trainable_parameters(), lr=1e-3)
    figures = []
    stage.network.train()
    for step in range(first, first + count):
        stage.begin_epoch(step, 10)
        generator = torch.Generator().manual_seed(step)
        image = torch.randn(2, 3, SIDE, SIDE, generator=generator)
        target = torch.randint(0, classes, (2, SIDE, SIDE), generator=generator)
        target[0, :3] = 255
        terms = stage.loss(image, target)
        optimiser.zero_grad()
        terms["loss"].backward()
        optimiser.step()
        figures.append({name: value.item() for name, value in terms.items()} | stage.after_step())
    return figures, optimiser


def variants():
    for method in (COCO, SKD):
        yield pytest.param(method, id=method.name)
        for name in method.presets:
            yield pytest.param(method.preset(name), id=f"{method.name}:{name}")


@pytest.mark.parametrize("family", [0, 1])
@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize("method", list(variants()))
def test_every_variant_trains(method, classes, family):
    made = stages(method, classes, family)
    teacher = copy.deepcopy(made["student"].readers[0].network.state_dict())
    untrained = copy.deepcopy(made["student"].network.state_dict())
    for name, stage in made.items():
        if name == "student":  # what came before has not touched it
            assert all(torch.equal(untrained[k], v) for k, v in stage.network.state_dict().items())
        before = [parameter.clone() for parameter in stage.trainable_parameters()]
        figures, _ = train(stage, 2, classes=classes)
        assert all(torch.isfinite(torch.tensor(list(step.values()))).all() for step in figures)
        assert any(not torch.equal(a, b) for a, b in zip(before, stage.trainable_parameters(), strict=True))
    assert all(torch.equal(teacher[k], v) for k, v in made["student"].readers[0].network.state_dict().items())


@pytest.mark.parametrize(
    ("variant", "before", "terms"),
    [
        ("", ["paraphraser", "critic"], {"correlation": 1.0, "adversarial": 0.1}),
        ("cocod-advd", ["paraphraser", "critic"], {"correlation": 1.0, "adversarial": 0.1}),
        ("cocod", ["paraphraser"], {"correlation": 1.0}),
        ("cmss", [], {"cmss": 1.0}),
        ("ss", [], {"ss": 1.0}),
        ("no-paraphraser", ["critic"], {"correlation": 1.0, "adversarial": 0.1}),
        ("paper", ["paraphraser", "critic"], {"correlation": 1.0, "adversarial": 0.1}),
    ],
)
def test_rows_of_table_1(variant, before, terms):
    made = stages(COCO.preset(variant) if variant else COCO)
    assert list(made) == [*before, "student"]
    assert {term.name: term.weight for term in made["student"].terms} == terms
    assert all(not stage.segments for name, stage in made.items() if name != "student")


def test_default_is_the_full_method():
    assert COCO.preset("cocod-advd").settings() == COCO.settings()


def test_paper_trains_on_cross_entropy_alone():
    figures, _ = train(stages(COCO.preset("paper"))["student"], 1)
    _, student = pair(2)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, SIDE, SIDE, generator=generator)
    target = torch.randint(0, 2, (2, SIDE, SIDE), generator=generator)
    target[0, :3] = 255
    expected = nn.functional.cross_entropy(student.train()(image), target, ignore_index=255)
    assert figures[0]["segmentation"] == pytest.approx(expected.item(), rel=1e-5)


def test_total_loss_is_the_weighted_sum():
    figures, _ = train(stages(COCO, weight=50.0, adversarial_weight=0.3)["student"], 1)
    step = figures[0]
    total = step["segmentation"] + 50 * step["correlation"] + 0.3 * step["adversarial"]
    assert step["loss"] == pytest.approx(total, rel=1e-5)
    figures, _ = train(stages(SKD)["student"], 1)
    step = figures[0]
    total = step["segmentation"] + 10 * step["pixel"] + 0.5 * step["pair"] + 0.1 * step["holistic"]
    assert step["loss"] == pytest.approx(total, rel=1e-5)


def test_student_learns_from_what_the_stages_trained():
    made = stages(COCO)
    term = made["student"].learned
    assert term["correlation"].paraphrasers is made["paraphraser"].network
    assert term["adversarial"].critic is made["critic"].network


def test_paraphrasers_lead_from_the_teachers_channels_to_the_students():
    made = stages(COCO)
    assert made["paraphraser"].layers == ("encoder.1", "decoder")
    assert made["student"].terms[0].student_taps == ("encoder.1", "decoder")
    convolutions = [
        [module for module in one.encoder if isinstance(module, nn.Conv2d)]
        for one in made["paraphraser"].network.layers
    ]
    assert [(c[0].in_channels, c[-1].out_channels) for c in convolutions] == [(6, 4), (7, 5)]


def test_correlation_is_that_of_the_codes():
    made = stages(COCO)
    stage, paraphrasers = made["student"], made["paraphraser"].network
    image = torch.randn(2, 3, SIDE, SIDE)
    value = stage.loss(image, torch.zeros(2, SIDE, SIDE, dtype=torch.long))["correlation"]

    def layers(network):
        shallow = network.encoder[1](network.encoder[0](image))
        return shallow, network.decoder(network.encoder[2](shallow.clone()))

    with torch.no_grad():
        codes = tuple(
            one.encoder(f)
            for one, f in zip(paraphrasers.layers, layers(stage.readers[0].network.eval()), strict=True)
        )
        expected = cross_layer_correlation(layers(stage.network), codes)
    assert value.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-9)


def test_students_optimiser_has_the_students_parameters_only():
    stage = stages(COCO)["student"]
    assert {id(p) for p in stage.trainable_parameters()} == {id(p) for p in stage.network.parameters()}


@pytest.mark.parametrize("method", [COCO, SKD], ids=["coco", "skd"])
def test_student_resumed_equals_never_stopped(method):
    stage = stages(method)["student"]
    _, optimiser = train(stage, 2)
    file = io.BytesIO()
    torch.save((stage.state_dict(), stage.network.state_dict(), optimiser.state_dict()), file)
    expected, _ = train(stage, 2, optimiser, first=2)
    file.seek(0)
    of_stage, of_network, of_optimiser = torch.load(file, weights_only=True)
    resumed = stages(method)["student"]
    resumed.network.load_state_dict(of_network)
    resumed.load_state_dict(of_stage)
    optimiser = torch.optim.AdamW(resumed.trainable_parameters(), lr=1e-3)
    optimiser.load_state_dict(of_optimiser)
    figures, _ = train(resumed, 2, optimiser, first=2)
    assert figures == expected


def test_same_seed_builds_the_same():
    one, same = stages(COCO), stages(COCO)
    for name in ("paraphraser", "critic"):
        for a, b in zip(one[name].network.parameters(), same[name].network.parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(("method", "term"), [(COCO, "adversarial"), (SKD, "holistic")])
@pytest.mark.parametrize("conditioned", [True, False])
def test_critic_sees_the_image_if_asked(method, term, conditioned):
    stage = stages(method, condition_on_image=conditioned)["student"]
    assert stage.learned[term].critic.image_channels == (3 if conditioned else 0)
    figures, _ = train(stage, 1)
    assert f"{term}/distance" in figures[0]


def test_critic_is_conditioned_by_default_in_coco_and_not_in_skd():
    """CoCo's paper concatenates the image; SKD's code scores the output alone."""
    assert COCO.settings().condition_on_image
    assert not SKD.settings().condition_on_image


@pytest.mark.parametrize("variant", ["pixel", "pair", "holistic", "pixel-pair"])
def test_parts_of_skd(variant):
    made = stages(SKD.preset(variant))
    assert list(made) == ["student"]
    assert "-".join(term.name for term in made["student"].terms) == variant


def test_skd_of_its_authors():
    """Each term of ``skd:authors`` by hand, from what the authors' code computes (its script: pi 10, pa 0.5, d 0.1)."""
    stage = stages(SKD.preset("authors"), 7)["student"]
    assert {term.name: term.weight for term in stage.terms} == {"pixel": 10.0, "pair": 0.5, "holistic": 0.1}
    pixel, pair_term, holistic = stage.terms
    student, teacher = torch.randn(2, 7, SIDE, SIDE), torch.randn(2, 7, SIDE, SIDE)
    eighths = [nn.functional.avg_pool2d(z, 8).double() for z in (student, teacher)]
    by_hand = -(eighths[1].softmax(1) * eighths[0].log_softmax(1)).sum() / (SIDE // 8) ** 2
    assert pixel.loss(student, teacher).item() == pytest.approx(by_hand.item(), rel=1e-5)

    feature_s, feature_t = torch.rand(2, 5, 9, 9, requires_grad=True), torch.rand(2, 6, 9, 9)
    value = pair_term.loss(feature_s, feature_t)
    value.backward()
    graphs = []
    for feature in (feature_s, feature_t):
        nodes = nn.functional.max_pool2d(feature, 4, ceil_mode=True)
        unit = (nodes / nodes.norm(dim=1, keepdim=True).detach()).flatten(2)
        graphs.append(torch.einsum("nci,ncj->nij", unit, unit))
    expected = (graphs[1].detach() - graphs[0]).square().sum() / 9**2 / 2
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(feature_s.grad, torch.autograd.grad(expected, feature_s)[0])

    critic = stage.learned["holistic"]
    assert holistic.student_taps == ("logits",)
    assert critic.critic.normalise is not None
    assert (critic.reads, critic.stride, critic.learning_rate, critic.weight) == ("logits", 8, 4e-4, 0.1)
    assert isinstance(critic._optimiser, torch.optim.SGD)


def test_more_pairs_of_layers():
    layers = ("encoder.0", "@shallow", "segmentation_head.0", "@deep")
    made = stages(COCO, student_layers=layers, teacher_layers=layers, adversarial_weight=0.0)
    assert len(made["paraphraser"].network.layers) == 4
    figures, _ = train(made["student"], 1)
    assert figures[0]["correlation"] >= 0
    made = stages(SKD, student_layers=("@shallow", "@deep"), teacher_layers=("@shallow", "@deep"))
    assert [term.name for term in made["student"].terms] == ["pixel", "pair", "pair_2", "holistic"]


def test_layers_that_do_not_fit_are_refused_before_training():
    with pytest.raises(ConfigurationError, match="3 student layers but 2 teacher layers"):
        stages(COCO, student_layers=("encoder.0", "encoder.1", "decoder"))
    three = ("encoder.0", "encoder.1", "decoder")
    with pytest.raises(ConfigurationError, match="pairs of layers, but there are 3"):
        stages(COCO, student_layers=three, teacher_layers=three)
    stages(COCO.preset("ss"), student_layers=three, teacher_layers=three)
    with pytest.raises(ConfigurationError, match="compares layers in pairs"):
        stages(SKD, student_layers=("encoder.0", "decoder"))
    with pytest.raises(ConfigurationError, match="no layer 'nowhere'"):
        stages(COCO, teacher_layers=("nowhere", "decoder"))
