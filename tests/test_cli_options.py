"""Options of commands come from the settings of their jobs, and reach them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from napari_kdseg.cli.app import app
from napari_kdseg.cli.options import options_of, overrides_of
from napari_kdseg.comparison.config import CorrectConfig
from napari_kdseg.inference.config import PredictConfig
from napari_kdseg.inference.export import ExportModelConfig
from napari_kdseg.masks.export.config import ConvertAnnotationsConfig, ExportConfig
from napari_kdseg.settings import setting
from napari_kdseg.slides.writing.config import ConvertConfig, SynthConfig


class Extended(PredictConfig):
    """What a setting looks like that somebody adds to the model, and nowhere else."""

    passes: Annotated[int, Field(ge=1)] | Literal["auto"] = setting("auto", "Passes", "How often it looks.")
    mirrored: bool = setting(False, "Mirrored", "Look at the mirrored tile, too.")
    stains: tuple[str, ...] = setting(("he", "ihc"), "Stains", "Of the slides.")
    margin: float | None = setting(None, "Margin", "In micrometres.")


def made(model):
    """Return a command with the model's options, and where it puts what it is given."""
    told: dict[str, Any] = {}
    program = typer.Typer()

    @program.command()
    @options_of(
        model,
        without=("slide", "networks", "output", "region", "first"),
        flags={"skip_background": "--skip-background/--background"},
    )
    def command(slide: str, tile: str = "7", *, settings: dict[str, Any]) -> None:
        """Do nothing."""
        told.update(settings, slide=slide, own_tile=tile)

    return program, told


def validated(told):
    values = {name: value for name, value in told.items() if name != "own_tile"}
    return Extended(networks={"student": Path("s")}, output=Path("o.ome.zarr"), **values)


def test_a_setting_added_to_the_model_is_an_option():
    program, told = made(Extended)
    page = CliRunner().invoke(program, ["--help"], env={"COLUMNS": "200"}).output
    for words in ("--passes", "How often it looks. (auto)", "--mirrored", "--no-mirrored", "--margin"):
        assert words in page
    done = CliRunner().invoke(program, ["a.svs", "--passes", "3", "--mirrored", "--margin", "1.5"])
    assert done.exit_code == 0, done.output
    config = validated(told)
    assert (config.passes, config.mirrored, config.margin) == (3, True, 1.5)


@pytest.mark.parametrize(
    ("words", "stains"),
    [([], ("he", "ihc")), (["--stains", "pas"], ("pas",)), (["--stains", "he, pas"], ("he", "pas"))],
)
def test_several_values_are_one_text_with_commas(words, stains):
    program, told = made(Extended)
    page = CliRunner().invoke(program, ["--help"], env={"COLUMNS": "200"}).output
    assert "Of the slides. Several with commas between." in page
    done = CliRunner().invoke(program, ["a.svs", *words])
    assert done.exit_code == 0, done.output
    assert validated(told).stains == stains


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], {"margin": None, "stains": None}),
        (["--margin", "2", "--stains", "a,b"], {"margin": 2.0, "stains": ("a", "b")}),
    ],
)
def test_settings_laid_over_a_file_are_those_that_were_given(words, told):
    """Whatever the defaults of the model are: the file may say something else."""
    program, heard = typer.Typer(), {}

    @program.command()
    @overrides_of(Extended, "margin", "stains")
    def command(*, settings: dict[str, Any]) -> None:
        heard.update(settings)

    done = CliRunner().invoke(program, words)
    assert done.exit_code == 0, done.output
    assert heard == told


def test_defaults_are_those_of_the_model():
    program, told = made(Extended)
    assert CliRunner().invoke(program, ["a.svs"]).exit_code == 0
    plain = Extended(slide="a.svs", networks={"student": Path("s")}, output=Path("o.ome.zarr"))
    assert validated(told) == plain


def test_options_of_the_command_itself_stay():
    program, told = made(Extended)
    CliRunner().invoke(program, ["a.svs", "--tile", "512"])
    assert told["own_tile"] == "512"
    assert "tile" not in told


@pytest.mark.parametrize(
    ("words", "skipped"), [([], True), (["--background"], False), (["--skip-background"], True)]
)
def test_a_switch_may_have_two_names(words, skipped):
    program, told = made(Extended)
    CliRunner().invoke(program, ["a.svs", *words])
    assert told["skip_background"] is skipped


def test_values_that_are_a_number_or_a_word():
    assert (
        PredictConfig.model_validate(
            {"slide": "a", "networks": {"s": "s"}, "output": "o.ome.zarr", "tile": "512", "halo": "exact"}
        ).tile
        == 512
    )


@pytest.mark.parametrize(
    ("command", "model", "elsewhere"),
    [
        ("predict", PredictConfig, {"slide": "slides", "networks": "--checkpoint", "first": None}),
        (
            "correct",
            CorrectConfig,
            {"slide": "slide", "teacher": "--teacher", "settings": None}
            | dict.fromkeys(("false_pixel_assistant", "boundary_assistant"), "--run"),
        ),
        ("convert", ConvertConfig, {"slide": "slide", "output": "output", "mpp": "--slide-mpp"}),
        ("synth", SynthConfig, {"output": "output", "width": "--size", "height": "--size"}),
        (
            "export",
            ExportConfig,
            {
                "stores": "paths",
                "output": "paths",
                "names": "--name",
                "kinds": "--as",
                "compress": "--gzip",
            },
        ),
        (
            "export-model",
            ExportModelConfig,
            {"checkpoint": "checkpoint", "output": "output", "formats": "--as"},
        ),
        ("annotations convert", ConvertAnnotationsConfig, {"source": "source", "target": "target"}),
    ],
)
def test_every_setting_of_a_job_can_be_given(command, model, elsewhere):
    """By its own name, or as said here; ``None``: it is for the window, or comes from the run."""
    page = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200"}).output
    for name in model.model_fields:
        option = elsewhere.get(name, "--" + name.replace("_", "-"))
        assert option is None or option in page, name
