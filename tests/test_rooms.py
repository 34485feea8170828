"""The walls of the house: no circle of imports, no room above a dozen modules, counted by ``scripts/rooms.py``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_MODULES = 12
#: Rooms that may have a file for each paper.
A_PAPER_A_FILE = ("losses", "methods", "papers")


@pytest.fixture(scope="module")
def rooms():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("rooms", ROOT / "scripts" / "rooms.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["rooms"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["rooms"]


@pytest.fixture
def house(tmp_path):
    """Write files of a made-up package, and return the folder that it lies in."""

    def build(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / "house" / f"{name.replace('__in__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for folder in [path for path in tmp_path.rglob("*") if path.is_dir()]:
            (folder / "__init__.py").touch()
        return tmp_path

    return build


# -- circles -----------------------------------------------------------------------------------------------------------


def test_imports_that_go_downward_are_no_circle(rooms, house):
    src = house(
        top="from house import middle\nfrom house.bottom import B",
        middle="import house.bottom",
        bottom="B = 1",
    )
    assert rooms.find_circles(src) == []


@pytest.mark.parametrize(
    "back",
    [
        "from house.top import T",
        "import house.top as other",
        "from house import top",
        "from .top import T",
        "from . import top",
        "def late():\n    from house.top import T",
        "class Late:\n    def method(self):\n        import house.top",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.top import T",
        "try:\n    from house.top import T\nexcept ImportError:\n    T = None",
    ],
)
def test_an_import_counts_wherever_it_stands(rooms, house, back):
    src = house(top="from house.middle import M\nT = 1", middle="from house.bottom import B", bottom=back)
    assert rooms.find_circles(src) == [["house.bottom", "house.middle", "house.top"]]


def test_circles_are_told_apart_and_the_largest_comes_first(rooms, house):
    src = house(
        a="import house.b",
        b="import house.a",
        c="import house.d, house.a",
        d="import house.e",
        e="import house.c",
        f="import house.c",
    )
    assert rooms.find_circles(src) == [["house.c", "house.d", "house.e"], ["house.a", "house.b"]]


def test_passing_through_a_package_is_no_import_of_its_face(rooms, house):
    src = house(
        room__in__one="from house.room.two import T",
        room__in__two="T = 1",
        room__in____init__="from house.room.one import T",
    )
    assert rooms.find_circles(src) == []


HOMES = """
import importlib
_HOMES = {"One": "one", "Deep": "inner.deep"}
def __getattr__(name):
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
"""
ATTACHED = """
import lazy_loader
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"one": ["One"]})
"""


@pytest.mark.parametrize("face", ["from house.room.one import One", HOMES, ATTACHED])
def test_a_file_that_imports_the_face_of_its_own_room_closes_a_circle(rooms, house, face):
    src = house(room__in__one="from house.room import One", room__in__two="", room__in____init__=face)
    assert rooms.find_circles(src) == [["house.room", "house.room.one"]]


def test_a_face_hands_out_what_its_stub_names(rooms, house):
    src = house(room__in__one="from house.room import One", room__in____init__="__getattr__ = None")
    assert rooms.find_circles(src) == []
    (src / "house" / "room" / "__init__.pyi").write_text("from .one import One as One\n")
    assert rooms.find_circles(src) == [["house.room", "house.room.one"]]


def test_words_in_a_face_without_getattr_are_no_imports(rooms, house):
    src = house(room__in__one="from house.room import NAMES", room__in____init__='NAMES = ["one"]')
    assert rooms.find_circles(src) == []


# -- functions ---------------------------------------------------------------------------------------------------------


def test_lines_are_counted_without_the_docstring(rooms, house):
    long = "@cached\ndef long():\n    '''Says\n    much.\n    '''\n" + "    x = 1\n" * 40
    fits = "def fits():\n    '''Says\n    much.\n    '''\n" + "    x = 1\n" * 39
    (room,) = rooms.count_rooms(house(a=long, b=fits))
    assert (room.name, room.modules, room.functions, room.long_functions) == ("house", 2, 2, 1)


def test_parameters_that_say_nothing(rooms, house):
    text = (
        "class A:\n    def f(self, a: Any, b: int, *args: Any, c: list[Any], d=None, **more: typing.Any): ...\n"
        "def g(x: 'Any', /, y: Any | None): ...\n"
    )
    (room,) = rooms.count_rooms(house(a=text))
    assert (room.parameters, room.any_parameters) == (8, 5)  # a, args, d, more, x


def test_the_table_adds_up(rooms, house):
    src = house(a="def f(x: Any): ...", room__in__b="def g(x: int): ...", room__in__c="")
    lines = [line.split() for line in rooms.table(rooms.count_rooms(src)).splitlines()]
    assert lines[1:] == [
        ["house", "1", "1", "0", "100.0", "%"],
        ["house.room", "2", "1", "0", "0.0", "%"],
        ["all", "3", "2", "0", "50.0", "%"],
    ]


# -- this house --------------------------------------------------------------------------------------------------------


def test_no_file_imports_another_in_a_circle(rooms):
    assert rooms.find_circles(ROOT / "src") == []


def test_every_room_is_small_enough_to_know(rooms):
    counted = {
        room.name: room.modules
        for room in rooms.count_rooms(ROOT / "src")
        if room.name.rpartition(".")[2] not in A_PAPER_A_FILE
    }
    assert len(counted) > 30
    assert {name: modules for name, modules in counted.items() if modules > MOST_MODULES} == {}
