"""The page on why, drawn from the tallies beside the table: the same figures give the same page."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from napari_kdseg.errors import DataError, OutputError, explain
from napari_kdseg.files import write_whole
from napari_kdseg.study.plan import slug
from napari_kdseg.study.report.page import Block, Figures, Heading, Text, to_markdown

PAGE = "why.md"
STEPS = {
    "false_pixel": "false-pixel-aware assistant",
    "boundary": "boundary-aware assistant",
    "similarity": "similarity",
    "fallback": "fallback (no similar pixel)",
}
STUDENTS = {"alone": "student alone", "kd": "KD", "plc-kd": "PLC-KD"}
NUMBERS = ("pixels", "before", "after", *(f"right_{name}" for name in STUDENTS))
Line = dict[str, str]
Sums = dict[str, float]


def write_why(folder: Path, tasks: Sequence[str]) -> list[Path]:
    """Write ``why.md`` from the tallies of the tasks in a folder; nothing where there are none.

    Raises
    ------
    DataError
        If a tally cannot be read.
    OutputError
        If the page cannot be written.
    """
    blocks = why(folder, tasks)
    if not blocks:
        return []
    try:
        write_whole(folder / PAGE, to_markdown(blocks).encode())
    except OSError as error:
        raise OutputError(f"The page {PAGE} could not be written. {explain(error)}") from error
    return [folder / PAGE]


def why(folder: Path, tasks: Sequence[str]) -> list[Block]:
    """Return the page; empty where nothing was tallied."""
    blocks: list[Block] = []
    for task in tasks:
        lines, counts = (_read(folder / f"{name}-{slug(task)}.csv") for name in ("why", "why-tiles"))
        if lines:
            blocks += [Heading(2, task), *_task(lines, counts)]
    if not blocks:
        return []
    intro = Text(
        "Drawn by `kdseg evidence` from the tallies that `kdseg evidence --why` made with the networks of the study: "
        "what each step of PLC-KD corrected in the teacher's soft labels, and what the students say at those pixels. "
        "Training tiles are those of the student's share, as they are (not augmented); test tiles are corrected with "
        "their annotation only to find the pixels, nobody learnt from them. All seeds are added up. Confidence is the "
        "mean probability of the true class."
    )
    return [Heading(1, "Why: what was corrected, and what was learnt from it"), intro, *blocks]


def _task(lines: list[Line], counts: list[Line]) -> list[Block]:
    blocks: list[Block] = []
    for student, fraction in dict.fromkeys((line["student"], line["label_fraction"]) for line in lines):
        some = [line for line in lines if (line["student"], line["label_fraction"]) == (student, fraction)]
        tiles = [line for line in counts if (line["student"], line["label_fraction"]) == (student, fraction)]
        blocks.append(Heading(3, f"{student}, {float(fraction):.0%} of the labels"))
        for split, name in (("train", "training tiles"), ("test", "test tiles")):
            part = [line for line in some if line["split"] == split]
            if not part:
                continue
            blocks += [
                Heading(4, f"What was mended on the {name}"),
                _steps(part),
                Heading(5, "By class"),
                _groups(part, "class"),
                Heading(5, "By distance from the border (pixels)"),
                _groups(part, "distance"),
                Heading(5, "What the students say there (share of right pixels)"),
                _answers(part),
                Heading(5, "Tiles by how wrong the teacher was"),
                _tiles(part, [line for line in tiles if line["split"] == split]),
            ]
    blocks.append(
        Text(
            "A tile is wholly wrong if at most 5 % of its foreground has the right class, such as one whose grade the "
            "teacher mistook. There the similarity step finds no right pixel of that class in the tile, takes one from "
            "elsewhere in the batch or, where the batch has none, the mean soft label of the class (fallback)."
        )
    )
    return blocks


def _steps(lines: list[Line]) -> Figures:
    whole, wrong = _sums(lines), _sums(lines, STEPS)
    rows = [
        (
            title,
            f"{some['pixels']:.0f}",
            _ratio(some["pixels"], wrong["pixels"]),
            _mean(some, "before"),
            _mean(some, "after"),
        )
        for step, title in STEPS.items()
        for some in [_sums(lines, [step])]
    ]
    right = _sums(lines, ["right"])
    rows.append(("all that were wrong", f"{wrong['pixels']:.0f}", _ratio(wrong["pixels"], whole["pixels"]) + " of all",
                 _mean(wrong, "before"), _mean(wrong, "after")))  # fmt: skip
    rows.append(("right from the start", f"{right['pixels']:.0f}", _ratio(right["pixels"], whole["pixels"]) + " of all",
                 _mean(right, "before"), _mean(right, "after")))  # fmt: skip
    return Figures(("mended by", "pixels", "share", "confidence before", "confidence after"), tuple(rows))


def _groups(lines: list[Line], column: str) -> Figures:
    """One row a class or distance: how much was wrong there, and which step mended which share of it."""
    rows = []
    for name in sorted({line[column] for line in lines}, key=_in_order):
        here = [line for line in lines if line[column] == name]
        whole, wrong = _sums(here), _sums(here, STEPS)
        by_step = [_ratio(_sums(here, [step])["pixels"], wrong["pixels"]) for step in STEPS]
        rows.append((name, _ratio(wrong["pixels"], whole["pixels"]), *by_step, _mean(wrong, "after")))
    return Figures((column, "wrong", *STEPS.values(), "confidence after"), tuple(rows))


def _answers(lines: list[Line]) -> Figures:
    kinds: dict[str, Iterable[str]] = {"right from the start": ["right"]}
    kinds |= {f"mended by: {title}": [step] for step, title in STEPS.items()}
    kinds["mended at all"] = STEPS
    rows = []
    for title, steps in kinds.items():
        some = _sums(lines, steps)
        rows.append((title, *(_ratio(some[f"right_{name}"], some["pixels"]) for name in STUDENTS)))
    return Figures(("pixels", *STUDENTS.values()), tuple(rows))


def _tiles(lines: list[Line], counts: list[Line]) -> Figures:
    rows = []
    for kind in ("right", "partly wrong", "wholly wrong"):
        number = sum(int(line["tiles"]) for line in counts if line["tile"] == kind)
        here = [line for line in lines if line["tile"] == kind]
        wrong = _sums(here, STEPS)
        fallback = _sums(here, ["fallback"])
        lesion = _sums([line for line in here if line["class"] != "background"])
        answers = [_ratio(lesion[f"right_{name}"], lesion["pixels"]) for name in STUDENTS]
        rows.append(
            (kind, str(number), _ratio(fallback["pixels"], wrong["pixels"]), _mean(wrong, "after"), *answers)
        )
    right = (f"{student}: foreground right" for student in STUDENTS.values())
    header = ("teacher", "tiles", "of it by fallback", "confidence after", *right)
    return Figures(header, tuple(rows))


def _sums(lines: list[Line], steps: Iterable[str] | None = None) -> Sums:
    """Add up the lines, or those of some steps."""
    sums: Sums = dict.fromkeys(NUMBERS, 0.0)
    for line in lines:
        if steps is None or line["step"] in steps:
            for name in NUMBERS:
                sums[name] += float(line[name])
    return sums


def _in_order(name: str) -> tuple[bool, int, str]:
    """Sort distances by their limits, the open one last, and classes by name."""
    words, _, limit = name.rpartition(" ")
    return words == "more than", int(limit) if limit.isdecimal() else 0, name


def _ratio(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else ""


def _mean(sums: Sums, name: str) -> str:
    return f"{sums[name] / sums['pixels']:.3f}" if sums["pixels"] else ""


def _read(path: Path) -> list[Line]:
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read ({error}). Make it anew with 'kdseg evidence --why'."
        ) from error
