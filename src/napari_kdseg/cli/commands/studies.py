"""Commands about studies: many distillations, their table and their report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from napari_kdseg.cli.app import app, console
from napari_kdseg.cli.assigning import assign, assign_all
from napari_kdseg.cli.options import overrides_of
from napari_kdseg.cli.running import result_of, run, to_its_end
from napari_kdseg.jobs import Event, Message
from napari_kdseg.study import StudyConfig
from napari_kdseg.study.progress import StudyProgress

if TYPE_CHECKING:
    from napari_kdseg.study import StudyResult


@app.command()
@overrides_of(StudyConfig, "output", "limit", "at_once")
def study(
    config: Annotated[Path, typer.Argument(help="The study: YAML, TOML or JSON.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting by its path: steps=400, data.input_size=224."),
    ] = None,
    *,
    settings: dict[str, Any],
) -> None:
    """Compare methods: all runs of a study that are not done yet, then the report."""
    values: dict[str, Any] = StudyConfig.load(config).model_dump(mode="json")
    for name, value in settings.items():
        assign(values, name, value)
    assign_all(values, set_ or ())
    result = run_study(StudyConfig.model_validate(values))
    print(f"{result.done} of {result.planned} runs are done.")
    for page in result.pages:
        print(page)


@app.command()
def evidence(
    folder: Annotated[Path, typer.Argument(help="Folder of a study, which holds runs.csv.")],
    why: Annotated[
        Path | None,
        typer.Option(help="A study, whose networks are run once more to say what was corrected and learnt."),
    ] = None,
) -> None:
    """Draw the tables and plots of a study from its runs.csv, as Markdown and HTML."""
    from napari_kdseg.study import write_evidence

    if why is not None:
        from napari_kdseg.study.why import look_into

        config = StudyConfig.load(why)
        config.output = folder.absolute()
        run(look_into, config)
    for file in write_evidence(folder):
        print(file)


def run_study(config: StudyConfig) -> StudyResult:
    """Run a study in a thread, show its runs here, stop it in good order on Ctrl-C; return its result."""
    from napari_kdseg.study import study as job

    with Live(console=console, refresh_per_second=2, transient=not console.is_terminal) as live:

        def show(event: Event) -> None:
            if isinstance(event, StudyProgress):
                live.update(progress_table(event))
            elif isinstance(event, Message):
                style = "yellow" if event.level == "warning" else None
                live.console.print(event.text, style=style, highlight=False)

        running = to_its_end(job, config, show)
    return result_of(running)


def progress_table(progress: StudyProgress) -> Table:
    """Draw how far every method is, what runs now, and how long it will take."""
    left = "" if progress.seconds_left is None else f", about {_duration(progress.seconds_left)} left"
    table = Table(title=f"{progress.done} of {len(progress.runs)} runs{left}")
    for column, side in (("method", "left"), ("runs", "right"), ("test Dice", "right"), ("now", "left")):
        table.add_column(column, justify=side)  # type: ignore[arg-type]
    for state in progress.by_method():
        mean = "" if state.test_dice is None else f"{state.test_dice:.4f}"
        table.add_row(state.method, f"{state.done}/{state.planned}", mean, state.now)
    return table


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(minutes, 1)} min"
