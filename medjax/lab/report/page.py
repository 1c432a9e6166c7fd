"""What a page consists of, and how it is put together."""

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

from medjax.lab import plots, tables
from medjax.lab.report import svg

MARK = '<meta name="generator" content="medjax report">'
"""What a page of ours has at its beginning."""

_HERE = Path(__file__).parent


class Cell(NamedTuple):
    """Of a table.

    Attributes:
        text: what it says.
        value: the number that it is sorted by, if it is one.
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
        """Which of the columns are numbers."""
        return [
            any(cell.value is not None for cell in column)
            for column in zip(*self.rows, strict=True)
        ]


class Picture(NamedTuple):
    """A figure, what it shows in a line, and in words for those who can't see it."""

    caption: str
    alt: str
    svg: Markup


class Facts(NamedTuple):
    """A list of names and what is behind them."""

    heading: str
    entries: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        id: unique in the page.
        title: what it is about.
        folder: where the results are.
        notes: what a reader should know first, such as that it isn't finished.
        highlights: the figures that count.
        tables: of results.
        pictures: of results.
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
    """The page."""
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
    """A figure for the page.

    Args:
        figure: made in the block of `svg.page_style`.
        name: unique in the page.
        caption: what it shows.
        alt: more of it, in words.
    """
    return Picture(caption, " ".join(f"{caption}. {alt}".split()), svg.inline(figure, name))


def number(value: Any, error: float = math.nan) -> Cell:
    """Make the cell of a measurement; a missing or diverged one comes last when sorted."""
    if not isinstance(value, int | float):
        return Cell("–")
    return Cell(tables.rounded(value, error), value if math.isfinite(value) else None)


def spaced(name: str) -> str:
    """A name of a setting or a metric, in words."""
    return name.replace("_", " ")


def words(value: Any) -> str:
    """A setting, or an entry of a record, as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {words(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else plots.short(value)


def facts(heading: str, record: Mapping[str, Any]) -> Facts:
    """The entries of a record that there are."""
    return Facts(heading, [(spaced(k), words(v)) for k, v in record.items() if v is not None])


def provenance(record: Mapping[str, Any]) -> Facts:
    """Where results come from."""
    names = ("command", "started", "commit", "device", "mesh", "versions")
    return facts("Where it comes from", {name: record.get(name) for name in names})
