"""One configuration for window, command and run folder: what is saved is what is loaded, wherever it is loaded from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from napari_kdseg.distillation import PlcKdSettings
from napari_kdseg.errors import ConfigurationError, OutputError, explain
from napari_kdseg.training import (
    AugmentationConfig,
    DataConfig,
    DistillConfig,
    NetworkChoice,
    OptimiserConfig,
)


def test_saved_and_loaded_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = DistillConfig(
        data=DataConfig(folder=Path("tiles")), output=Path("run"), settings={"kd_weight": 2.0}
    )
    config.save("somewhere/config.json")
    monkeypatch.chdir("/")
    loaded = DistillConfig.load(tmp_path / "somewhere" / "config.json")
    assert loaded.data.folder == tmp_path / "tiles"
    assert loaded.output == tmp_path / "run"
    assert loaded.settings == {"kd_weight": 2.0}
    loaded.save(tmp_path / "again.json")
    assert DistillConfig.load(tmp_path / "again.json") == loaded


def test_relative_paths_start_at_the_file(tmp_path):
    path = tmp_path / "study" / "distill.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"data": {"folder": "../tiles"}, "teacher": {"checkpoint": "t.safetensors"}}))
    config = DistillConfig.load(path)
    assert config.data.folder == tmp_path / "tiles"
    assert config.teacher.checkpoint == tmp_path / "study" / "t.safetensors"
    assert config.output == tmp_path / "study" / "run"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not a JSON file"),
        ('{"data": {}}', "data.folder"),
        ('{"data": {"folder": "x"}, "epochs": 0}', "epochs"),
        ('{"data": {"folder": "x"}, "epoch": 3}', "epoch"),
        ('{"data": {"folder": "x"}, "method": "plc"}', "plc-kd"),
        ('{"data": {"folder": "x"}, "settings": {"kd_wait": 3}}', "kd_wait"),
        ('{"data": {"folder": "x"}, "student": {}}', "architecture or give a checkpoint"),
        ('{"data": {"folder": "x", "classes": ["background"]}}', "two different class names"),
        ('{"data": {"folder": "x", "validation_fraction": 0.6, "test_fraction": 0.5}}', "90 %"),
    ],
)
def test_bad_files_are_explained(tmp_path, text, words):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        DistillConfig.load(path)


def test_a_missing_file_and_an_unwritable_place_are_explained(tmp_path):
    with pytest.raises(ConfigurationError, match="does not exist"):
        DistillConfig.load(tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be saved"):
        DistillConfig(data=DataConfig(folder=tmp_path)).save(tmp_path / "file" / "c.json")


def test_settings_may_be_the_model_of_the_method():
    config = DistillConfig(data=DataConfig(folder=Path("x")), settings=PlcKdSettings(kd_weight=3.0))
    assert config.settings["kd_weight"] == 3.0
    with pytest.raises(ValidationError) as caught:
        DistillConfig(data=DataConfig(folder=Path("x")), settings={"kd_weight": -1})
    assert "kd_weight" in explain(caught.value)


def test_differences_name_what_computes_something_else(tmp_path):
    config = DistillConfig(data=DataConfig(folder=tmp_path), output=tmp_path)
    elsewhere = config.model_copy(
        update={"output": tmp_path / "b", "device": "cpu", "threads": 3, "previews": True}
    )
    assert config.differences(elsewhere) == []
    spelled_out = config.model_copy(update={"settings": PlcKdSettings().model_dump()})
    assert config.differences(spelled_out) == [], "a constant written down is the same as its default"
    other = config.model_copy(update={"epochs": 99, "student": NetworkChoice(architecture="unet/resnet18")})
    assert config.differences(other) == ["student", "epochs"]


def test_augment_is_a_switch_or_says_how(tmp_path):
    """Configurations saved before there was a choice hold true or false."""
    for value in (True, False):
        old = DistillConfig.model_validate({"data": {"folder": tmp_path}, "augment": value})
        assert (old.augment, old.augmentation) == (value, AugmentationConfig())
    for how in ({"blur": 2.0}, AugmentationConfig(blur=2.0)):
        config = DistillConfig.model_validate({"data": {"folder": tmp_path}, "augment": how})
        assert (config.augment, config.augmentation.blur) == (True, 2.0)
    config.augment = False
    assert not config.augment
    assert config.augmentation.blur == 2.0, "what it was is not forgotten"
    config.save(tmp_path / "c.json")
    loaded = DistillConfig.load(tmp_path / "c.json")
    assert (loaded.augment, loaded.augmentation) == (False, config.augmentation)
    with pytest.raises(ValidationError) as caught:
        DistillConfig.model_validate({"data": {"folder": tmp_path}, "augment": {"blurr": 1}})
    assert "blurr" in explain(caught.value)


def test_every_field_has_words_for_the_form():
    for model in (AugmentationConfig, DataConfig, DistillConfig, NetworkChoice, OptimiserConfig):
        for name, field in model.model_fields.items():
            assert field.title, f"{model.__name__}.{name} has no title"
