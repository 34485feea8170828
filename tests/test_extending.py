"""The recipes of docs/extending.md, followed in a copy of the program: each by itself, and then its check."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STEP = re.compile(
    r"^\*(?P<kind>new|line|check)\*(?: in)?(?: `(?P<file>[^`]+)`)?(?: behind `(?P<anchor>[^\n]+)`)?\n\n"
    r"```\w+\n(?P<text>.*?)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass
class Recipe:
    """What a section of the page says."""

    title: str
    new: dict[str, str] = field(default_factory=dict)
    lines: list[tuple[str, str, str]] = field(default_factory=list)
    check: str = ""


def read_recipes() -> list[Recipe]:
    page = (ROOT / "docs" / "extending.md").read_text()
    recipes = []
    for section in page.split("\n## ")[1:]:
        recipe = Recipe(section.partition("\n")[0])
        for step in STEP.finditer(section):
            if step["kind"] == "new":
                recipe.new[step["file"]] = step["text"]
            elif step["kind"] == "line":
                recipe.lines.append((step["file"], step["anchor"], step["text"]))
            else:
                recipe.check = step["text"]
        assert section.count("```") == 2 * len([*STEP.finditer(section)]), "every block belongs to a step"
        recipes.append(recipe)
    return recipes


RECIPES = read_recipes()


def follow(recipe: Recipe, package: Path) -> None:
    for name, text in recipe.new.items():
        path = package / name
        assert not path.exists(), f"{name} is there already"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    for name, anchor, text in recipe.lines:
        path = package / name
        lines = path.read_text().splitlines(keepends=True)
        places = [number for number, line in enumerate(lines) if line.rstrip("\n") == anchor]
        assert places, f"{name} has no line {anchor!r}"
        lines.insert(places[-1] + 1, text)
        path.write_text("".join(lines))


def test_every_kind_of_addition_has_a_recipe():
    words = " ".join(recipe.title for recipe in RECIPES).lower()
    for wanted in (
        "loss",
        "method",
        "slide format",
        "network",
        "dock",
        "box",
        "column of a table",
        "setting",
    ):
        assert wanted in words
    assert all(recipe.check for recipe in RECIPES)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.title)
def test_a_recipe_holds(recipe, tmp_path):
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    follow(recipe, tmp_path / "src" / "napari_kdseg")
    (tmp_path / "made").mkdir()
    code = (
        "import pathlib, napari_kdseg\n"
        f"assert pathlib.Path(napari_kdseg.__file__).is_relative_to({str(tmp_path)!r}), napari_kdseg.__file__\n"
        f"folder = pathlib.Path({str(tmp_path / 'made')!r})\n{recipe.check}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
