"""The documentation builds: no link, heading or public name in it is stale."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ROOMS = [page.stem for page in sorted((DOCS / "reference").glob("*.md")) if page.stem != "index"]


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="The development packages are not installed")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        str(DOCS),
        str(tmp_path),
    ]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    for room in ROOMS:
        page = (tmp_path / "reference" / f"{room}.html").read_text(encoding="utf-8")
        missing = [name for name in public_names(room) if f'id="napari_kdseg.{room}.{name}"' not in page]
        assert not missing, f"{room}: not in its page of the reference: {', '.join(missing)}"


def public_names(room):
    """Functions and classes of a room that its face hands out; constants have no docstring of their own."""
    face = importlib.import_module(f"napari_kdseg.{room}")
    given = {name: getattr(face, name) for name in getattr(face, "__all__", vars(face))}
    return [
        name
        for name, value in given.items()
        if not name.startswith("_")
        and callable(value)
        and value.__doc__
        and value.__module__.startswith(face.__name__)
    ]


def test_every_room_with_a_face_has_a_page_in_the_reference():
    source = ROOT / "src" / "napari_kdseg"
    faces = {init.parent.name for init in source.glob("*/__init__.pyi")} | {"jobs"}
    assert faces <= set(ROOMS)


def test_every_decision_is_listed():
    listed = (DOCS / "decisions" / "index.md").read_text(encoding="utf-8").split()
    assert {page.stem for page in (DOCS / "decisions").glob("*.md")} - {"index"} <= set(listed)
