"""Several runs in one picture: `medjax compare DIR DIR ... --out FILE`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from medjax.lab import plots, tables
from medjax.lab.settings import cli, wording
from medjax.lab.storage import results, runs


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command; return its exit code. A mistake exits with 2."""
    parser = cli.Parser(
        "medjax compare",
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
    found = [runs.read(folder) for folder in arguments.runs]
    folders = [folder.name for folder in arguments.runs]
    if len(set(folders)) < len(folders):
        folders = [str(folder) for folder in arguments.runs]
    names = wording.labels([record["config"] for record, _ in found], folders)
    curves = [plots.Curves(name, c) for name, (_, c) in zip(names, found, strict=True)]
    results.write_figure(arguments.out, plots.comparison_figure(curves, arguments.title))
    words = {"run": [run.label for run in curves]}
    numbers = {
        name: [tables.rounded(run.columns[name][-1]) for run in curves]
        for name in ("step", *runs.COMPARED)
    }
    table = tables.text_table(words, numbers)
    tables.show(Console(highlight=False), table)
    print(f"\npicture in {arguments.out}")
    return 0
