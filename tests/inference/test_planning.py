"""How a prediction is settled: a network is loaded once, a thing measured once, and all is kept in one write."""

from __future__ import annotations

import pytest

from napari_kdseg.inference import PredictConfig, predict, prepare
from napari_kdseg.inference.measuring import card as cards
from napari_kdseg.inference.measuring.card import ModelCard, Reach, keep_measurements, read_card
from napari_kdseg.inference.measuring.context import Context
from napari_kdseg.inference.measuring.tuning import Tuning
from napari_kdseg.inference.network import loading
from napari_kdseg.inference.provenance import file_sha256
from napari_kdseg.jobs import Cancelled, Control, Done, Message, run_inline, run_job


@pytest.fixture(autouse=True)
def own_results(tmp_path, monkeypatch):
    """Cards of this test alone, and no network in memory."""
    monkeypatch.setenv("KDSEG_HOME", str(tmp_path / "home"))
    loading._load.cache_clear()


@pytest.fixture
def writes(monkeypatch) -> list[bytes]:
    """What is written to cards."""
    written: list[bytes] = []
    write = cards.write_whole

    def observed(path, content):
        written.append(content)
        return write(path, content)

    monkeypatch.setattr(cards, "write_whole", observed)
    return written


def config(tmp_path, networks, **changes) -> PredictConfig:
    settings = {
        "slide": "synthetic:200x200?seed=1&mpp=0.5",
        "networks": networks,
        "output": tmp_path / "slide.ome.zarr",
        "tile": 64,
        "batch_size": 1,
        "precision": "float32",
        "skip_background": False,
    }
    return PredictConfig(**{**settings, **changes})


def test_what_was_measured_is_added_to_what_was_known():
    sha = "0" * 64
    tuning = {name: Tuning(tile=256, batch_size=size, mpx_per_s=1.0) for size, name in enumerate("abc", 1)}
    context = Context(halo=32, radius=64)
    keep_measurements(
        ModelCard(sha256=sha, reach=Reach(radius=64), tunings={"a": tuning["a"], "b": tuning["a"]})
    )
    keep_measurements(ModelCard(sha256=sha, contexts={"slide": context}, tunings={"b": tuning["b"]}))
    assert read_card(sha) == ModelCard(
        sha256=sha,
        reach=Reach(radius=64),
        contexts={"slide": context},
        tunings={"a": tuning["a"], "b": tuning["b"]},
    )


def test_a_network_that_sees_the_whole_image_is_a_measurement_too(writes):
    keep_measurements(ModelCard(sha256="0" * 64, reach=Reach(radius=None)))
    assert len(writes) == 1
    assert read_card("0" * 64).reach == Reach(radius=None)


def test_all_that_a_plan_needs_is_written_at_once_and_never_measured_again(tmp_path, checkpoint, writes):
    settings = config(tmp_path, {"student": checkpoint}, halo="auto", tile="auto")
    first = run_inline(prepare, settings)
    assert isinstance(first.end, Done), first.end
    assert len(writes) == 1
    card = read_card(file_sha256(checkpoint))
    assert card.reach is not None
    assert (len(card.contexts), len(card.tunings)) == (1, 1)
    second = run_inline(prepare, settings)
    assert second.end.result == first.end.result
    assert len(writes) == 1
    assert not [event for event in second.history if isinstance(event, Message)]


def test_a_job_that_is_stopped_keeps_what_it_has_measured(tmp_path, checkpoint):
    """Looked at before the next measurement, so that the context is measured, and the fastest tile is not."""
    control = Control()

    def stop(event):
        if isinstance(event, Message) and "how much context" in event.text:
            control.cancel()

    settings = config(tmp_path, {"student": checkpoint}, halo="auto", tile="auto")
    assert isinstance(run_job(prepare, settings, stop, control), Cancelled)
    card = read_card(file_sha256(checkpoint))
    assert card.reach is not None
    assert (len(card.contexts), len(card.tunings)) == (1, 0)


def test_each_network_is_loaded_once_however_many_there_are(tmp_path, make_network, monkeypatch):
    """Also where memory keeps fewer than take part."""
    count = loading.KEPT + 1
    paths = {
        f"mask{index}": make_network(tmp_path / f"{index}.safetensors", seed=index, mpp=0.5)
        for index in range(count)
    }
    loaded, load = [], loading.load
    monkeypatch.setattr(loading, "load", lambda path, **options: loaded.append(path) or load(path, **options))
    end = run_inline(predict, config(tmp_path, paths, halo=32)).end
    assert isinstance(end, Done), end
    assert sorted(loaded) == sorted(paths.values())
