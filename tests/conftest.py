"""What every room shares: where the real data lies, and how many threads torch has."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# torch, numpy's BLAS and the processes that tests start read it when they are loaded, which is later than this line.
# One thread a test, so that tests can run side by side; `make test THREADS=2` asks for more.
THREADS = int(os.environ.setdefault("OMP_NUM_THREADS", "1"))


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


@pytest.fixture(autouse=True)
def _threads():
    """A test that changes how many threads torch has changes it for itself alone."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(THREADS)
