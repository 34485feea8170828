"""Old mask stores: every pixel reads as it was, and jobs that were stopped go on in them."""

from __future__ import annotations

import csv
import hashlib
import json

import numpy as np
import pytest

from napari_kdseg.codes import MENDED_BY
from napari_kdseg.comparison import CorrectConfig, correct, summarise
from napari_kdseg.inference import PredictConfig, predict
from napari_kdseg.jobs import Done, Failed, Message, run_inline
from napari_kdseg.masks import ExportConfig, export_masks, open_masks

REGION = (0, 0, 64, 160)
PROBABILITY_STEP = 1 / 254
"""A stored probability is rounded to 254 parts."""


def finish(job, config):
    running = run_inline(job, config)
    assert isinstance(running.end, Done), running.end
    return running.end.result, [event.text for event in running.history if isinstance(event, Message)]


def predicted(old, mask: str, tile: int, **changes) -> PredictConfig:
    return PredictConfig(
        slide=str(old / "slide.tif"),
        output=old / "masks" / "slide.ome.zarr",
        networks={mask: old / "runs" / "finished" / "checkpoints" / "student.safetensors"},
        tile=tile,
        batch_size=1,
        precision="float32",
        device="cpu",
        threads=1,
        **changes,
    )


def corrected(old, region, halo: int = 16) -> CorrectConfig:
    return CorrectConfig.from_run(
        old / "runs" / "finished",
        slide=str(old / "slide.tif"),
        annotation=str(old / "slide.gland.tif"),
        output=old / "masks" / "slide.ome.zarr",
        region=region,
        tile=64,
        halo=halo,
        device="cpu",
    )


def test_every_pixel_of_every_mask(old):
    """Packed and unpacked, whole and begun, labels and probabilities, each level of them."""
    masks = open_masks(old / "masks" / "slide.ome.zarr")
    by_folder = {f"{mask.path.parent.name}/{mask.path.name}": mask for mask in masks.values()}
    expected = json.loads((old / "expected" / "masks.json").read_text())
    assert len(masks) == len(expected)
    for place, levels in expected.items():
        mask = by_folder[place]
        assert [list(level.shape) for level in mask.levels] == [level["shape"] for level in levels]
        for level, known in zip(mask.levels, levels, strict=True):
            pixels = np.ascontiguousarray(level[:, :])
            assert hashlib.sha256(pixels.tobytes()).hexdigest() == known["sha256"], place
        assert mask.downsamples == ((1.0, 1.0), (2.0, 2.0), (4.0, 4.0))
        assert mask.mpp == (1.0, 1.0)
    assert (masks["student"].classes, masks["teacher"].classes) == (("background", "gland"),) * 2
    assert len(set(masks["student"].colours)) == 2


def test_what_they_say_of_themselves(old):
    masks = open_masks(old / "masks" / "slide.ome.zarr")
    student = masks["student"].metadata
    assert (student["status"], student["regions"]) == ("complete", [None])
    assert student["made_by"]["checkpoint"]["name"] == "student.safetensors"
    assert masks["half"].metadata["status"] == "unfinished"
    mended = masks["mended_by"]
    assert mended.metadata["regions"] == [list(REGION)]
    values = np.bincount(mended.levels[0][:, :].ravel(), minlength=256)
    counts = mended.metadata["counts"]
    by_step = [sum(by_class) for by_class in counts["mended"].values()]
    assert values[1:5].tolist() == by_step, "codes of the map: right, then by whom it was mended"
    assert values[0] == counts["labelled"] - counts["wrong"][0]
    assert mended.colours == tuple(meaning.colour for meaning in MENDED_BY.values())


def test_a_stopped_prediction_goes_on(old):
    """From the journal: what is done is kept; the rest gives the classes that the same network gave in one go."""
    before = open_masks(old / "masks" / "slide.ome.zarr")
    done = before["half"].levels[0][:, :]
    result, said = finish(predict, predicted(old, "half", tile=32))
    journal = (old / "masks" / "slide.ome.zarr" / "labels" / "half").glob("*/journal.jsonl")
    assert len(list(journal)) == 1
    kept = int((done != 255).sum()) // 32**2
    assert (result.masks["half"].tiles_kept, kept) == (10, 10), "half of it"
    assert not [sentence for sentence in said if "Measuring" in sentence], (
        "what was measured of the model is known"
    )
    after = open_masks(old / "masks" / "slide.ome.zarr")
    half, student = after["half"].levels[0][:, :], after["student"].levels[0][:, :]
    np.testing.assert_array_equal(half[done != 255], done[done != 255])
    sure = after["probabilities/student"].levels[0][:, :] > (0.5 + 2 * PROBABILITY_STEP) * 254
    assert sure.mean() > 0.5
    np.testing.assert_array_equal(half[sure], student[sure])
    assert after["half"].metadata["status"] == "complete"


def test_what_a_worker_of_a_cluster_left_is_taken_over(old):
    """A slab has a journal of its own beside that of the mask."""
    folder = old / "masks" / "slide.ome.zarr" / "labels" / "slabs"
    assert [path.name for path in folder.glob("*/journal-slab-*")] == ["journal-slab-1-1-0.jsonl"]
    result, _ = finish(predict, predicted(old, "slabs", tile=32))
    assert result.masks["slabs"].tiles_kept == 4
    masks = open_masks(old / "masks" / "slide.ome.zarr")
    kept, student = (masks[name].levels[0][64:128, :64] for name in ("slabs", "student"))
    sure = masks["probabilities/student"].levels[0][64:128, :64] > (0.5 + 2 * PROBABILITY_STEP) * 254
    np.testing.assert_array_equal(kept[sure], student[sure])


def test_a_finished_prediction_has_nothing_to_do(old):
    result, _ = finish(predict, predicted(old, "student", tile=64, probabilities=True))
    assert (result.masks["student"].tiles_kept, result.masks["student"].tiles_done) == (6, 0)


def test_a_correction_goes_on_with_the_counts_of_then(old):
    store = old / "masks" / "slide.ome.zarr"
    known = open_masks(store)["mended_by"]
    result, _ = finish(correct, corrected(old, REGION))
    assert (result.tiles_done, result.tiles_kept) == (0, 3)
    assert (result.counts.labelled, list(result.counts.wrong)) == (
        known.metadata["counts"]["labelled"],
        known.metadata["counts"]["wrong"],
    )


def test_a_correction_goes_on_in_the_folder_that_had_another_name(old):
    """``labels/stage`` of then is ``mended_by``; the rest of the slide is added to what is there."""
    store = old / "masks" / "slide.ome.zarr"
    before = open_masks(store)["mended_by"].levels[0][:64, :]
    result, _ = finish(correct, corrected(old, None))
    assert (result.tiles_done + result.tiles_skipped, result.tiles_kept) == (3, 3)
    masks = open_masks(store)
    assert "stage" not in masks
    mended = masks["mended_by"]
    assert mended.path == store / "labels" / "stage"
    np.testing.assert_array_equal(mended.levels[0][:64, :], before)
    assert np.bincount(mended.levels[0][:, :].ravel(), minlength=6)[1:5].tolist() == [
        sum(by_class) for by_class in result.counts.mended.values()
    ]


def test_a_correction_of_then_is_replaced_only_where_that_is_asked_for(old):
    store = old / "masks" / "slide.ome.zarr"
    other = corrected(old, REGION, halo=32)
    refused = run_inline(correct, other)
    assert isinstance(refused.end, Failed)
    assert "made with another halo" in refused.end.message
    finish(correct, other.model_copy(update={"overwrite": True}))
    assert open_masks(store)["mended_by"].metadata["made_by"]["halo"] == 32
    assert [name for name in open_masks(store) if "stage" in name] == []


def test_old_masks_are_compared_and_exported(old):
    store = old / "masks" / "slide.ome.zarr"
    masks = open_masks(store)
    teacher, student = (masks[name].levels[0][:, :] for name in ("teacher", "student"))
    summary = summarise(masks["teacher"], masks["student"])
    assert summary.confusion == [
        [int(((teacher == t) & (student == s)).sum()) for s in (0, 1)] for t in (0, 1)
    ]
    assert summary.student["name"] == "student.safetensors"
    files, _ = finish(
        export_masks, ExportConfig(stores=(store,), output=old / "out", names=("student",), kinds=("csv",))
    )
    with files[0].open(newline="") as file:
        (gland,) = csv.DictReader(file)
    assert gland["class"] == "gland"
    assert float(gland["area_px"]) == (student == 1).sum()
    assert float(gland["area_mm2"]) == pytest.approx((student == 1).sum() / 1e6, rel=1e-5), (
        "six digits are written"
    )


@pytest.mark.parametrize("name", ["stage", "mended_by"])
def test_who_mended_a_pixel_is_exported_under_either_name(old, name):
    """An old script or setting says ``stage``."""
    store = old / "masks" / "slide.ome.zarr"
    codes = open_masks(store)["mended_by"].levels[0][:, :]
    files, _ = finish(
        export_masks, ExportConfig(stores=(store,), output=old / "out", names=(name,), kinds=("csv",))
    )
    assert [file.name for file in files] == ["slide.mended_by.csv"]
    with files[0].open(newline="") as file:
        areas = {row["class"]: float(row["area_px"]) for row in csv.DictReader(file)}
    by_name = {meaning.name: int((codes == code).sum()) for code, meaning in MENDED_BY.items() if code}
    assert {name: area for name, area in areas.items() if area} == {
        name: area for name, area in by_name.items() if area
    }
