"""Names that are text somewhere else: jobs, imports of scripts, commands of the manifest, napari's settings of ours."""

from __future__ import annotations

import importlib
import inspect
import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

TOLD = json.loads((Path(__file__).parent / "written" / "expected" / "names.json").read_text())
MANIFEST = Path(__file__).resolve().parents[2] / "src" / "napari_kdseg" / "napari.yaml"


def found(target: str):
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.fixture(scope="module")
def contributions():
    return yaml.safe_load(MANIFEST.read_text())["contributions"]


@pytest.mark.parametrize("target", TOLD["jobs"])
def test_a_job_by_its_name(target):
    assert [*inspect.signature(found(target)).parameters] == ["config", "emit", "control"]


@pytest.mark.parametrize("module", TOLD["documented"])
def test_imports_that_the_docs_show(module):
    for name in TOLD["documented"][module]:
        assert found(f"{module}:{name}") is not None, name


def test_the_module_that_launchers_run():
    """``torchrun -m napari_kdseg.cli``, as docs/cluster.md has it."""
    assert find_spec("napari_kdseg.cli.__main__") is not None


def test_commands_of_the_manifest(contributions):
    """The identifiers stay, what they call is there, and so is what they called before."""
    now = {command["id"]: command["python_name"] for command in contributions["commands"]}
    for identifier, before in TOLD["commands"].items():
        assert callable(found(now[identifier]))
        assert callable(found(before))


def test_what_the_manifest_offers(contributions):
    widgets = {widget["display_name"]: widget["command"] for widget in contributions["widgets"]}
    assert widgets.items() >= TOLD["widgets"].items()
    readers = {reader["command"]: {*reader["filename_patterns"]} for reader in contributions["readers"]}
    for command, patterns in TOLD["readers"].items():
        assert readers[command] >= {*patterns}
    samples = {sample["key"]: sample["command"] for sample in contributions["sample_data"]}
    assert samples.items() >= TOLD["sample_data"].items()


def test_preferences_keep_their_names(contributions):
    """napari keeps them in its own file under these."""
    now = {
        section: {name: about["type"] for name, about in part["properties"].items()}
        for section, part in contributions["configurations"].items()
    }
    for section, properties in TOLD["preferences"].items():
        assert now[section].items() >= properties.items(), section
