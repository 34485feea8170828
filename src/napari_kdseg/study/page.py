"""A report as a list of blocks, written as Markdown and as one HTML file with its pictures in it."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .7em;border-bottom:1px solid #ccc;text-align:left}"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}img{max-width:100%}"
)
TYPES = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title."""

    level: int
    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph of plain words."""

    text: str


@dataclass(frozen=True)
class Figures:
    """A table; all columns but the first ``words`` hold numbers."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1


@dataclass(frozen=True)
class Picture:
    """A picture beside the page."""

    name: str
    caption: str


Block = Heading | Text | Figures | Picture


def to_markdown(blocks: Sequence[Block]) -> str:
    """Write the blocks as Markdown."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def from_markdown(text: str) -> list[Block]:
    """Read paragraphs and tables; whatever else Markdown knows is taken for a paragraph."""
    blocks: list[Block] = []
    for part in filter(None, (part.strip() for part in text.split("\n\n"))):
        if part.startswith("|"):
            header, _, *rows = (
                tuple(map(str.strip, line.strip()[1:-1].split("|"))) for line in part.splitlines()
            )
            blocks.append(Figures(header, tuple(rows)))
        else:
            blocks.append(Text(" ".join(part.split())))
    return blocks


def to_html(blocks: Sequence[Block], folder: Path) -> str:
    """Write the blocks as one HTML file; pictures are read from ``folder``."""
    title = next((block.text for block in blocks if isinstance(block, Heading)), "Report")
    body = "\n".join(_html(block, folder) for block in blocks)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {block.text}"
        case Text():
            return block.text
        case Picture():
            return f"![{block.caption}]({block.name})\n\n{block.caption}"
    sides = ["---" if number < block.words else "---:" for number in range(len(block.header))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (block.header, tuple(sides), *block.rows))


def _html(block: Block, folder: Path) -> str:
    match block:
        case Heading():
            return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
        case Text():
            return f"<p>{html.escape(block.text)}</p>"
        case Picture():
            path = folder / block.name
            data = base64.b64encode(path.read_bytes()).decode()
            source = f"data:{TYPES[path.suffix]};base64,{data}"
            words = html.escape(block.caption)
            return f'<figure><img src="{source}" alt="{words}"><figcaption>{words}</figcaption></figure>'

    def line(cells: Sequence[str], tag: str) -> str:
        marks = ["" if number < block.words else ' class="n"' for number in range(len(cells))]
        pairs = zip(cells, marks, strict=True)
        return "<tr>" + "".join(f"<{tag}{mark}>{html.escape(cell)}</{tag}>" for cell, mark in pairs) + "</tr>"

    rows = "\n".join([line(block.header, "th"), *(line(row, "td") for row in block.rows)])
    return f"<table>\n{rows}\n</table>"
