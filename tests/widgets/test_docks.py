"""Each dock by itself: what it says when empty, when something does not fit, and that nothing is loaded too early."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError
from qtpy.QtWidgets import QScrollArea

from napari_kdseg.colours import VERMILION, as_hex
from napari_kdseg.widgets import binding as layers
from napari_kdseg.widgets.binding import session_of
from napari_kdseg.widgets.views.views import VIEWS
from napari_kdseg.widgets.workspace import DOCKS, open_workspace

WAIT = 60_000


def test_the_menu_entry_arranges_everything_and_makes_room(viewer, dock, qtbot):
    dock("Workspace")
    qtbot.waitUntil(lambda: "KD Seg status" in viewer.window.dock_widgets)
    names = set(viewer.window.dock_widgets)
    assert all(any(name.startswith(wanted) for name in names) for wanted in DOCKS)
    assert not any(name.startswith("Workspace") for name in names)


def test_workspace_opens_everything_once(viewer):
    docks = open_workspace(viewer)
    assert {"1 Slide", "2 Models", "3 Distil", "4 Compare", "KD Seg status"} == set(docks)
    open_workspace(viewer)
    assert len(viewer.window.dock_widgets) == 5


@pytest.mark.parametrize("name", DOCKS)
def test_a_dock_fits_its_width(dock, name):
    """With the longest texts, and beside a scroll bar."""
    opened = dock(name)
    if name == "4 Compare":
        mended_by = {1: ("false-pixel-aware assistant", "123,456,789 px", "98.81 %")}
        opened.disagreement.show_counts({"mended_by": mended_by, "disagreement": {}, "agreement": ""})
    if name == "3 Distil":
        opened.method.setCurrentText("emkd-paper")
        opened.advanced.open(True)
    area = opened.findChild(QScrollArea)
    for view in VIEWS if name == "4 Compare" else [None]:
        if view is not None:
            opened.views.views.show(view)
        assert area.widget().minimumSizeHint().width() <= 345, view


def test_opening_the_docks_loads_no_torch():
    code = (
        "import napari, sys;"
        "viewer = napari.Viewer(show=False);"
        "from napari_kdseg.widgets.workspace import open_workspace;"
        "open_workspace(viewer);"
        "assert 'torch' not in sys.modules;"
        "viewer.close()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_state_belongs_to_the_viewer(viewer, dock):
    first = dock("2 Models").session
    assert dock("4 Compare").session is first is session_of(viewer)


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing.svs", "There is no slide"), ("notes.svs", "notes.svs"), ("empty.tif", "empty.tif")],
)
def test_file_that_is_no_slide_is_said_in_the_dock(dock, qtbot, tmp_path, name, words):
    (tmp_path / "notes.svs").write_text("these are my notes")
    (tmp_path / "empty.tif").touch()
    slide_dock = dock("1 Slide")
    slide_dock.open(str(tmp_path / name))
    qtbot.waitUntil(
        lambda: words in slide_dock.note.text() and "Opening" not in slide_dock.note.text(), timeout=WAIT
    )


def test_checkpoint_that_is_none_is_said_in_its_card(dock, qtbot, tmp_path):
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(b"not a checkpoint at all")
    card = dock("2 Models").cards["teacher"]
    card._load(str(path))
    qtbot.waitUntil(lambda: "teacher.safetensors" in card.problem.text(), timeout=WAIT)
    assert "teacher" not in card.session.models


def test_distil_needs_data_and_says_so(dock):
    distil = dock("3 Distil")
    assert distil.start() is None
    assert "folder" in distil.problem.text()


def test_folder_without_masks_is_said(dock, qtbot, tmp_path):
    distil = dock("3 Distil")
    (tmp_path / "images").mkdir()
    distil.look_at_data(str(tmp_path))
    qtbot.waitUntil(lambda: "Looking" not in distil.data_note.text(), timeout=WAIT)
    assert as_hex(VERMILION) in distil.data_note.styleSheet()


def test_configuration_survives_the_form(dock, tiles, tmp_path):
    from napari_kdseg.training import DistillConfig

    distil = dock("3 Distil")
    distil.folder.set_path(tiles)
    distil.run_form.fill({"epochs": 7, "batch_size": 4})
    distil.method.setCurrentText("kd")
    made = distil.configuration()
    made.save(tmp_path / "saved.json")
    distil.run_form.fill({"epochs": 1})
    distil.fill(DistillConfig.load(tmp_path / "saved.json"))
    assert distil.configuration() == made
    assert (made.epochs, made.method) == (7, "kd")


def test_further_teachers_can_be_added_and_removed(dock, tiles, tmp_path):
    distil = dock("3 Distil")
    distil.folder.set_path(tiles)
    distil.method.setCurrentText("kd+cwd@2")
    with pytest.raises(ValidationError, match="learns from 2 teachers"):
        distil.configuration()
    rows = [distil.networks._add() for _ in range(3)]
    for row, name in zip(rows, ("enet", "unet/resnet18", "linknet/resnet18"), strict=True):
        row.architecture.setCurrentText(name)
    rows[2].form.fill({"input_size": 128})
    distil.networks._remove(rows[1])
    made = distil.configuration()
    assert [choice.architecture for choice in made.more_teachers] == ["enet", "linknet/resnet18"]
    assert [choice.input_size for choice in made.more_teachers] == [None, 128]
    distil.networks.fill(made.teacher, made.student)
    assert distil.networks.rows == []
    distil.fill(made)
    assert distil.configuration() == made


def test_what_the_form_does_not_show_is_kept(dock, tiles, tmp_path):
    from napari_kdseg.training import DataConfig, DistillConfig, NetworkChoice, OptimiserConfig

    distil = dock("3 Distil")
    config = DistillConfig(
        data=DataConfig(folder=tiles, classes=("background", "gland"), seed=5),
        teacher=NetworkChoice(architecture="unet/resnet18", options={"encoder_depth": 3}, input_size=96),
        optimiser=OptimiserConfig(learning_rate=0.002, clip=0.5),
        settings={"boundary_width": 3},
        threads=1,
        previews=True,
        output=tmp_path / "run",
    )
    distil.fill(config)
    kept = distil.configuration()
    assert kept.settings["boundary_width"] == 3
    assert kept.model_dump(exclude={"settings"}) == config.model_dump(exclude={"settings"})


def test_gigapixel_sample_computes_only_what_is_shown(viewer, qtbot):
    from napari_kdseg.slides.pixels.cache import default_cache

    viewer.open_sample("napari-kdseg", "annotated-synthetic-slide")
    session = session_of(viewer)
    assert session.slide is not None
    assert session.annotation is not None
    layer = layers.find(viewer, "slide")
    assert layer.data[0].shape[:2] == (80_000, 100_000)
    viewer.scene.camera.center = (10_000, 12_000)
    viewer.scene.camera.zoom = 4
    qtbot.wait(300)
    assert default_cache().nbytes < 0.02 * 80_000 * 100_000 * 3


def test_gigapixel_sample_opens_in_little_memory():
    """In a process of its own: what other tests left in memory does not count."""
    code = (
        "import napari, psutil;"
        "from napari_kdseg.widgets import binding as layers;"
        "from napari_kdseg.widgets.view import settle;"
        "viewer = napari.Viewer();"
        "viewer.open_sample('napari-kdseg', 'annotated-synthetic-slide');"
        "settle(2);"
        "viewer.scene.camera.center = (10_000, 12_000);"
        "viewer.scene.camera.zoom = 4;"
        "settle(2);"
        "print(layers.find(viewer, 'slide').data[0].shape, psutil.Process().memory_info().rss);"
        "viewer.close()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = done.stdout.strip().splitlines()[-1]
    assert said.startswith("(80000, 100000, 3)")
    assert int(said.rsplit(maxsplit=1)[1]) < 1.5e9


def test_masks_are_exported_from_the_dock(viewer, dock, qtbot, tmp_path):
    from napari_kdseg.masks import MaskSpec, MaskStore, plan_tiles

    compare = dock("4 Compare")
    assert compare.export.export_to(tmp_path) is None
    assert "no masks" in compare.export.note.text()
    dock("1 Slide").open("synthetic:600x400?seed=1&mpp=0.5")
    qtbot.waitUntil(lambda: compare.session.masks_path() is not None, timeout=WAIT)
    student = MaskSpec("labels", "student", "class", ("background", "gland"), ((0, 0, 0), (0, 158, 115)))
    grid = {"shape": (400, 600), "downsample": (1.0, 1.0), "tile": 512}
    store = MaskStore(compare.session.masks_path(), compare.session.slide)
    with store.begin((student,), **grid, made_by={}) as writer:
        for tile in plan_tiles((400, 600), None, 512, 0):
            writer.write_tile(tile, [np.ones((tile.height, tile.width), np.uint8)])
        writer.finish(None)
    with qtbot.waitSignal(compare.export.export_to(tmp_path / "out").ended, timeout=WAIT):
        pass
    assert "student.csv" in compare.export.note.text()
    (table,) = (tmp_path / "out").glob("*.student.csv")
    assert table.read_text().splitlines()[1].startswith("gland,0.06,240000,1.000000,,1,")
    for kind, box in compare.export.kinds.items():
        box.setChecked(kind == "tiff")
    with qtbot.waitSignal(compare.export.export_to(tmp_path / "picture").ended, timeout=WAIT):
        pass
    assert [file.name.split(".", 1)[1] for file in (tmp_path / "picture").iterdir()] == ["student.ome.tif"]
    compare.export.kinds["tiff"].setChecked(False)
    assert not compare.export.export.isEnabled()
    compare.export.kinds["dicom"].setChecked(True)
    with qtbot.waitSignal(compare.export.export_to(tmp_path / "picture").ended, timeout=WAIT):
        pass
    assert "not a DICOM slide" in compare.export.note.text()
