"""Claims of a paper beside our measurements."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from rich.table import Table
from rich.text import Text

from medjax.lab.storage import results

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement of the paper's, beside our measurement.

    Attributes:
        figure: the experiment that shows it, such as "theory".
        claim: the statement, in words.
        where: its place in the paper, such as "Theorem 3".
        paper: the paper's value.
        ours: the value measured.
        holds: whether ours agrees with the paper's.
    """

    figure: str
    claim: str
    where: str
    paper: str
    ours: str
    holds: bool


def table(claims: Sequence[Claim]) -> Table:
    """Make a table of the claims for the terminal."""
    headings = ("where", "claim", "paper", "ours", "holds")
    rows = [(c.where, c.claim, c.paper, c.ours, "yes" if c.holds else "NO") for c in claims]
    return text_table(headings, rows)


def markdown(claims: Sequence[Claim]) -> str:
    """Make a Markdown table of the claims."""
    lines = ["| where | claim | paper | ours | holds |", "|---|---|---|---|---|"]
    for c in claims:
        cells = (c.where, c.claim, c.paper, c.ours, "yes" if c.holds else "**no**")
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def write(folder: Path, claims: Sequence[Claim]) -> None:
    """Write the claims as claims.parquet and claims.md.

    Args:
        folder: where the files go.
        claims: the claims.
    """
    results.write_table(folder / "claims.parquet", columns(claims))
    results.write_text(folder / "claims.md", markdown(claims))


def text_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Make a table without lines, in which columns of numbers are set to the right.

    Args:
        headings: the columns' names.
        rows: the cells.
    """
    result = Table(box=None, pad_edge=False, header_style="bold")
    for heading, column in zip(headings, zip(*rows, strict=True), strict=True):
        numeric = all(cell[:1] in "0123456789+-<" for cell in column)
        result.add_column(heading, justify="right" if numeric else "left")
    for row in rows:
        result.add_row(*map(Text, row))  # Text: brackets are no markup
    return result


def columns(rows: Sequence["DataclassInstance"]) -> dict[str, list[Any]]:
    """Turn rows of one dataclass, such as claims, into columns for `results.write_table`."""
    names = [field.name for field in dataclasses.fields(rows[0])] if rows else []
    return {name: [getattr(row, name) for row in rows] for name in names}


def log_slope(x: ArrayLike, y: ArrayLike, error: ArrayLike = 0.0) -> tuple[float, float]:
    """Fit the slope of log y against log x by least squares.

    Args:
        x: (k,), positive.
        y: (k,), positive, measured independently of each other.
        error: the standard errors of y.

    Returns:
        The slope, and its standard error.
    """
    log_x, log_y = np.log(x), np.log(y)
    centred = log_x - log_x.mean()
    weights = centred / np.sum(centred**2)
    return float(weights @ log_y), float(np.linalg.norm(weights * np.divide(error, y)))
