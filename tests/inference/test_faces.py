"""The faces of inference, masks and comparison: every name is there, and settings are to be had without torch."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

FACES = ("inference", "inference.cluster", "inference.export", "masks", "comparison")
SETTINGS = {
    "inference": ("PredictConfig", "CostConfig", "CostResult"),
    "inference.cluster": ("PredictManyConfig",),
    "inference.export": ("ExportModelConfig",),
    "masks": ("SlideSettings",),
}


@pytest.mark.parametrize("face", FACES)
def test_every_name_is_there_and_none_is_that_of_a_module(face):
    """Importing such a module would put the module in the place of what the face hands out."""
    package = importlib.import_module(f"napari_kdseg.{face}")
    assert package.__all__
    assert not [name for name in package.__all__ if getattr(package, name) is None]
    assert not {module.name for module in pkgutil.iter_modules(package.__path__)} & set(package.__all__)


@pytest.mark.parametrize("face", SETTINGS)
def test_settings_are_to_be_had_without_torch(face):
    code = (
        f"import sys; from napari_kdseg.{face} import {', '.join(SETTINGS[face])};"
        "heavy = {'torch', 'dask', 'zarr', 'openslide'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
