"""The report of a study, drawn from its table alone: the same figures give the same page."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence, Sized
from pathlib import Path

from napari_kdseg.distillation import family_of, get_method
from napari_kdseg.errors import ConfigurationError, DataError, OutputError, explain
from napari_kdseg.files import write_whole
from napari_kdseg.study.plan import TEACHER, is_variant, slug
from napari_kdseg.study.report.page import Block, Figures, Heading, Picture, Text, to_html, to_markdown
from napari_kdseg.study.report.plots import Scores, curves, dots
from napari_kdseg.study.report.statistics import compare, holm, mean_and_sd, over_seeds
from napari_kdseg.study.report.why_page import write_why
from napari_kdseg.study.table import RUNS, Table, TableRow

PAGE = "report"
ALONE, KD, PLC_KD = "alone", "kd", "plc-kd"
BASELINES = (ALONE, KD)
SIGNIFICANT = 0.05

VARIANTS = (
    "The variants of PLC-KD keep what their name says: f the false-pixel-aware assistant (false-pixel images, FIG), b "
    "the boundary-aware assistant (boundary transform, BT), sc the similarity correction. Without all three it is KD."
)


def write_evidence(folder: Path) -> list[Path]:
    """Write ``report.md``, ``report.html``, the plots and, where there are tallies, ``why.md``; return the pages.

    Raises
    ------
    DataError
        If there is no table, or it cannot be understood.
    OutputError
        If they cannot be written.
    """
    blocks, pictures = report(folder)
    pages = [folder / f"{PAGE}.md", folder / f"{PAGE}.html"]
    try:
        for name, content in pictures.items():
            write_whole(folder / name, content)
        write_whole(pages[0], to_markdown(blocks).encode())
        write_whole(pages[1], to_html(blocks, folder).encode())
        pages += write_why(folder, tasks_of(folder))
    except OSError as error:
        raise OutputError(f"The report could not be written. {explain(error)}") from error
    return pages


def report(folder: Path) -> tuple[list[Block], dict[str, bytes]]:
    """Return the page of a folder, and its plots by file name."""
    table = Table(folder)
    if not table.rows:
        raise DataError(f"There is no {RUNS} with finished runs in {folder}. Run 'kdseg study' first.")
    blocks: list[Block] = [
        Heading(1, "What each method gains"),
        Text(
            f"Drawn by `kdseg evidence` from `{RUNS}` and what lies beside it; changes made here by hand are lost. "
            "Dice is the mean over the foreground classes, pixels of all test tiles pooled, of the weights that were "
            "best on the validation tiles. Figures are mean ± standard deviation over the seeds."
        ),
    ]
    pictures: dict[str, bytes] = {}
    for task in tasks_of(folder):
        part, drawn = _Task(folder, table, task).blocks()
        blocks += part
        pictures |= drawn
    return blocks, pictures


def tasks_of(folder: Path) -> list[str]:
    """Return the tasks of the table in a folder, in its order."""
    return list(dict.fromkeys(row.task for row in Table(folder).rows))


class _Task:
    """The part of a page that is about one task."""

    def __init__(self, folder: Path, table: Table, task: str):
        self.folder, self.table, self.task = folder, table, task
        self.rows = [row for row in table.rows if row.task == task]
        self.teachers = {row.student: row for row in self.rows if row.method == TEACHER}
        self.pictures: dict[str, bytes] = {}

    def blocks(self) -> tuple[list[Block], dict[str, bytes]]:
        before = self._written("read-first")
        blocks: list[Block] = [Heading(2, self.task), *before, *self._protocol(), *self._teachers()]
        for student in dict.fromkeys(row.student for row in self.rows if row.method != TEACHER):
            for teacher in self.teachers or ("",):
                chosen = [
                    row
                    for row in self.rows
                    if row.method != TEACHER and row.student == student and row.teacher in ("", teacher)
                ]
                if chosen:
                    blocks += self._student(student, teacher, sorted(chosen, key=_order))
        blocks += self._beside()
        return blocks, self.pictures

    def _protocol(self) -> list[Block]:
        path = self.folder / f"protocol-{slug(self.task)}.json"
        if not path.is_file():
            return []
        told = json.loads(path.read_text(encoding="utf-8"))
        return [
            Text(
                f"Tiles of {told['data']['input_size']} px from `{told['data']['folder']}`; {told['steps']} steps of "
                f"{told['batch_size']} tiles for every student (rounded up to whole passes over its tiles), "
                f"{told['sampling']} sampling, learning rate {told['optimiser']['learning_rate']:g}, all alike. A "
                "teacher saw the labels of all training tiles; students, and the assistants, paraphraser and critic of "
                f"their methods, saw their share. KD and PLC-KD share temperature {told['temperature']:g} and weight "
                f"{told['kd_weight']:g}. The data, the settings and the schedule are in `{path.name}`."
            )
        ]

    def _teachers(self) -> list[Block]:
        rows = [
            (name, f"{row.test_dice:.4f}", f"{row.test_miou:.4f}", f"{row.val_dice:.4f}", *_cost(row))
            for name, row in self.teachers.items()
        ]
        header = (
            "teacher",
            "test Dice",
            "test mIoU",
            "validation Dice",
            "parameters (M)",
            "multiply-adds (G)",
        )
        return [Figures(header, tuple(rows))] if rows else []

    def _student(self, student: str, teacher: str, rows: list[TableRow]) -> list[Block]:
        title = student if len(self.teachers) < 2 else f"{student} taught by {teacher}"
        fractions = sorted({row.label_fraction for row in rows})
        blocks: list[Block] = [Heading(3, title), Text(f"`{student}`: {_size(rows[0])}.")]
        for fraction in fractions:
            some = [row for row in rows if row.label_fraction == fraction]
            blocks += self._fraction(title, fraction, some)
        blocks.append(self._plot(student, teacher, rows, fractions))
        blocks += [Heading(4, "The goal"), *(Text(sentence) for sentence in goal(rows))]
        return blocks

    def _fraction(self, title: str, fraction: float, rows: list[TableRow]) -> list[Block]:
        """Tables of one label fraction: scores, classes, paired tests."""
        methods = list(dict.fromkeys(row.method for row in rows))
        share = f"{fraction:.0%} of the labels" if fraction < 1 else "all labels"
        return [
            Heading(4, f"{title}, {share}"),
            _scores(methods, rows),
            *([Text(VARIANTS)] if any(family_of(method) == PLC_KD != method for method in methods) else []),
            Heading(5, "By class (test Dice)"),
            self._classes(methods, rows),
            Heading(5, "Tile by tile"),
            *self._paired(methods, rows),
        ]

    def _classes(self, methods: list[str], rows: list[TableRow]) -> Figures:
        by_run = {row: self.table.classes(row.run) for row in rows}
        names = list(dict.fromkeys(name for one in by_run.values() for name in one))
        lines = [
            (
                title_of(method),
                *(
                    _spread([by_run[row].get(name, math.nan) for row in rows if row.method == method])
                    for name in names
                ),
            )
            for method in methods
        ]
        return Figures(("method", *names), tuple(lines))

    def _paired(self, methods: list[str], rows: list[TableRow]) -> list[Block]:
        """Compare every method with each baseline on the same tiles and seeds."""
        results = []
        for method in methods:
            for baseline in BASELINES:
                if method != baseline and method != ALONE and baseline in methods:
                    results.append((method, baseline, compare(*self._images(method, baseline, rows))))
        if not results:
            return [Text("There is nothing to compare with yet: neither the student alone nor KD is done.")]
        adjusted = holm([paired.p for *_, paired in results])
        lines = [
            (
                title_of(method),
                title_of(baseline),
                f"{paired.difference:+.4f}",
                "" if math.isnan(paired.better) else f"{paired.better:.0%}",
                _p(paired.p),
                _p(p),
            )
            for (method, baseline, paired), p in zip(results, adjusted, strict=True)
        ]
        header = ("method", "compared with", "mean difference", "tiles better", "p", "p (Holm)")
        return [
            Text(
                f"Two-sided Wilcoxon signed-rank test over {results[0][2].tiles} test tiles: the Dice of a tile is the "
                "mean over the foreground classes in it, then over the seeds that both methods have. The last column "
                f"is adjusted for all {len(results)} comparisons of this table (Holm). Tiles of one patient are not "
                "independent, so small p values are too small. * is below 0.05."
            ),
            Figures(header, tuple(lines), words=2),
        ]

    def _images(
        self, method: str, baseline: str, rows: list[TableRow]
    ) -> tuple[dict[str, float], dict[str, float]]:
        of = {name: {row.seed: row for row in rows if row.method == name} for name in (method, baseline)}
        seeds = sorted(set(of[method]) & set(of[baseline]))
        one, other = (
            over_seeds([self.table.images(of[name][seed].run) for seed in seeds])
            for name in (method, baseline)
        )
        return one, other

    def _plot(self, student: str, teacher: str, rows: list[TableRow], fractions: list[float]) -> Picture:
        scores: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            scores[title_of(row.method)][row.label_fraction].append(row.test_dice)
        limit = self.teachers[teacher].test_dice if teacher in self.teachers else None
        name = f"dice-{slug(self.task)}-{slug(student)}-{slug(teacher)}.svg"
        drawn: Scores = scores
        if len(fractions) > 1:
            self.pictures[name] = curves(drawn, limit)
            return Picture(
                name, f"Test Dice of {student} over the share of the labels: mean and standard deviation."
            )
        self.pictures[name] = dots(drawn, fractions[0], limit)
        return Picture(name, f"Test Dice of {student}: a dot a seed, a line at their mean.")

    def _beside(self) -> list[Block]:
        """What was made or written beside the table: example tiles, the page on why, notes of a person."""
        blocks: list[Block] = []
        examples = self.folder / f"examples-{slug(self.task)}.png"
        if examples.is_file():
            blocks += [
                Heading(3, "Example tiles"),
                Picture(
                    examples.name,
                    "Training tiles of the student's share: image, annotation, the teacher, the soft label after the "
                    "false-pixel-aware assistant (TA_f), the boundary-aware one (TA_b) and the similarity correction "
                    "(SC), what three students say, and which step mended each pixel.",
                ),
            ]
        if (self.folder / f"why-{slug(self.task)}.csv").is_file():
            blocks.append(Text("What was corrected, and what the student learnt from it: [why.md](why.md)."))
        notes = self._written("notes")
        return [*blocks, Heading(3, "Notes"), *notes] if notes else blocks

    def _written(self, kind: str) -> list[Block]:
        """Return what a person wrote in ``<kind>-<task>.md``, if anything."""
        path = self.folder / f"{kind}-{slug(self.task)}.md"
        return [Text(path.read_text(encoding="utf-8").strip())] if path.is_file() else []


def goal(rows: Sequence[TableRow]) -> list[str]:
    """Say at which label fractions the study's goal is reached: PLC-KD above KD above the student alone, and so on.

    Two methods are compared by their means over the seeds that both have.
    """
    scores: dict[float, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        scores[row.label_fraction][row.method][row.seed] = row.test_dice
    sentences = []
    for fraction, of in sorted(scores.items()):
        pairs = [(PLC_KD, KD), (KD, ALONE), ("emkd", ALONE), ("coco", ALONE)]
        pairs += [(family_of(variant), variant) for variant in of if is_variant(variant)]
        found: dict[bool, list[str]] = {True: [], False: []}
        for one, other in pairs:
            if seeds := of.get(one, {}).keys() & of.get(other, {}).keys():
                high, low = (
                    mean_and_sd([of[name][seed] for seed in sorted(seeds)])[0] for name in (one, other)
                )
                found[high > low].append(
                    f"{title_of(one)} above {title_of(other)} ({high:.4f}, {low:.4f}{_of_seeds(len(seeds), of[one])})"
                )
        for reached, word in ((True, "reached"), (False, "not reached")):
            if found[reached]:
                sentences.append(f"At {fraction:.0%} of the labels, {word}: {'; '.join(found[reached])}.")
    return sentences or ["None of the methods that the goal compares are done yet."]


def _of_seeds(count: int, of_all: Sized) -> str:
    return "" if count == len(of_all) else f", over {count} of {len(of_all)} seeds"


def title_of(method: str) -> str:
    """Name of a method for people; a variant of PLC-KD also says what it leaves out."""
    try:
        return get_method(method).title
    except ConfigurationError:
        return method


def _scores(methods: list[str], rows: list[TableRow]) -> Figures:
    alone = mean_and_sd([row.test_dice for row in rows if row.method == ALONE])[0]
    lines = []
    for method in methods:
        some = [row for row in rows if row.method == method]
        dice = mean_and_sd([row.test_dice for row in some])[0]
        gain = "" if math.isnan(alone) or method == ALONE else f"{dice - alone:+.4f}"
        lines.append(
            (
                title_of(method),
                _spread([row.test_dice for row in some]),
                gain,
                _spread([row.test_miou for row in some]),
                _spread([row.val_dice for row in some]),
                f"{mean_and_sd([row.train_seconds for row in some])[0]:.0f}",
                str(len(some)),
            )
        )
    header = ("method", "test Dice", "over alone", "test mIoU", "validation Dice", "training (s)", "seeds")
    return Figures(header, tuple(lines))


def _order(row: TableRow) -> tuple[bool, bool]:
    """Place the student alone first, then KD; the others stay as they were planned."""
    return row.method != ALONE, row.method != KD


def _spread(values: Sequence[float]) -> str:
    mean, deviation = mean_and_sd(values)
    if math.isnan(mean):
        return ""
    return f"{mean:.4f}" if math.isnan(deviation) else f"{mean:.4f} ± {deviation:.4f}"


def _p(value: float) -> str:
    mark = " *" if value < SIGNIFICANT else ""
    return ("< 0.0001" if value < 1e-4 else f"{value:.4f}") + mark


def _cost(row: TableRow) -> tuple[str, str]:
    return f"{row.params / 1e6:.2f}", f"{row.macs / 1e9:.3f}"


def _size(row: TableRow) -> str:
    millions, billions = _cost(row)
    return f"{millions} million parameters, {billions} billion multiply-adds for a tile"
