"""What every room shares: where the real data lies, and how many threads torch has."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
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


@pytest.fixture(scope="session")
def regions_of():
    """A function of two small masks: their regions, labelled with scipy a pair of classes at a time."""
    return _regions_of


def _regions_of(first, second, classes, *, downsample=1.0, mpp=(0.5, 0.5), made_by=None):
    from scipy import ndimage

    from napari_kdseg.comparison.regions.table import COLUMNS, Compared, RegionTable

    found = []
    for one, other in sorted(set(zip(first[first != second], second[first != second], strict=True))):
        labels, count = ndimage.label((first == one) & (second == other), np.ones((3, 3)))
        for number in range(1, count + 1):
            y, x = np.nonzero(labels == number)
            longest = max(np.split(np.arange(len(y)), np.flatnonzero(np.diff(y)) + 1), key=len)
            middle = longest[len(longest) // 2]
            found.append((y[0], x[0], one, other, y, x, y[middle], x[middle]))
    rows = np.zeros(len(found), COLUMNS)
    for number, (_, _, one, other, y, x, inside_y, inside_x) in enumerate(sorted(found, key=lambda f: f[:2])):
        row = rows[number]
        row["region"], row["first_class"], row["second_class"] = number, one, other
        row["kind"] = 1 if other == 0 else 2 if one == 0 else 3
        row["area_px"] = len(y)
        row["area_mm2"] = len(y) * downsample**2 * mpp[0] * mpp[1] * 1e-6 if mpp else np.nan
        row["y0"], row["y1"] = y.min() * downsample, (y.max() + 1) * downsample
        row["x0"], row["x1"] = x.min() * downsample, (x.max() + 1) * downsample
        row["centre_y"], row["centre_x"] = ((side.mean() + 0.5) * downsample - 0.5 for side in (y, x))
        row["inside_y"], row["inside_x"] = inside_y * downsample, inside_x * downsample
        row["gap"] = np.nan if number % 7 == 3 else (number * 37 % 100) / 100
        row["depth_px"] = row["depth_um"] = 1 + number
    about = Compared(
        "teacher", "student", classes, (downsample, downsample), mpp, made_by=made_by or {"n": 1}
    )
    return RegionTable(rows, about)
