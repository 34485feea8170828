"""Whether jobs in the window may keep memory is for its owner to say."""

from __future__ import annotations

import pytest
from napari.settings import get_plugin_settings

from napari_kdseg import memory
from napari_kdseg.slides.writing.synthesise import SynthConfig
from napari_kdseg.widgets.state.job_handle import JobHandle


@pytest.mark.parametrize("chosen", [False, True])
def test_a_job_in_the_window_keeps_memory_only_if_the_preferences_say_so(
    qtbot, tmp_path, monkeypatch, chosen
):
    monkeypatch.setattr(memory, "_given_to_jobs", False)
    monkeypatch.setattr(get_plugin_settings("napari-kdseg").results, "keep_memory", chosen)
    config = SynthConfig(output=tmp_path / "slide.tif", width=64, height=64, tile=64)
    handle = JobHandle("synth", "a slide", "napari_kdseg.slides.writing.synthesise:synthesise", config)
    qtbot.waitUntil(lambda: not handle.alive, timeout=60_000)
    assert (tmp_path / "slide.tif").exists()
    assert memory._given_to_jobs is chosen
