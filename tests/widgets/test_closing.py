"""Windows and docks that are closed while work is under way: it stops, and nothing is called on what is gone."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from qtpy.QtCore import Signal

import napari_kdseg.widgets as widgets
from napari_kdseg.jobs import Cancelled
from napari_kdseg.widgets.binding import session_of
from napari_kdseg.widgets.parts.cost_box import CostBox
from napari_kdseg.widgets.state.background import pending
from napari_kdseg.widgets.state.job_handle import JobHandle
from napari_kdseg.widgets.state.loaded_models import read_model
from napari_kdseg.widgets.state.prediction_queue import PredictionQueue
from napari_kdseg.widgets.state.session import Session
from napari_kdseg.widgets.workspace import open_workspace

WAIT = 60_000
SLIDE = "synthetic:1500x1000?seed=1&mpp=0.5"
SIGNALS = {
    name
    for made in (Session, PredictionQueue, JobHandle)
    for name, value in vars(made).items()
    if isinstance(value, Signal)
}


@pytest.fixture
def predicting(make_napari_viewer, qtbot, network):
    """A function that opens a window in which one prediction runs and one waits, and returns all three."""
    path = network(2)
    opened = []

    def make():
        viewer = make_napari_viewer(show=True)
        session = session_of(viewer)
        opened.append(session)
        docks = open_workspace(viewer)
        session.open_slide(SLIDE)
        qtbot.waitUntil(lambda: session.masks_path() is not None, timeout=WAIT)
        for role in ("teacher", "student"):
            session.set_model(role, read_model(path))
        models = docks["2 Models"]
        config = models._config(["student"], None).model_copy(
            update={
                "tile": 128,
                "halo": 16,
                "batch_size": 1,
                "precision": "float32",
                "skip_background": False,
            }
        )
        line = session.predictions
        jobs = [
            line.add(role, config.model_copy(update={"networks": {role: path}}))
            for role in ("student", "teacher")
        ]
        qtbot.waitUntil(lambda: jobs[0].latest is not None, timeout=WAIT)
        return viewer, docks, jobs

    yield make
    for session in opened:
        for job in session.predictions.stop():
            job.running.join(60)
    qtbot.waitUntil(lambda: not pending(), timeout=WAIT)


def quiet(capfd, qtlog) -> None:
    """Nothing went wrong that Python or Qt would have told."""
    said = capfd.readouterr()
    assert "Traceback" not in said.err + said.out
    assert "deleted" not in said.err + said.out
    assert not [record for record in qtlog.records if "deleted" in record.message]


def test_the_window_is_closed(predicting, qtbot, qtlog, capfd):
    with qtbot.captureExceptions() as exceptions:
        viewer, docks, (running, waiting) = predicting()
        with qtbot.waitSignal(docks["2 Models"].destroyed, timeout=WAIT):
            viewer.close()
        qtbot.waitUntil(lambda: not running.alive and not pending(), timeout=WAIT)
    assert isinstance(running.running.end, Cancelled)
    assert not waiting.alive
    assert not waiting.history, "it never began"
    assert not exceptions
    quiet(capfd, qtlog)


def test_a_dock_is_closed_and_the_prediction_goes_on(predicting, qtbot, qtlog, capfd):
    with qtbot.captureExceptions() as exceptions:
        viewer, docks, (running, waiting) = predicting()
        with qtbot.waitSignal(docks["2 Models"].destroyed, timeout=WAIT):
            viewer.window.remove_dock_widget(docks["2 Models"])
            docks["2 Models"].deleteLater()
        done = running.latest.done
        qtbot.waitUntil(lambda: running.latest.done > done, timeout=WAIT)
        with qtbot.waitSignals([waiting.ended, running.ended], timeout=WAIT):
            waiting.cancel()
            running.cancel()
        qtbot.waitUntil(lambda: not pending(), timeout=WAIT)
    assert not exceptions
    quiet(capfd, qtlog)


def test_what_a_dock_measures_stops_with_it(viewer, qtbot, network, monkeypatch):
    """A job that only its dock has asked for is of no use without it."""
    monkeypatch.setattr(CostBox, "measures", True)
    from napari_kdseg.inference import CostConfig, Subject

    box = CostBox(session_of(viewer))
    box.want(CostConfig(networks={"student": Subject(network=str(network(2)))}))
    qtbot.waitUntil(lambda: box.job is not None, timeout=WAIT)
    running = box.job.running
    with qtbot.waitSignal(box.destroyed, timeout=WAIT):
        box.deleteLater()
    assert running.control.cancelled
    running.join(60)


def _slots() -> list[tuple[str, ast.expr]]:
    """Place and slot of every connection to a signal of what outlives docks and windows."""
    found = []
    for path in sorted(Path(inspect.getfile(widgets)).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "connect"
                and isinstance(node.func.value, ast.Attribute)
                and node.func.value.attr in SIGNALS
            ):
                found.append((f"{path.name}:{node.lineno}", node.args[0]))
    return found


def test_connections_end_with_their_receiver():
    """Qt ends a connection to a method of a QObject with it, not one to a lambda or a ``partial``."""
    slots = _slots()
    assert len(slots) > 15
    for place, slot in slots:
        assert isinstance(slot, ast.Attribute), f"{place}: {ast.unparse(slot)} outlives its receiver"
