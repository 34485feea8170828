"""The job against brute force over whole arrays: several tiles, odd sides, and a downsample that is no whole number."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import shapely
from scipy import ndimage

from napari_kdseg.comparison import (
    CompareConfig,
    cell_levels,
    compare,
    difference_levels,
    kept_regions,
    mask_levels,
    write_results,
)
from napari_kdseg.comparison import areas as areas_module
from napari_kdseg.comparison import whole_slide as job_module
from napari_kdseg.comparison.areas import open_together, region_scores
from napari_kdseg.comparison.regions.table import RegionTable
from napari_kdseg.errors import InTheWayError, KdsegError
from napari_kdseg.jobs import Control, JobCancelled, Step
from napari_kdseg.masks import open_masks
from napari_kdseg.slides import AnnotationShape, open_slide
from napari_kdseg.training.scores.surfaces import surface_scores

SLIDE = "synthetic:331x277?seed=1&mpp=0.5"
SHAPE, DOWNSAMPLE = (111, 133), (277 / 111, 331 / 133)  # 2.495 and 2.489: no whole number
SPACING = 0.5 * np.sqrt(DOWNSAMPLE[0] * DOWNSAMPLE[1])


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Several tiles on a small slide."""
    monkeypatch.setattr(areas_module, "TILE", 48)
    monkeypatch.setattr(job_module, "TILE", 48)


def blobs(seed, shape=SHAPE):
    random = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(random.random(shape), 5)
    return np.digitize(noise, np.quantile(noise, [0.6, 0.85])).astype(np.uint8)


@pytest.fixture
def given():
    """A teacher, a student with planted errors, and a reference that is not annotated everywhere."""
    reference = blobs(3)
    teacher, student = reference.copy(), reference.copy()
    teacher[20:30, 40:60] = 1
    student[60:75, 90:101] = 2
    student[90:93, 5:60] = 0
    random = np.random.default_rng(4)
    for mask in (teacher, student):
        specks = random.random(SHAPE) < 0.03
        mask[specks] = random.integers(0, 3, int(specks.sum()))
    teacher[0, :4] = 255
    reference[:, 120:] = 255
    return {"teacher": teacher, "student": student, "reference": reference}


def run(output, given, control=None, emit=lambda event: None, **settings):
    config = CompareConfig(slide=SLIDE, output=output, **settings)
    return compare(config, emit, control or Control(), given)


def naive_confusion(first, second, inside=None):
    counts = np.zeros((3, 3), int)
    for y, x in np.ndindex(first.shape):
        if 255 not in (first[y, x], second[y, x]) and (inside is None or inside[y, x]):
            counts[first[y, x], second[y, x]] += 1
    return counts


def test_every_score_is_that_of_whole_arrays(tmp_path, given):
    result = run(tmp_path, given, tolerance=2.5)
    assert result.masks.downsample == pytest.approx(DOWNSAMPLE)
    assert [(s.first, s.second) for s in result.scores] == [
        ("teacher", "student"),
        ("reference", "teacher"),
        ("reference", "student"),
    ]
    for scores in result.scores:
        first, second = given[scores.first], given[scores.second]
        expected = naive_confusion(first, second)
        np.testing.assert_array_equal(scores.confusion, expected)
        np.testing.assert_array_equal(scores.bands.sum(axis=0), expected)
        known = (first != 255) & (second != 255)
        assert scores.agreement == pytest.approx((first == second)[known].mean())
        for value in (1, 2):
            a, b = (first == value) & known, (second == value) & known
            score = scores.by_class[value]
            assert score.dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
            assert score.iou == pytest.approx((a & b).sum() / (a | b).sum())
            assert score.area_first == pytest.approx(a.sum() * SPACING**2 / 1e6)
            assert (score.hd95, score.nsd) == pytest.approx(surface_scores(b, a, 2.5, SPACING))


def test_the_map_and_the_regions_are_those_of_whole_arrays(tmp_path, given):
    result = run(tmp_path, given, scores=False)
    teacher, student = given["teacher"], given["student"]
    stored = np.asarray(open_masks(tmp_path / "comparison.ome.zarr")["disagreement"].levels[0])
    for y, x in np.ndindex(SHAPE):
        t, s = teacher[y, x], student[y, x]
        known = 0 if t == s else 1 if s == 0 else 2 if t == 0 else 3
        assert stored[y, x] == (255 if 255 in (t, s) else known)
    confusion = result.scores[0].confusion
    for a in range(3):
        for b in range(3):
            if a != b:
                table = result.regions.filtered(pairs=[(a, b)])
                count = ndimage.label((teacher == a) & (student == b), np.ones((3, 3)))[1]
                assert len(table) == count
                assert table.column("area_px").sum() == confusion[a, b]
    again = RegionTable.load(tmp_path / "regions.npy")
    assert again.rows.tobytes() == result.regions.rows.tobytes()


def test_planted_errors_are_found_and_ranked_as_planted(tmp_path):
    teacher = blobs(3)
    student = teacher.copy()
    teacher[:], student[:] = 0, 0
    planted = [
        (0, 1, 5, 5, 14),
        (1, 0, 40, 30, 11),
        (2, 1, 70, 70, 8),
        (0, 2, 90, 100, 5),
        (1, 2, 100, 10, 2),
    ]
    for first, second, y, x, side in planted:
        teacher[y : y + side, x : x + side] = first
        student[y : y + side, x : x + side] = second
    result = run(tmp_path, {"teacher": teacher, "student": student}, scores=False)
    ranked = result.regions.ranked("area_mm2")
    assert len(ranked) == len(planted)
    for row, (first, second, y, x, side) in zip(ranked.rows, planted, strict=True):
        assert (row["first_class"], row["second_class"], row["area_px"]) == (first, second, side**2)
        assert row["depth_px"] == pytest.approx((side + 1) // 2 * np.sqrt(np.prod(DOWNSAMPLE)), rel=1e-6)
        assert row["y0"] == int(y * DOWNSAMPLE[0])
        assert row["x0"] == int(x * DOWNSAMPLE[1])
    by_depth = result.regions.ranked("depth_um").column("area_px")
    assert by_depth.tolist() == [side**2 for *_, side in planted]


def test_a_stopped_comparison_goes_on_to_the_same(tmp_path, given):
    whole = run(tmp_path / "whole", given)
    control, seen = Control(), []

    def stop_after_three(event):
        if isinstance(event, Step):
            seen.append(event)
            if len(seen) == 3:
                control.cancel()

    with pytest.raises(JobCancelled):
        run(tmp_path / "again", given, control, stop_after_three)
    again = run(tmp_path / "again", given)
    assert again.tiles_kept >= 3
    assert again.tiles_kept + again.tiles_done == whole.tiles_done == 9
    for one, other in zip(whole.scores, again.scores, strict=True):
        np.testing.assert_array_equal(one.confusion, other.confusion)
        np.testing.assert_array_equal(one.bands, other.bands)
        assert str(one.by_class) == str(other.by_class)
    assert whole.regions.rows.tobytes() == again.regions.rows.tobytes()
    levels = [
        [level[:, :] for level in open_masks(tmp_path / name / "comparison.ome.zarr")["disagreement"].levels]
        for name in ("whole", "again")
    ]
    for one, other in zip(*levels, strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_masks_are_not_taken_for_these(tmp_path, given):
    result = run(tmp_path, given, scores=False)
    config = CompareConfig(slide=SLIDE, output=tmp_path, scores=False)

    def kept(config=config):
        with open_slide(SLIDE) as slide:
            return kept_regions(config, slide, open_together(config, slide, given))

    assert kept().rows.tobytes() == result.regions.rows.tobytes()
    assert kept(config.model_copy(update={"region": (0, 0, 50, 50)})) is None
    assert kept(config.model_copy(update={"output": tmp_path / "elsewhere"})) is None
    given["student"][5, 5] ^= 1
    assert kept() is None
    with pytest.raises(InTheWayError):
        run(tmp_path, given, scores=False)
    changed = run(tmp_path, given, scores=False, overwrite=True)
    assert changed.tiles_kept == 0


def test_a_region_is_counted_to_the_pixel(tmp_path, given):
    region = (60, 90, 100, 130)  # level-0 pixels
    top, left = int(60 / DOWNSAMPLE[0]), int(90 / DOWNSAMPLE[1])
    bottom, right = int(np.ceil(160 / DOWNSAMPLE[0])), int(np.ceil(220 / DOWNSAMPLE[1]))
    inside = np.zeros(SHAPE, bool)
    inside[top:bottom, left:right] = True
    result = run(tmp_path, given, region=region)
    for scores in result.scores:
        expected = naive_confusion(given[scores.first], given[scores.second], inside)
        np.testing.assert_array_equal(scores.confusion, expected)
    cells = result.scores[0].confusion
    assert result.regions.column("area_px").sum() == cells.sum() - np.trace(cells)
    config = CompareConfig(slide=SLIDE, output=tmp_path)
    with open_slide(SLIDE) as slide:
        masks = open_together(config, slide, given)
        at_once = region_scores(masks, config, (top, left, bottom - top, right - left))
    for one, other in zip(result.scores, at_once, strict=True):
        np.testing.assert_array_equal(one.confusion, other.confusion)
        assert str(one.by_class) == str(other.by_class)


def test_only_what_is_drawn_or_annotated_is_compared(tmp_path, given):
    outline = tmp_path / "drawn.geojson"
    square = {"type": "Polygon", "coordinates": [[[50, 40], [200, 40], [200, 180], [50, 180], [50, 40]]]}
    feature = {"type": "Feature", "geometry": square, "properties": {"objectType": "annotation"}}
    outline.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    centres = [(np.arange(side) + 0.5) * factor for side, factor in zip(SHAPE, DOWNSAMPLE, strict=True)]
    inside = ((centres[0] > 40) & (centres[0] < 180))[:, None] & ((centres[1] > 50) & (centres[1] < 200))
    result = run(tmp_path / "within", given, within=str(outline), scores=False)
    expected = naive_confusion(given["teacher"], given["student"], inside)
    np.testing.assert_array_equal(result.scores[0].confusion, expected)
    result = run(tmp_path / "annotated", given, annotated=True, scores=False)
    expected = naive_confusion(given["teacher"], given["student"], given["reference"] != 255)
    np.testing.assert_array_equal(result.scores[0].confusion, expected)


def test_the_same_border_drawn_elsewhere_is_left_out(tmp_path):
    teacher, student = np.zeros((2, *SHAPE), np.uint8)
    teacher[20:80, 20:80], student[22:82, 20:80] = 1, 1  # two pixels lower: 2.5 um
    student[50:53, 100:103] = 1  # a speck, far from any border of the teacher
    teacher[95:97, 20:40] = 1  # and one that the student missed
    given = {"teacher": teacher, "student": student}
    result = run(tmp_path / "all", given, scores=False)
    assert sorted(result.regions.column("area_px")) == [9, 40, 120, 120]
    result = run(tmp_path / "beyond", given, scores=False, beyond=3.0)
    assert sorted(result.regions.column("area_px")) == [9, 40]
    assert result.scores[0].confusion[0, 1] == 129
    assert result.scores[0].left_out.tolist() == [[0, 120, 0][:2], [120, 0]]


def test_beyond_is_that_of_a_loop(tmp_path, given):
    from napari_kdseg.comparison.scores.distances import class_borders

    result = run(tmp_path, given, scores=False, beyond=2.6)
    teacher, student = given["teacher"], given["student"]
    borders = [np.argwhere(class_borders(mask)) for mask in (teacher, student)]
    left_out = np.zeros((3, 3), int)
    for y, x in np.argwhere((teacher != student) & (teacher != 255) & (student != 255)):
        near = [np.sqrt(((b - (y, x)) ** 2).sum(axis=1).min()) * SPACING <= 2.6 for b in borders]
        left_out[teacher[y, x], student[y, x]] += all(near)
    assert 0 < left_out.sum() < (teacher != student).sum()
    np.testing.assert_array_equal(result.scores[0].left_out, left_out)
    cells = result.scores[0].confusion
    assert result.regions.column("area_px").sum() == cells.sum() - np.trace(cells) - left_out.sum()


def test_shares_of_objects_found_are_those_of_a_loop(tmp_path, given):
    result = run(tmp_path, given)
    reference, student = given["reference"], given["student"]
    rows = []
    for value in (1, 2):
        labels, count = ndimage.label(reference == value, np.ones((3, 3)))
        rows += [
            (value, (labels == n).sum(), (student == value)[labels == n].mean()) for n in range(1, count + 1)
        ]
    table = result.objects["student"]
    found = zip(table.column("first_class"), table.column("area_px"), table.column("gap"), strict=True)
    np.testing.assert_allclose(sorted(found), sorted(rows), rtol=1e-6, equal_nan=True)


def test_tables_and_summary_say_the_same(tmp_path, given):
    result = run(tmp_path, given)
    files = write_results(result)
    assert {file.name for file in files} == {
        "regions.csv", "confusion.csv", "scores.csv", "scenarios.csv", "summary.json",
    }  # fmt: skip
    summary = json.loads(files[-1].read_text(), parse_constant=pytest.fail)
    assert summary["compared_to"] == "reference"
    with (tmp_path / "confusion.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for scores, kept in zip(result.scores, summary["scores"], strict=True):
        assert kept["confusion"] == scores.confusion.tolist()
        own = [r for r in rows if (r["first"], r["second"]) == (scores.first, scores.second)]
        assert sum(int(r["pixels"]) for r in own) == scores.pixels
    assert sum(int(r["regions"] or 0) for r in rows) == len(result.regions)
    with (tmp_path / "scenarios.csv").open(newline="") as file:
        scenarios = list(csv.DictReader(file))
    sizes = [r for r in scenarios if r["score"] == "objects found" and r["second"] == "student"]
    assert sum(int(r["number"]) for r in sizes) == len(result.objects["student"])


def test_shapes_and_other_class_lists_are_compared(tmp_path, given):
    box = shapely.box(60, 50, 120, 110)
    shapes = [AnnotationShape(box, "Class 1")]
    result = run(tmp_path / "one", {"teacher": given["teacher"], "reference": shapes}, scores=False)
    centres = [(np.arange(side) + 0.5) * factor for side, factor in zip(SHAPE, DOWNSAMPLE, strict=True)]
    inside = ((centres[0] > 50) & (centres[0] < 110))[:, None] & ((centres[1] > 60) & (centres[1] < 120))
    assert result.masks.downsample == pytest.approx(DOWNSAMPLE)  # outlines have no pixels
    expected = naive_confusion(given["teacher"], inside.astype(np.uint8))
    np.testing.assert_array_equal(result.scores[0].confusion, expected)


@pytest.mark.parametrize(
    ("change", "settings", "sentence"),
    [
        (lambda g: [g.pop("student"), g.pop("reference")], {}, "takes two masks or more"),
        (lambda g: g.update(student=np.zeros((40, 133), np.uint8)), {}, "does not fit the slide"),
        (lambda g: g.update(student=np.full(SHAPE, 255, np.uint8)), {}, "nothing can be compared"),
        (lambda g: None, {"region": (900, 900, 50, 50)}, "lies outside the slide"),
        (lambda g: None, {"classes": ("nonsense",)}, "mapped as own=common"),
        (lambda g: None, {"classes": ("student:stroma=1",)}, "has a class 'stroma'"),
        (lambda g: g.update(student=[AnnotationShape(shapely.box(0, 0, 9, 9))]), {}, "name no class"),
        (
            lambda g: g.update(student=[AnnotationShape(shapely.box(900, 900, 950, 950), "gland")]),
            {},
            "They belong to another slide",
        ),
        (lambda g: g.pop("reference"), {"annotated": True}, "when a reference says which"),
        (lambda g: None, {"tolerance": 100.0, "mpp": 0.3}, "more than 254 pixels"),
    ],
)
def test_what_does_not_work_is_said(tmp_path, given, change, settings, sentence):
    change(given)
    with pytest.raises(KdsegError, match=sentence):
        run(tmp_path, given, **settings)


def test_a_reference_that_is_elsewhere_is_said_and_the_others_are_compared(tmp_path, given):
    messages = []
    given["reference"][:] = 255
    given["reference"][0, 0] = 1  # where the teacher was not computed
    result = run(tmp_path, given, scores=False, emit=lambda e: messages.append(getattr(e, "text", "")))
    expected = naive_confusion(given["teacher"], given["student"])
    np.testing.assert_array_equal(result.scores[0].confusion, expected)
    assert any("known to both the reference and the teacher" in text for text in messages)


def under_the_centres(block, values, downsample):
    """The class under the centre of each pixel; of a centre on the edge of two pixels, theirs that ``block`` has."""
    out = np.full(block.shape, 256)
    for nudge_y in (-1e-6, 1e-6):
        for nudge_x in (-1e-6, 1e-6):
            for y, x in np.ndindex(block.shape):
                row = int((y + 0.5) * downsample[0] / DOWNSAMPLE[0] + nudge_y)
                column = int((x + 0.5) * downsample[1] / DOWNSAMPLE[1] + nudge_x)
                inside = row < SHAPE[0] and column < SHAPE[1]
                value = values[row, column] if inside else 255
                if out[y, x] != block[y, x]:
                    out[y, x] = value
    return out


def test_what_is_seen_is_what_was_counted_at_every_level(given):
    with open_slide(SLIDE) as slide:
        masks = open_together(CompareConfig(slide=SLIDE, output="unused"), slide, given)
        seen = difference_levels(masks)
        assert seen.levels[0].shape == SHAPE
        assert max(seen.levels[-1].shape) <= 64 < max(seen.levels[-2].shape)
        cells = cell_levels(masks, ("reference", "student"), [(1, 0), (2, 1)])
        for level, downsample in enumerate(seen.downsamples):
            blocks = {
                role: np.asarray(mask_levels(masks, role).levels[level])
                for role in ("teacher", "student", "reference")
            }
            for role, block in blocks.items():
                np.testing.assert_array_equal(block, under_the_centres(block, given[role], downsample))
            teacher, student = blocks["teacher"], blocks["student"]
            expected = np.where(
                teacher == student, 0, np.where(student == 0, 1, np.where(teacher == 0, 2, 3))
            )
            expected[(teacher == 255) | (student == 255)] = 255
            np.testing.assert_array_equal(seen.levels[level], expected)
            reference = blocks["reference"]
            there = ((reference == 1) & (student == 0)) | ((reference == 2) & (student == 1))
            expected = np.where((reference == 255) | (student == 255), 255, there)
            np.testing.assert_array_equal(cells.levels[level], expected)
