"""Compare methods in the Distil dock: a study from the form, its table, its report, and what does not work."""

from __future__ import annotations

from napari_kdseg.study import Table

WAIT = 120_000


def test_methods_are_compared_from_the_dock(dock, qtbot, tiles, tmp_path):
    distil = dock("3 Distil")
    study = distil.study
    study.methods.setText("alone, kd")
    study.seeds.setText("0")
    study.shares.setText("50")
    study.steps.setText("2")
    study.output.set_path(tmp_path / "study")
    assert distil.compare() is None
    assert "folder" in distil.problem.text()

    distil.folder.set_path(tiles)
    distil.networks.fill(*small_networks())
    distil.run_form.fill({"teacher_epochs": 1, "batch_size": 4})
    distil.data_form.fill({"input_size": 32})
    study.shares.setText("half")
    assert distil.compare() is None
    assert "Labels" in study.problem.text()
    study.shares.setText("50")
    study.methods.setText("alone, kdd")
    assert distil.compare() is None
    assert "no distillation method 'kdd'" in study.problem.text()

    study.methods.setText("alone, kd")
    job = distil.compare()
    assert job is not None
    qtbot.waitUntil(lambda: not job.alive, timeout=WAIT)
    assert "Done: 3 of 3 runs" in study.state.text(), study.problem.text()
    assert [study.table.item(place, 0).text() for place in range(3)] == ["teacher", "alone", "kd"]
    rows = Table(tmp_path / "study").rows
    assert {study.table.item(place, 2).text() for place in range(3)} == {
        f"{row.test_dice:.3f}" for row in rows
    }
    assert not study.report.isHidden()
    assert (tmp_path / "study" / "report.html").is_file()


def small_networks():
    from napari_kdseg.training import NetworkChoice

    teacher = NetworkChoice(
        architecture="unet/tu-resnet18", options={"encoder_depth": 3, "decoder_channels": [16, 8, 8]}
    )
    return teacher, NetworkChoice(architecture="enet"), ()
