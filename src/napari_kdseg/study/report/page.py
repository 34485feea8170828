"""A report as a list of blocks, written as Markdown and as one HTML file with its pictures in it."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from mimetypes import guess_type
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt

STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:76em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .7em;border-bottom:1px solid #ccc;text-align:left}"
    "p{max-width:62em}td{font-variant-numeric:tabular-nums}td[style*=right]{white-space:nowrap}img{max-width:100%}"
)


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title."""

    level: int
    text: str


@dataclass(frozen=True)
class Text:
    """Words, in Markdown."""

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


def to_html(blocks: Sequence[Block], folder: Path) -> str:
    """Write the blocks as one HTML file; pictures are read from ``folder`` and lie within it."""
    title = next((block.text for block in blocks if isinstance(block, Heading)), "Report")
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(to_markdown(blocks))
    for picture in (part for token in tokens for part in token.children or () if part.type == "image"):
        path = folder / unquote(str(picture.attrs["src"]))
        if path.is_file():
            data = base64.b64encode(path.read_bytes()).decode()
            picture.attrs["src"] = f"data:{guess_type(path.name)[0]};base64,{data}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{reader.renderer.render(tokens, reader.options, {})}</body></html>\n"
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
