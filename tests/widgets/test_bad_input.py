"""Bad input in the window: a sentence in a napari notification, nothing half-written, the window goes on working."""

from __future__ import annotations

import os

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from PIL import Image

from napari_kdseg.jobs import Done
from napari_kdseg.training import DataConfig, DistillConfig, NetworkChoice
from napari_kdseg.widgets import binding as layers
from napari_kdseg.widgets.binding import session_of

WAIT = 60_000
UNWRITABLE = "/proc/self/kdseg"


@pytest.fixture
def said(qtbot):
    """Wait for a napari notification that holds ``words``, and return it."""
    notification_manager.records.clear()

    def wait(words: str) -> str:
        def texts() -> list[str]:
            return [record.message for record in notification_manager.records]

        qtbot.waitUntil(lambda: any(words in text for text in texts()), timeout=WAIT)
        return next(text for text in texts() if words in text)

    return wait


def open_small_slide(viewer, tmp_path, qtbot):
    """Open a slide of 300 x 400 px: what must still work after every failure."""
    path = tmp_path / "small.png"
    Image.fromarray(np.full((300, 400, 3), 200, np.uint8)).save(path)
    session = session_of(viewer)
    session.open_slide(str(path))
    qtbot.waitUntil(
        lambda: session.slide is not None and session.slide.name == "small.png" and session.masks_path(),
        timeout=WAIT,
    )
    assert layers.find(viewer, "slide") is not None


def settings(tiles, output, **network) -> DistillConfig:
    return DistillConfig(
        data=DataConfig(folder=tiles, input_size=64), method="alone", epochs=1, batch_size=4, device="cpu",
        student=NetworkChoice(**(network or {"architecture": "enet"})), output=output,
    )  # fmt: skip


def test_a_truncated_slide(viewer, dock, qtbot, said, tmp_path, real_data):
    content = (real_data / "slides" / "CMU-1-Small-Region.svs").read_bytes()
    (tmp_path / "half.svs").write_bytes(content[: len(content) // 2])
    dock("1 Slide").open(str(tmp_path / "half.svs"))
    assert said("truncated or damaged").endswith(".")
    assert layers.find(viewer, "slide") is None
    open_small_slide(viewer, tmp_path, qtbot)


def test_a_bad_slide_does_not_take_away_the_good_one(viewer, dock, qtbot, said, tmp_path):
    open_small_slide(viewer, tmp_path, qtbot)
    (tmp_path / "notes.svs").write_text("these are my notes")
    dock("1 Slide").open(str(tmp_path / "notes.svs"))
    said("notes.svs")
    assert session_of(viewer).slide.name == "small.png"


def test_a_mask_of_another_size_than_the_slide(viewer, dock, qtbot, said, tmp_path):
    open_small_slide(viewer, tmp_path, qtbot)
    Image.fromarray(np.ones((300, 100), np.uint8)).save(tmp_path / "mask.png")
    dock("1 Slide").annotations.open(str(tmp_path / "mask.png"))
    said("400")
    assert layers.find(viewer, "annotation") is None


def test_checkpoints_of_different_class_counts(viewer, dock, qtbot, said, network):
    cards = dock("2 Models").cards
    cards["teacher"]._load(str(network(2)))
    qtbot.waitUntil(lambda: "teacher" in session_of(viewer).models, timeout=WAIT)
    cards["student"]._load(str(network(3)))
    assert said("This checkpoint has 3 classes, the teacher card has 2.").endswith("one of them.")


def test_a_student_that_does_not_fit_the_data(dock, qtbot, said, network, tiles, tmp_path):
    distil = dock("3 Distil")
    distil.fill(settings(tiles, tmp_path / "run", checkpoint=network(3)))
    distil.start()
    said("classes")
    assert not (tmp_path / "run").exists()
    distil.fill(settings(tiles, tmp_path / "run"))
    with qtbot.waitSignal(distil.start().ended, timeout=WAIT) as ended:
        pass
    assert isinstance(ended.args[0], Done), ended.args[0]


@pytest.mark.parametrize("case", ["empty folder", "image without a mask", "mask of another size"])
def test_bad_training_data(dock, qtbot, said, tiles, tmp_path, case):
    first = next((tiles / "masks").iterdir())
    if case == "empty folder":
        tiles = tmp_path / "empty"
        tiles.mkdir()
        words = "empty"
    elif case == "image without a mask":
        first.unlink()
        words = first.stem
    else:
        Image.fromarray(np.ones((32, 64), np.uint8)).save(first)
        words = first.stem
    distil = dock("3 Distil")
    distil.fill(settings(tiles, tmp_path / "run"))
    distil.start()
    said(words)
    assert not (tmp_path / "run").exists()
    assert distil.start_button.isEnabled()


@pytest.mark.skipif(
    os.name != "posix" or not os.path.isdir("/proc/self"), reason="needs a place nobody can write to"
)
def test_places_that_cannot_be_written(viewer, dock, qtbot, said, tiles, tmp_path, network, monkeypatch):
    distil = dock("3 Distil")
    distil.fill(settings(tiles, UNWRITABLE))
    distil.start()
    said("cannot be written")
    open_small_slide(viewer, tmp_path, qtbot)
    monkeypatch.setenv("KDSEG_HOME", UNWRITABLE)
    models = dock("2 Models")
    card = models.cards["student"]
    card._load(str(network(2)))
    qtbot.waitUntil(lambda: "student" in session_of(viewer).models, timeout=WAIT)
    notification_manager.records.clear()
    models.predict(["student"], whole=True)
    said("could not be written")
    assert card.whole.isEnabled()
