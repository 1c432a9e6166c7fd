"""The parts of a page, and the template that puts them together."""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from medjax.lab import tables
from medjax.lab.report import svg
from medjax.lab.settings import wording

MARK = '<meta name="generator" content="medjax report">'
"""The beginning of every page that `medjax report` writes, by which it knows its own."""

_HERE = Path(__file__).parent


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: its text.
        value: the number by which it is sorted, if it is one.
        link: the id of the section that it leads to.
    """

    text: str
    value: float | None = None
    link: str = ""


class Table(NamedTuple):
    """Rows that can be sorted and filtered."""

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @property
    def numeric(self) -> list[bool]:
        """True for each column of numbers."""
        return [
            any(cell.value is not None for cell in column)
            for column in zip(*self.rows, strict=True)
        ]


class Picture(NamedTuple):
    """A figure with its caption, and a description for readers who can't see it."""

    caption: str
    alt: str
    svg: Markup


class Facts(NamedTuple):
    """A list of names and their values."""

    heading: str
    entries: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        id: unique in the page.
        title: its heading.
        folder: the results' folder.
        notes: remarks to read first, such as that a run isn't finished.
        highlights: the most important figures, with their names.
        tables: the results' tables.
        pictures: the results' pictures.
        facts: settings, versions ...
    """

    id: str
    title: str
    folder: str = ""
    notes: Sequence[str] = ()
    highlights: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    facts: Sequence[Facts] = ()


def render(title: str, sections: Sequence[Section]) -> str:
    """Put a page together."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style, print_style, script = (
        Markup((_HERE / name).read_text(encoding="utf-8"))
        for name in ("page.css", "print.css", "page.js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html.j2").render(
        mark=Markup(MARK),
        title=title,
        sections=sections,
        style=style,
        print_style=print_style,
        script=script,
        script_digest=digest,
    )


def picture(figure: Figure, name: str, caption: str, alt: str = "") -> Picture:
    """Turn a figure into a picture of the page.

    Args:
        figure: made in the block of `svg.page_style`.
        name: unique in the page.
        caption: its caption.
        alt: more of it, in words.
    """
    return Picture(caption, " ".join(f"{caption}. {alt}".split()), svg.inline(figure, name))


def number(value: Any, error: float = math.nan) -> Cell:
    """Make the cell of a measurement; a missing or diverged one comes last when sorted."""
    if not isinstance(value, int | float):
        return Cell("–")
    return Cell(tables.rounded(value, error), value if math.isfinite(value) else None)


def spaced(name: str) -> str:
    """Write the name of a setting or a metric in words."""
    return name.replace("_", " ")


def words(value: Any) -> str:
    """Write a setting, or an entry of a record, as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {words(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else wording.short(value)


def facts(heading: str, record: Mapping[str, Any]) -> Facts:
    """List the entries of a record that aren't None."""
    return Facts(heading, [(spaced(k), words(v)) for k, v in record.items() if v is not None])


def provenance(record: Mapping[str, Any]) -> Facts:
    """List where results come from: command, commit, one's own files, device, versions."""
    names = ("command", "started", "commit", "own_code", "device", "mesh", "versions")
    return facts("Where it comes from", {name: record.get(name) or None for name in names})
