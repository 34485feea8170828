"""Large blocks stay in memory between jobs, and go back to the system a while after the last."""

from __future__ import annotations

import sys
import time

import numpy as np
import psutil
import pytest

from napari_kdseg import memory

BLOCK = 200 * 2**20


@pytest.mark.skipif(
    sys.platform != "linux", reason="what other systems do with freed memory is theirs to say"
)
def test_memory_stays_for_a_while_and_goes_back(monkeypatch):
    monkeypatch.setattr(memory, "KEPT_S", 1.0)
    memory.give_back()  # what jobs before this one left
    process = psutil.Process()
    before = process.memory_info().rss
    with memory.blocks_kept():
        with memory.blocks_kept():
            np.ones(BLOCK, np.uint8)
        assert process.memory_info().rss > before + BLOCK / 2, "another job goes on"
    end = time.monotonic() + 30
    while process.memory_info().rss > before + BLOCK / 2:
        assert time.monotonic() < end, "it was never given back"
        time.sleep(0.05)
