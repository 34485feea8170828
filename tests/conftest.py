"""Fixtures shared by every room: where the real data lies, and small slides made on the spot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real tiles and slides (``KDSEG_DATA``, default ``../shared/data``)."""
    folder = Path(os.environ.get("KDSEG_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}; set KDSEG_DATA to its folder")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _home(tmp_path_factory):
    """Notes that are kept for the next time go into a folder of this test run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDSEG_HOME", str(tmp_path_factory.mktemp("home")))
        yield
