"""What the Compare dock counts, against pixels of the masks looked at one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_kdseg.masks import open_masks
from napari_kdseg.widgets.compare_dock.counts import count

STORE = Path(__file__).parents[1] / "old_files" / "written" / "masks" / "slide.ome.zarr"


@pytest.fixture(scope="module")
def pixels() -> dict[str, list[int]]:
    """The finest level of each mask, as one list."""
    return {name: mask.levels[0][:, :].ravel().tolist() for name, mask in open_masks(STORE).items()}


def test_shares_of_disagreement_and_dice(pixels):
    pairs = [pair for pair in zip(pixels["teacher"], pixels["student"], strict=True) if 255 not in pair]
    only_teacher = sum(1 for teacher, student in pairs if teacher and not student)
    only_student = sum(1 for teacher, student in pairs if student and not teacher)
    counted = count(STORE)
    assert counted["disagreement"] == {
        1: ("only the teacher", f"{100 * only_teacher / len(pairs):.2f} %"),
        2: ("only the student", f"{100 * only_student / len(pairs):.2f} %"),
        3: ("different class", "0.00 %"),
    }
    both = pairs.count((1, 1))
    dice = 2 * both / (2 * both + only_teacher + only_student)
    assert counted["agreement"] == f"Dice between teacher and student where both looked: {dice:.3f}"


def test_who_mended_how_much(pixels):
    labelled = [code for code in pixels["mended_by"] if code != 255]
    numbers = [labelled.count(code) for code in range(6)]
    lines = count(STORE)["mended_by"]
    assert [line[0] for line in lines.values()][:2] == ["right from the start", "false-pixel-aware assistant"]
    assert {code: line[1:] for code, line in lines.items()} == {
        code: (f"{number:,} px", f"{100 * number / len(labelled):.2f} %")
        for code, number in enumerate(numbers)
    }
