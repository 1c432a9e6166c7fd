"""Options, tables and files that the commands share."""

import argparse
import math
import os
from collections.abc import Iterable, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from medjax.lab.settings import cli
from medjax.lab.storage import results

NOT_MEASURED = "—"
# The load of other processes, as this one has yet to work: they distort every figure.
_LOAD_AT_START = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
_VERSIONS = ("python", "jax", "jaxlib", "numpy", "optax")


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every command."""
    parser.add_argument(
        "--repeats", metavar="R", type=cli.integer(1), default=5, help="turns (default: 5)"
    )
    parser.add_argument("--json", metavar="FILE", type=file, help="also write all figures here")


def file(text: str) -> Path:
    """Parse, for argparse, a file that can be written, so that no figures are lost at the end."""
    path = Path(text)
    try:
        if path.is_dir():
            raise argparse.ArgumentTypeError(f"{text!r} is a folder")
        results.check_writable(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise argparse.ArgumentTypeError(f"{text!r} can't be written: {reason}") from None
    return path


def picture(text: str) -> Path:
    """Parse, for argparse, a file for a picture."""
    if Path(text).suffix not in (".png", ".svg", ".pdf"):
        raise argparse.ArgumentTypeError(f"{text!r} must end in .png, .svg or .pdf")
    return file(text)


def optional(package: str) -> Any:
    """Import a package, or return None where it, or a package that it needs, isn't installed."""
    try:
        return import_module(package)
    except ImportError:
        return None


def provenance(packages: Iterable[str] = ()) -> dict[str, Any]:
    """Return the record that explains the figures, with the versions of further packages."""
    record = results.provenance()
    record["device"]["load_at_start"] = _LOAD_AT_START
    record["versions"] |= {package: metadata.version(package) for package in packages}
    return record


def print_machine(record: dict[str, Any], packages: Iterable[str] = ()) -> None:
    """Print the machine and the versions of the packages."""
    device = record["device"]
    versions = (f"{name} {record['versions'][name]}" for name in (*_VERSIONS, *packages))
    print(
        f"{device['count']} {device['kind']} device(s), platform {device['platform']} "
        f"({device['machine']}), {device['cores']} cores, "
        f"load {device['load_at_start']:.1f} at the start"
    )
    print(", ".join(versions) + "\n")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], width: int = 100) -> None:
    """Print a table with words in the first column and numbers in the others."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == headings[0] else "right")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, width=width).print(table)
    print()


def cells(formats: Sequence[str], values: Sequence[Any]) -> list[str]:
    """Format the values, NaN as a dash."""
    return [
        NOT_MEASURED if isinstance(value, float) and math.isnan(value) else form.format(value)
        for form, value in zip(formats, values, strict=True)
    ]


def digits(value: float, count: int = 3) -> str:
    """Format a number with that many significant digits, and all before the point: 0.0844, 1234."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.{max(0, count - 1 - math.floor(math.log10(abs(value))))}f}"


def ratio(value: float | None) -> str:
    """Format a ratio with two digits or more, None as a dash."""
    if value is None:
        return NOT_MEASURED
    return f"{value:.0f}×" if value >= 10 else f"{value:.1f}×" if value >= 1 else f"{value:.2f}×"
