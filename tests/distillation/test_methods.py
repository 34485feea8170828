from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError

from napari_kdseg.distillation import (
    METHODS,
    AloneSettings,
    KdSettings,
    PlcKdSettings,
    family_of,
    get_method,
    method_names,
)
from napari_kdseg.errors import ConfigurationError

STAGES = {
    "plc-kd": ["false_pixel_assistant", "boundary_assistant", "student"],
    "plc-kd-paper": ["false_pixel_assistant", "boundary_assistant", "student"],
    "plc-kd:f+b": ["false_pixel_assistant", "boundary_assistant", "student"],
    "plc-kd:b+sc": ["boundary_assistant", "student"],
    "plc-kd:f+sc": ["false_pixel_assistant", "student"],
    "plc-kd:sc": ["student"],
    "plc-kd:f": ["false_pixel_assistant", "student"],
    "plc-kd:b": ["boundary_assistant", "student"],
    "plc-kd:vanilla": ["student"],
    "kd": ["student"],
    "alone": ["student"],
}


def test_listing_loads_neither_torch_nor_qt():
    code = (
        "import sys, napari_kdseg.distillation as d; d.method_names(); d.get_method('plc-kd:f+b').settings();"
        "d.PlcKdSettings.model_json_schema(); print([m for m in ('torch', 'qtpy', 'napari') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", STAGES)
def test_each_method_trains(name, tiny_net, lesions):
    """The whole chain, a few steps each: every stage lowers its loss on data it has seen."""
    method = get_method(name)
    assert name in method_names()
    values = {}
    if issubclass(method.settings_class, PlcKdSettings):
        values = {"queue_length": 256, "pixels_per_image": 64, "boundary_width": 2}
    teacher, student = tiny_net(1), tiny_net(2)
    stages = method.stages(teacher, student, method.settings(values), seed=4, input_shape=(3, 24, 24))
    assert [stage.name for stage in stages] == STAGES[name]
    assert stages[-1].network is student
    for stage in stages:
        assert stage.title
        assert stage.to("cpu") is stage
        assert 0 < stage.epochs_factor <= 1 >= stage.learning_rate_factor > 0
        optimiser = torch.optim.Adam(stage.trainable_parameters(), lr=0.02)
        losses = []
        for step in range(25):
            stage.network.train()
            if step % 5 == 0:
                stage.begin_epoch(step // 5, 5)
            optimiser.zero_grad()
            value = stage.loss(*lesions(step % 3))["loss"]
            value.backward()
            optimiser.step()
            losses.append(value.item())
            assert torch.isfinite(value)
        losses = [value for value in losses if value > 0]  # without the warm-up
        assert sum(losses[-3:]) < 0.8 * sum(losses[:3]), stage.name
        assert all(isinstance(value, float) for value in stage.report().values())
    if method.needs_teacher:
        assert not teacher.training
        assert not any(parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.parametrize("classes", [2, 4])
def test_plc_kd_on_several_classes_and_ignored_pixels(tiny_net, lesions, classes):
    image, target = lesions(0, classes=classes, size=19)
    target[:, :2] = 255
    teacher, student = tiny_net(1, classes=classes), tiny_net(2, classes=classes)
    for stage in get_method("plc-kd").stages(teacher, student, PlcKdSettings(warm_up_epochs=0)):
        for n in (1, 4):
            loss = stage.loss(image[:n], target[:n])["loss"]
            loss.backward()
            assert torch.isfinite(loss)
            assert loss > 0
    assert stage.report()["wrong/corrected"] == 0


def test_same_seed_same_run_other_seed_other_run(tiny_net, lesions):
    def first_losses(seed):
        stages = get_method("plc-kd").stages(
            tiny_net(1), tiny_net(2), PlcKdSettings(warm_up_epochs=0), seed=seed
        )
        return [stage.loss(*lesions(0))["loss"].item() for stage in stages[:2]]

    assert first_losses(0) == first_losses(0)
    assert first_losses(0) != first_losses(1)


def test_vanilla_is_kd_on_probabilities(tiny_net, lesions):
    image, target = lesions(0)
    losses = []
    for name in ("plc-kd:vanilla", "kd"):
        method = get_method(name)
        (stage,) = method.stages(tiny_net(1), tiny_net(2), method.settings({"temperature": 2.0}))
        losses.append(stage.loss(image, target)["loss"])
    torch.testing.assert_close(*losses)


def test_presets_and_values():
    assert get_method("plc-kd-paper").settings() == PlcKdSettings(real_fraction=0.0)
    assert get_method("plc-kd:f+b").settings({"temperature": 2}) == PlcKdSettings(
        use_similarity=False, temperature=2
    )
    assert get_method("plc-kd").settings() == PlcKdSettings()
    assert get_method(" KD ").name == "kd"
    for method in METHODS.values():
        assert method.title
        assert method.sentence.endswith(".")
        for preset in method.presets:
            assert method.preset(preset).name == f"{method.name}:{preset}"


def test_names_that_do_not_exist():
    with pytest.raises(ConfigurationError, match=r"no distillation method 'plckd'.*'plc-kd'"):
        get_method("plckd")
    with pytest.raises(ConfigurationError, match=r"no variant 'no-similarity'"):
        get_method("plc-kd:no-similarity")
    with pytest.raises(ConfigurationError, match="has no variant 'x'"):
        get_method("alone:x")
    with pytest.raises(ConfigurationError, match=r"Known are: plc-kd, .*alone"):
        get_method("zzzz")


def test_a_method_refuses_what_does_not_fit(tiny_net):
    with pytest.raises(ConfigurationError, match="needs a teacher"):
        get_method("plc-kd").stages(None, tiny_net())
    with pytest.raises(ConfigurationError, match=r"KdSettings.*PlcKdSettings"):
        get_method("plc-kd").stages(tiny_net(), tiny_net(), KdSettings())
    assert len(get_method("alone").stages(None, tiny_net())) == 1


@pytest.mark.parametrize("model", [AloneSettings, KdSettings, PlcKdSettings])
def test_settings_are_ready_for_a_form(model):
    for name, description in model.model_json_schema()["properties"].items():
        assert description["title"], name
        assert description["description"].endswith("."), name
        assert "default" in description, name
        kinds = description.get("anyOf", [description])
        for kind in kinds:
            if kind["type"] in ("integer", "number"):
                assert kind.keys() & {"minimum", "exclusiveMinimum"}, name
                assert kind.keys() & {"maximum", "exclusiveMaximum"}, name
    assert model(**model().model_dump()) == model()


def test_settings_name_the_symbols_of_the_paper():
    properties = PlcKdSettings.model_json_schema()["properties"]
    symbols = {name: field["symbol"] for name, field in properties.items() if "symbol" in field}
    assert symbols["boundary_width"] == "δ"
    assert symbols["swap_fraction"] == "ρ"
    assert symbols["kd_weight"] == "λ"
    assert symbols["temperature"] == "τ"
    assert symbols["pixels_per_image"] == "k"


@pytest.mark.parametrize(
    "values",
    [{"real_fraction": 1.5}, {"boundary_width": 0}, {"rule": "maybe"}, {"delta": 3}, {"temperature": 0}],
)
def test_settings_refuse_nonsense(values):
    with pytest.raises(ValidationError):
        PlcKdSettings(**values)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("plc-kd", "plc-kd"),
        ("plc-kd:f+b", "plc-kd"),
        ("plc-kd-paper", "plc-kd-paper"),
        ("emkd-paper:imd+rad", "emkd-paper"),
        ("plc-kd:f+b@2", "plc-kd"),
        ("kd@2", "kd@2"),
        ("kd+cwd:features", "kd+cwd:features"),
        ("cwd:features+kd", "cwd:features+kd"),
        ("plc-kd:f+sc+kd", "plc-kd:f+sc+kd"),
        ("PLC-KD:f+b", "PLC-KD"),
        ("teacher", "teacher"),
        ("gone:long-ago", "gone"),
    ],
)
def test_what_a_name_is_a_variant_of(name, family):
    assert family_of(name) == family
