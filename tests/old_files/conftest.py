"""Copies of the old files, for opening one may write beside it."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest
import torch

WRITTEN = Path(__file__).parent / "written"


@pytest.fixture(scope="session")
def written() -> Path:
    """The old files themselves, only to be looked at."""
    return WRITTEN


@pytest.fixture
def old(tmp_path, monkeypatch) -> Path:
    """A copy of the old files; ``home`` in it is the results folder."""
    folder = tmp_path / "old"
    shutil.copytree(WRITTEN, folder)
    monkeypatch.setenv("KDSEG_HOME", str(folder / "home"))
    return folder


@pytest.fixture
def old_enet(old) -> Path:
    """A copy of the old files in which ENet's checkpoint and run are unpacked."""
    with tarfile.open(old / "enet.tar.xz") as archive:
        archive.extractall(old, filter="data")
    return old


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
