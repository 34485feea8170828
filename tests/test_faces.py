"""The faces of the rooms: every name in a stub is there, and settings are to be had without torch."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import napari_kdseg

SRC = Path(napari_kdseg.__file__).parents[1]
FACES = [".".join(stub.relative_to(SRC).parts[:-1]) for stub in sorted(SRC.rglob("__init__.pyi"))]
#: What can be had of a face before anything that computes or reads slides is imported.
LIGHT = {
    "comparison": (),
    "distillation": ("METHODS", "PlcKdSettings", "Term", "get_method"),
    "inference": ("PredictConfig", "CostConfig", "CostResult"),
    "inference.cluster": ("PredictManyConfig",),
    "inference.export": ("ExportModelConfig",),
    "masks": ("SlideSettings",),
    "networks": ("NetworkSpec", "allow_code", "input_multiple", "inspect", "recommended_networks"),
    "slides": ("SlideError",),
    "study": ("StudyConfig",),
    "training": ("DistillConfig", "TrainingConfig", "describe", "discover"),
}
HEAVY = (
    "torch",
    "timm",
    "segmentation_models_pytorch",
    "dask",
    "zarr",
    "openslide",
    "shapely",
    "skimage",
    "qtpy",
)


@pytest.mark.parametrize("face", FACES)
def test_every_name_is_there_and_none_is_that_of_a_module(face):
    """Importing such a module would put the module in the place of what the face hands out."""
    package = importlib.import_module(face)
    assert package.__all__
    assert not [name for name in package.__all__ if getattr(package, name) is None]
    assert not {module.name for module in pkgutil.iter_modules(package.__path__)} & set(package.__all__)
    with pytest.raises(AttributeError, match="attribute"):
        _ = package.nothing


def test_what_is_light_is_told_of_every_face():
    assert {f"napari_kdseg.{face}" for face in LIGHT} == set(FACES)


def test_what_is_light_loads_nothing_heavy():
    lines = ["import importlib, sys"]
    for face, names in LIGHT.items():
        lines += [f"face = importlib.import_module('napari_kdseg.{face}')"]
        lines += [f"face.{name}" for name in names]
        lines += [f"print('{face}:', *[name for name in {HEAVY} if name in sys.modules])"]
    lines += ["face.distill; assert 'torch' in sys.modules"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    )
    assert [line.strip() for line in done.stdout.splitlines()] == [f"{face}:" for face in LIGHT]
