"""Several runs in one picture: `python -m experiments.compare DIR DIR ... --out FILE`."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments import cli, plots, results

METRICS = ("train_loss", "train_accuracy", "test_accuracy", "grad_norm", "median_mean_gap")
"""What is compared in a table."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. A mistake exits with 2."""
    parser = cli.Parser(
        "python -m experiments.compare",
        "Draw the curves of several runs in one picture, and print their last measurements.",
    )
    parser.add_argument("runs", metavar="DIR", nargs="+", type=Path, help="a run's folder")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        default=Path("comparison.png"),
        help="the picture: .png, .svg or .pdf (default: comparison.png)",
    )
    parser.add_argument("--title", metavar="TEXT", default="", help="(default: none)")
    arguments = parser.parse_args(argv)
    if arguments.out.suffix not in (".png", ".svg", ".pdf"):
        parser.error(f"--out {arguments.out}: the name must end in .png, .svg or .pdf")
    return cli.carry_out(parser, arguments.out, lambda: _compare(arguments))


def _compare(arguments: argparse.Namespace) -> int:
    runs = [read(folder) for folder in arguments.runs]
    names = labels(
        [record["config"] for record, _ in runs], [folder.name for folder in arguments.runs]
    )
    curves = [plots.Curves(name, c) for name, (_, c) in zip(names, runs, strict=True)]
    results.write_figure(arguments.out, plots.comparison_figure(curves, arguments.title))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("run", "step", *METRICS):
        table.add_column(heading, justify="left" if heading == "run" else "right")
    for run in curves:
        last = (f"{run.columns[metric][-1]:.4g}" for metric in METRICS)
        table.add_row(Text(run.label), f"{run.columns['step'][-1]}", *last)
    Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(table)
    print(f"\npicture in {arguments.out}")
    return 0


def labels(configs: Sequence[Mapping[str, Any]], folders: Sequence[str]) -> list[str]:
    """A name for each run: its rule and the settings in which the runs differ.

    Where that leaves two runs with one name, the names of the folders are added.
    """
    telling = plots.telling(configs)
    names = [plots.named(config, telling) for config in configs]
    if len(set(names)) == len(names):
        return names
    return [f"{name} ({folder})" for name, folder in zip(names, folders, strict=True)]


def read(folder: Path) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """What a run's configuration says, its settings under `config`; and its measurements.

    Raises:
        ValueError: if the folder doesn't hold a run, or one of which nothing is measured.
    """
    try:
        record = results.read_config(folder)
        if not record:
            raise ValueError(f"there is no {results.CONFIG}")
        plots.describe(record["config"])  # has what every run has
        columns = results.read_table(folder / "metrics.parquet").to_pydict()
        missing = {"step", *METRICS} - {name for name, values in columns.items() if values}
        if missing:
            raise ValueError(f"metrics.parquet lacks {', '.join(sorted(missing))}")
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"{str(folder)!r} doesn't hold a run: {error}") from None
    return record, columns


if __name__ == "__main__":
    sys.exit(main())
