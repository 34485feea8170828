"""Settings that were saved give the values that they gave, and every one of them."""

from __future__ import annotations

import importlib
import json

import pytest

from napari_kdseg.inference.measuring.card import read_card
from napari_kdseg.study import StudyConfig
from napari_kdseg.training import DistillConfig

MODELS = {
    "convert": "napari_kdseg.slides.writing.convert:ConvertConfig",
    "convert-annotations": "napari_kdseg.masks.export.annotations:ConvertAnnotationsConfig",
    "correct": "napari_kdseg.comparison:CorrectConfig",
    "costs": "napari_kdseg.inference:CostConfig",
    "demo": "napari_kdseg.demo:DemoConfig",
    "distil": "napari_kdseg.training:DistillConfig",
    "export-masks": "napari_kdseg.masks:ExportConfig",
    "export-model": "napari_kdseg.inference.export:ExportModelConfig",
    "predict": "napari_kdseg.inference:PredictConfig",
    "predict-many": "napari_kdseg.inference.cluster:PredictManyConfig",
    "study": "napari_kdseg.study:StudyConfig",
    "synthesise": "napari_kdseg.slides.writing.synthesise:SynthConfig",
}
"""Where the model of each file is imported from; the module may move, the file stays."""


def still_there(saved, read, where: str) -> None:
    """Find all that was saved in what is read; what is new may be beside it."""
    if isinstance(saved, dict):
        assert isinstance(read, dict), where
        for key, value in saved.items():
            assert key in read, f"{where}.{key} is lost"
            still_there(value, read[key], f"{where}.{key}")
    else:
        assert read == saved, where


def test_each_file_is_tried(written):
    assert {path.stem for path in (written / "settings").iterdir()} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_saved_settings(name, written):
    module, _, model = MODELS[name].partition(":")
    text = (written / "settings" / f"{name}.json").read_text()
    read = getattr(importlib.import_module(module), model).model_validate_json(text)
    still_there(json.loads(text), json.loads(read.model_dump_json()), name)


def test_a_configuration_of_the_window_and_of_the_command_line(old):
    """``DistillConfig.load`` is what both call; places in the file are seen from its folder."""
    config = DistillConfig.load(old / "settings" / "distil.json")
    assert config.data.folder == old / "tiles"
    assert config.teacher.checkpoint == old / "settings" / "t.safetensors"
    assert config.trained_stages == {"false_pixel_assistant": old / "settings" / "f.safetensors"}
    assert config.method == "plc-kd+cwd@2"
    assert config.settings["plc_kd_queue_length"] == 128
    study = StudyConfig.load(old / "settings" / "study.json")
    assert [network.architecture for network in study.students] == ["enet", "unet"]
    assert study.settings_of("kd") == {"temperature": 2.0, "kd_weight": 0.7}


def test_configurations_of_old_runs(old):
    for run in ("stopped", "finished"):
        path = old / "runs" / run / "config.json"
        saved = json.loads(path.read_text())
        config = DistillConfig.load(path)
        assert config.data.folder == old / "tiles"
        assert config.output == old / "runs" / run
        read = json.loads(config.model_dump_json())
        for relative in ("output", "data"):
            del saved[relative], read[relative]
        if checkpoint := saved["teacher"].pop("checkpoint"):
            assert config.teacher.checkpoint == (path.parent / checkpoint).resolve()
        still_there(saved, read, run)


def test_what_was_measured_of_a_model(old):
    paths = list((old / "home" / "models").glob("*.json"))
    assert len(paths) == 3
    fields = set()
    for path in paths:
        saved = json.loads(path.read_text())
        read = json.loads(read_card(saved["sha256"]).model_dump_json())
        still_there(saved, read, path.name)
        fields |= {name for name, value in saved.items() if value}
    assert fields >= {"reach", "contexts", "costs"}
