#!/usr/bin/env python
"""How crowded the rooms of the house are, and which files import each other in circles.

    python scripts/rooms.py [SRC]

A *room* is a folder of Python files. For each: its modules (``__init__.py`` is the room's face and not counted), its
functions, how many of them have more than 40 lines without their docstring, and how many of their parameters are
annotated with nothing but ``Any`` (or not at all; ``self`` and ``cls`` do not count).

A *circle* is a set of files each of which reaches all others along imports. Imports at the top of a file, inside
functions and under ``TYPE_CHECKING`` count alike. ``from package import module`` is an import of the module;
``from package import name`` is one of the package's face, its ``__init__.py``. A face imports what it hands out, also
what it hands out lazily: the modules in its stub (``__init__.pyi``), and, if it has a ``__getattr__``, those that its
tables name. So a file that imports the face of its own room closes a circle. Passing through ``package`` on the way to
``package.module`` is no import of the face, and text like ``"module:function"``, which names what a job runs, is none.

Only the standard library is used, and nothing of the project is run.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

LONGEST = 40
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One file, read and not run.

    Attributes
    ----------
    name
        As it is imported; that of a face is the name of its package.
    is_face
        Whether it is an ``__init__.py``.
    tree
        What it says.
    stub
        What the stub of a face says.
    """

    name: str
    is_face: bool
    tree: ast.Module
    stub: ast.Module | None = None

    @property
    def room(self) -> str:
        """The package it lies in; a face lies in its own."""
        return self.name if self.is_face else self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Room:
    """What is counted of one folder; parameters are those of its functions."""

    name: str
    modules: int
    functions: int
    long_functions: int
    parameters: int
    any_parameters: int


def read_modules(src: Path) -> dict[str, Module]:
    """Read all Python files of all packages in ``src``, by name."""
    found = {}
    for path in sorted(src.rglob("*.py")):
        parts = path.relative_to(src).with_suffix("").parts
        is_face = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_face else parts)
        if name:
            stub = path.with_suffix(".pyi")
            found[name] = Module(name, is_face, _parse(path), _parse(stub) if stub.exists() else None)
    return found


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


# -- imports -----------------------------------------------------------------------------------------------------------


def imports_of(module: Module, modules: Mapping[str, Module]) -> set[str]:
    """Return the names of the modules that one imports, wherever in the file."""
    found: set[str] = set()
    for tree in filter(None, (module.tree, module.stub)):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = _base(node, module)
                full = {alias.name: f"{base}.{alias.name}" for alias in node.names}
                found |= {full[name] if full[name] in modules else base for name in full}
    if module.is_face:
        found |= _handed_out_lazily(module, modules)
    return (found & set(modules)) - {module.name}


def _base(node: ast.ImportFrom, module: Module) -> str:
    """Return the absolute name of the module that names are taken from."""
    if not node.level:
        return node.module or ""
    package = module.room.split(".")
    above = package[: len(package) - node.level + 1]
    return ".".join([*above, node.module] if node.module else above)


def _handed_out_lazily(module: Module, modules: Mapping[str, Module]) -> set[str]:
    """Return the modules of a room that the tables of its face name, if it looks names up when they are asked for."""
    statements = module.tree.body
    if not any("__getattr__" in _bound(statement) for statement in statements):
        return set()
    texts = (
        node.value
        for statement in statements
        for node in ast.walk(statement)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return {f"{module.name}.{text}" for text in texts} & set(modules)


def _bound(statement: ast.stmt) -> set[str]:
    """Return the names that a statement defines."""
    if isinstance(statement, Function):
        return {statement.name}
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}


def circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the sets of modules that reach each other, the largest first (Kosaraju's algorithm)."""
    importers: dict[str, set[str]] = {name: set() for name in imports}
    for name, imported in imports.items():
        for other in imported:
            importers[other].add(name)
    seen: set[str] = set()
    order = [name for start in sorted(imports) for name in _depth_first(start, imports, seen)]
    seen = set()
    groups = [sorted(_depth_first(start, importers, seen)) for start in reversed(order)]
    return sorted((group for group in groups if len(group) > 1), key=lambda group: (-len(group), group))


def _depth_first(start: str, edges: Mapping[str, set[str]], seen: set[str]) -> Iterator[str]:
    """Yield what is reached from ``start`` and was not seen before, each after all that it reaches."""
    if start in seen:
        return
    seen.add(start)
    path = [(start, iter(sorted(edges[start])))]
    while path:
        name, others = path[-1]
        new = next((other for other in others if other not in seen), None)
        if new is None:
            path.pop()
            yield name
        else:
            seen.add(new)
            path.append((new, iter(sorted(edges[new]))))


def find_circles(src: Path) -> list[list[str]]:
    """Return the circles of all packages in ``src``."""
    modules = read_modules(src)
    return circles({name: imports_of(module, modules) for name, module in modules.items()})


# -- functions ---------------------------------------------------------------------------------------------------------


def length_without_docstring(function: Function) -> int:
    """Lines from ``def`` to the end, its docstring left out."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is None:
        return lines
    return lines - ((first.end_lineno or first.lineno) - first.lineno + 1)


def parameters_of(function: Function) -> list[ast.arg]:
    """All parameters but ``self`` and ``cls``."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    rest = [argument for argument in (given.vararg, given.kwarg) if argument is not None]
    return [argument for argument in named + rest if argument.arg not in ("self", "cls")]


def says_nothing(parameter: ast.arg) -> bool:
    """Tell whether a parameter is annotated with ``Any`` alone, or not at all."""
    annotation = parameter.annotation
    return annotation is None or ast.unparse(annotation).strip("'\"").rpartition(".")[2] == "Any"


def count_rooms(src: Path) -> list[Room]:
    """Count every room in ``src``."""
    rooms: dict[str, list[Module]] = {}
    for module in read_modules(src).values():
        rooms.setdefault(module.room, []).append(module)
    return [_count(name, modules) for name, modules in sorted(rooms.items())]


def _count(name: str, modules: list[Module]) -> Room:
    functions = [node for each in modules for node in ast.walk(each.tree) if isinstance(node, Function)]
    parameters = [parameter for function in functions for parameter in parameters_of(function)]
    return Room(
        name=name,
        modules=sum(not each.is_face for each in modules),
        functions=len(functions),
        long_functions=sum(length_without_docstring(function) > LONGEST for function in functions),
        parameters=len(parameters),
        any_parameters=sum(map(says_nothing, parameters)),
    )


# -- the table ---------------------------------------------------------------------------------------------------------


def table(rooms: list[Room]) -> str:
    """Lay out the counts in columns, all rooms together in the last line."""
    rows = [("room", "modules", "functions", f"> {LONGEST} lines", "bare Any")]
    together = Room("all", *(sum(column) for column in zip(*(_figures(room) for room in rooms), strict=True)))
    for room in [*rooms, together]:
        share = f"{100 * room.any_parameters / room.parameters:.1f} %" if room.parameters else "-"
        rows.append(
            (room.name, str(room.modules), str(room.functions), str(room.long_functions), share),
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def _figures(room: Room) -> tuple[int, ...]:
    return room.modules, room.functions, room.long_functions, room.parameters, room.any_parameters


def main() -> None:
    """Print the table and the circles."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = Path(__file__).resolve().parents[1] / "src"
    parser.add_argument(
        "src", nargs="?", type=Path, default=here, help="folder of the packages (default: %(default)s)"
    )
    src = parser.parse_args().src
    print(table(count_rooms(src)))
    found = find_circles(src)
    print(f"\ncircles of imports: {len(found)}")
    for circle in found:
        print(f"  {len(circle)} files: {', '.join(circle)}")


if __name__ == "__main__":
    main()
