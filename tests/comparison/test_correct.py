from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from pydantic import ValidationError

from napari_kdseg.comparison import CorrectConfig, change_levels, correct, probability_levels
from napari_kdseg.errors import ConfigurationError, DataError
from napari_kdseg.jobs import Cancelled, Control, Done, Failed, Step, run_inline, run_job
from napari_kdseg.masks import open_masks
from napari_kdseg.slides import open_annotation, open_slide

SLIDE = "synthetic:4096x4096?seed=1&mpp=0.5"
BEFORE, AFTER = "probabilities/teacher_on_annotated", "probabilities/corrected_on_annotated"


def config(tmp_path, team, **changes) -> CorrectConfig:
    settings = {
        "slide": SLIDE,
        "annotation": SLIDE,
        "output": tmp_path / "slide.ome.zarr",
        "tile": 64,
        "halo": 16,
    }
    return CorrectConfig(**{**settings, **team, **changes})


def run(settings):
    job = run_inline(correct, settings)
    assert isinstance(job.end, Done), job.end.details
    return job.end.result, job.history


def finest(path, name):
    return np.asarray(open_masks(path)[name].levels[0])


def chunks(path):
    return {
        str(item.relative_to(path)): item.read_bytes()
        for item in sorted(path.rglob("c/*/*"))
        if item.is_file()
    }


def test_the_corrected_soft_label_is_right_everywhere_and_never_gets_worse(tmp_path, team):
    result, history = run(config(tmp_path, team))
    counts = result.counts
    assert result.downsample == (32.0, 32.0)
    assert counts.labelled == 128 * 128
    wrong = counts.wrong
    assert wrong[0] > 0
    assert list(wrong) == sorted(wrong, reverse=True), "no step makes more pixels wrong"
    assert wrong[-1] == 0, "the corrected soft label's arg max is the annotation"
    assert sum(sum(by_class) for by_class in counts.mended.values()) == wrong[0]

    mended_by = finest(result.output, "mended_by")
    assert mended_by.shape == (128, 128)
    for code, step in enumerate(
        ("false_pixel_assistant", "boundary_assistant", "similarity", "fallback"), start=1
    ):
        assert (mended_by == code).sum() == sum(counts.mended[step])
    before = finest(result.output, BEFORE)
    after = finest(result.output, AFTER)
    np.testing.assert_array_equal(before[mended_by == 0], after[mended_by == 0])
    assert (before[mended_by > 0] <= 127).all(), (
        "with two classes a wrong pixel gives the annotated one at most a half"
    )
    assert (after >= 127).all()

    confidence = probability_levels(open_masks(result.output)[AFTER]).levels[0]
    np.testing.assert_allclose(np.asarray(confidence), after / 254, atol=1e-6, equal_nan=False)
    change = change_levels(*(open_masks(result.output)[name] for name in (BEFORE, AFTER)))
    np.testing.assert_allclose(
        np.asarray(change.levels[0]), (after.astype(float) - before) / 254, atol=1e-6, equal_nan=False
    )
    assert change.levels[0].dtype == np.float32
    metadata = open_masks(result.output)["mended_by"].metadata
    assert metadata["counts"]["wrong"] == list(wrong)
    assert metadata["classes"][4] == "fallback"
    assert set(metadata["made_by"]["team"]) == set(team)
    steps = [event for event in history if isinstance(event, Step)]
    assert sum(step.values["wrong_initial"] for step in steps) == wrong[0]
    assert steps[-1].done == steps[-1].total == 4


def test_only_what_is_annotated_is_corrected(tmp_path, team):
    with open_slide(SLIDE) as slide:
        mask = open_annotation(SLIDE, slide).read_scaled(32.0, 0, 0, 128, 128)
    mask[:, 50:] = 255
    mask[25:30] = 255
    path = tmp_path / "annotation.tif"
    tifffile.imwrite(path, mask)
    result, _ = run(config(tmp_path, team, annotation=str(path)))
    assert (result.tiles_done, result.tiles_skipped) == (2, 2)
    for name in ("mended_by", BEFORE, AFTER):
        np.testing.assert_array_equal(finest(result.output, name) == 255, mask == 255)
    change = np.asarray(
        change_levels(*(open_masks(result.output)[name] for name in (BEFORE, AFTER))).levels[0]
    )
    np.testing.assert_array_equal(np.isnan(change), mask == 255)
    assert result.counts.labelled == (mask != 255).sum()


def test_a_stopped_correction_goes_on_to_the_same_bytes_and_counts(tmp_path, team):
    whole, _ = run(config(tmp_path / "whole", team))
    settings = config(tmp_path / "stopped", team)
    control = Control()
    end = run_job(correct, settings, lambda event: isinstance(event, Step) and control.cancel(), control)
    assert isinstance(end, Cancelled)
    assert open_masks(settings.output)["mended_by"].metadata["counts"]["labelled"] == 64 * 64
    result, _ = run(settings)
    assert result.tiles_kept == 1
    assert result.counts == whole.counts
    assert chunks(settings.output) == chunks(whole.output)


def test_steps_that_are_left_out_leave_pixels_wrong_and_say_so(tmp_path, team):
    teacher = {"teacher": team["teacher"]}
    result, _ = run(config(tmp_path, teacher, settings={"use_similarity": False}, region=(0, 0, 100, 100)))
    assert len(set(result.counts.wrong)) == 1
    mended_by = finest(result.output, "mended_by")
    assert (mended_by == 5).sum() == result.counts.wrong[-1] > 0
    assert set(np.unique(mended_by)) == {0, 5, 255}


def test_an_annotation_with_more_classes_than_the_teacher_is_refused(tmp_path, team):
    path = tmp_path / "annotation.tif"
    tifffile.imwrite(path, np.full((128, 128), 4, np.uint8))
    end = run_inline(correct, config(tmp_path, team, annotation=str(path))).end
    assert isinstance(end, Failed)
    assert "class 4" in end.message
    assert "only 0 to 1 (background, gland)" in end.message


def test_soft_labels_of_two_corrections_are_not_subtracted(tmp_path, team):
    masks = []
    for name, changes in [("a", {}), ("b", {"halo": 0})]:
        result, _ = run(config(tmp_path / name, team, region=(0, 0, 10, 10), **changes))
        masks.append(open_masks(result.output))
    with pytest.raises(DataError, match="different corrections"):
        change_levels(masks[0][BEFORE], masks[1][AFTER])


def test_an_annotation_that_was_drawn_over_makes_another_correction(tmp_path, team):
    path = tmp_path / "annotation.tif"
    for value, words in [(0, ""), (1, "another annotation")]:
        tifffile.imwrite(path, np.full((128, 128), value, np.uint8))
        end = run_inline(correct, config(tmp_path, team, annotation=str(path), region=(0, 0, 10, 10))).end
        assert (end.message if isinstance(end, Failed) else "").count(words)


def test_the_team_of_a_run_is_found(tmp_path, team):
    run_folder = team["teacher"].parent.parent
    (run_folder / "config.json").write_text(
        json.dumps({"method": "plc-kd", "settings": {"similarity": "rgb", "temperature": 2.0}})
    )
    settings = CorrectConfig.from_run(
        run_folder, slide=SLIDE, annotation=SLIDE, output=tmp_path / "a.ome.zarr", tile=96
    )
    assert settings.teacher == team["teacher"]
    assert settings.boundary_assistant == team["boundary_assistant"]
    assert settings.settings.similarity == "rgb"
    assert settings.tile == 96
    assert CorrectConfig.model_validate_json(settings.model_dump_json()) == settings
    with pytest.raises(ConfigurationError, match=r"no checkpoints/teacher\.safetensors"):
        CorrectConfig.from_run(tmp_path, slide=SLIDE, annotation=SLIDE, output=tmp_path / "a.ome.zarr")
    with pytest.raises(ValidationError):
        CorrectConfig.from_run(run_folder, slide=SLIDE, annotation=SLIDE, output=tmp_path / "a.zip")
