"""The face of the room: every name it lists is there, and none of it is loaded before it is used."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

from napari_kdseg import slides


@pytest.mark.parametrize("name", slides.__all__)
def test_every_name_is_there(name):
    assert getattr(slides, name) is not None


def test_no_name_is_that_of_a_module():
    """Importing such a module would put the module in the place of what the face hands out."""
    modules = {module.name for module in pkgutil.iter_modules(slides.__path__)}
    assert not modules & set(slides.__all__)


def test_nothing_is_loaded_before_it_is_used():
    code = (
        "import sys, napari_kdseg.slides as slides;"
        "heavy = {'numpy', 'zarr', 'openslide', 'shapely', 'skimage'} & set(sys.modules);"
        "assert not heavy, heavy;"
        "assert slides.open_slide and 'openslide' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
