"""docs/networks.md says what the catalogue says. ``python tests/networks/test_docs.py`` writes its tables anew."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from napari_kdseg.networks import recommended_networks

PAGE = Path(__file__).parents[2] / "docs" / "networks.md"


def listed() -> str:
    rows = [
        "| name | role | parameters | multiply-adds | what it is | source |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for choice in recommended_networks():
        size, cost = f"{choice.parameters / 1e6:.3f} M", f"{choice.multiply_adds / 1e9:.2f} G"
        rows.append(
            f"| `{choice.name}` | {choice.role} | {size} | {cost} | {choice.description} | {choice.source} |"
        )
    return "\n".join(rows)


def printed() -> str:
    rows = ["| name | printed |", "| --- | --- |"]
    rows += [
        f"| `{choice.name}` | {choice.printed.describe()} |"
        for choice in recommended_networks()
        if choice.printed
    ]
    return "\n".join(rows)


TABLES = {"networks": listed, "printed": printed}


@pytest.mark.parametrize("table", TABLES)
def test_tables_are_those_of_the_catalogue(table):
    inside = re.search(rf"<!-- table:{table} -->\n(.*?)\n?<!-- end:{table} -->", PAGE.read_text(), re.DOTALL)
    assert inside[1].strip() == TABLES[table](), "run python tests/networks/test_docs.py"


if __name__ == "__main__":
    page = PAGE.read_text()
    for name, table in TABLES.items():
        page = re.sub(
            rf"(<!-- table:{name} -->\n).*?(<!-- end:{name} -->)",
            lambda found, table=table: f"{found[1]}{table()}\n{found[2]}",
            page,
            flags=re.DOTALL,
        )
    PAGE.write_text(page)
