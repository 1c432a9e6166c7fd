"""Published tables beside ours: `python -m experiments.published --dataset idx:DIR`.

Tables 2 and 3 of Karimireddy, He and Jaggi (2022), "Byzantine-Robust Learning on Heterogeneous
Datasets via Bucketing": 20 honest workers, each with 3000 images of MNIST, and 5 that all send what
one of the honest ones does. Test accuracy by rule, of iid images and of images sorted by digit,
without bucketing and with buckets of two.
"""

import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from experiments.paper.claims import text_table
from experiments.paper.options import check_images
from experiments.pictures import write_picture
from medjax.lab import plots
from medjax.lab.settings import cli
from medjax.lab.settings.config import Settings, configure
from medjax.lab.settings.flags import add_out
from medjax.lab.storage import results
from medjax.lab.sweeps.select import Columns
from medjax.lab.sweeps.session import run_grid
from medjax.lab.task.training import stop_on_signal

RULES: Mapping[str, Mapping[str, Any]] = {
    "mean": {"rule": "mean"},
    "Krum": {"rule": "experiments.published_parts:krum"},
    "median": {"rule": "median"},
    "RFA": {"rule": "geometric_median:num_steps=8,nu=0.1"},
    "CClip": {"rule": "centered_clipping_from_last:tau=10,num_steps=3"},
}
"""The rules by their names in the tables, with the authors' settings."""

SPLITS = {"iid": "iid", "sorted": "shards"}
MIXINGS = {"none": None, "bucketing": "bucketing:bucket_size=2"}

Cell = tuple[str, str, str]
"""Mixing, split and rule."""


class Published(NamedTuple):
    """A published accuracy, in percent, with the standard deviation over the authors' 3 runs."""

    mean: float
    deviation: float


_RUNS = 3
PUBLISHED: Mapping[tuple[str, str], Sequence[Published]] = {
    ("none", "iid"): [
        Published(93.20, 0.21),
        Published(90.36, 0.25),
        Published(90.80, 0.12),
        Published(92.92, 0.25),
        Published(93.16, 0.22),
    ],
    ("none", "sorted"): [
        Published(92.73, 0.32),
        Published(37.33, 6.78),
        Published(64.27, 3.70),
        Published(78.93, 9.27),
        Published(91.53, 0.06),
    ],
    ("bucketing", "iid"): [
        Published(93.17, 0.23),
        Published(91.64, 0.30),
        Published(91.91, 0.24),
        Published(93.00, 0.23),
        Published(93.17, 0.23),
    ],
    ("bucketing", "sorted"): [
        Published(92.67, 0.27),
        Published(53.15, 3.96),
        Published(78.60, 3.15),
        Published(91.17, 0.51),
        Published(92.56, 0.21),
    ],
}
"""The tables: by mixing and split, for each rule in turn."""

_COPIED = (10, 6, 7)
"""The honest worker that the others copy, by the seed.

The authors' attackers choose one in the first step. In their three runs with sorted images it had
sevens, eights and zeros, and so do these with MNIST's 60,000 images; with other data they have
other classes.
"""

_STEPS, _EVERY = 600, 30
_AVERAGED = 5  # the last measurements, of 20: the published accuracy of a run
_COMMON: Mapping[str, Any] = {
    "workers": 25,
    "byzantine": 5,
    "byzantine_data": "copied",
    "batch_size": 32,
    "lr": 0.01,
    "eval_examples": 16,
    "model": "experiments.published_parts:Network",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command.

    Args:
        argv: the command line; by default the process's own.

    Returns:
        The exit code. A mistake in the settings exits with 2.
    """
    parser = cli.Parser("python -m experiments.published", __doc__ or "")
    parser.add_argument(
        "--dataset", metavar="NAME", default="mnist5k", help="the authors' is idx:DIR of MNIST"
    )
    parser.add_argument("--seeds", metavar="K", type=cli.integer(1), default=3, help="(default: 3)")
    for name, valid in (("mixing", MIXINGS), ("split", SPLITS), ("rule", RULES)):
        parser.add_argument(
            f"--{name}",
            metavar="NAME",
            nargs="+",
            type=cli.one_of(name, valid),
            action=cli.Once,
            help=f"(default: {' '.join(valid)})",
        )
    parser.add_argument(
        "--steps", metavar="T", type=cli.integer(1), default=_STEPS, help=f"(default: {_STEPS})"
    )
    add_out(parser)
    arguments = parser.parse_args(argv)
    folder = Path(arguments.out or results.DEFAULT_PARENT / "published")
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
    mixings, splits = arguments.mixing or MIXINGS, arguments.split or SPLITS
    cells = list(itertools.product(mixings, splits, arguments.rule or RULES))
    every = min(_EVERY, arguments.steps)
    given = {"dataset": arguments.dataset, "steps": arguments.steps, "eval_every": every}

    def work() -> int:
        check_images(arguments.dataset)
        # Seed by seed, so that what there is when it is stopped covers the table.
        runs = [run(cell, seed=k, **given) for k in range(arguments.seeds) for cell in cells]
        with (
            stop_on_signal() as stop,
            run_grid(console, folder, runs, stop, checkpoint_every=every) as columns,
        ):
            stop.finishing = True
            _show(console, folder, accuracies(cells, runs, columns))
            write_picture(folder, "published", figure(cells, runs, columns))
        return 0

    return cli.carry_out(parser, folder, work)


def run(cell: Cell, seed: int, **settings: Any) -> Settings:
    """Return the settings of a run.

    Args:
        cell: its place in the tables.
        seed: the run's seed.
        **settings: further settings.
    """
    mixing, split, rule = cell
    return configure(
        drop=True,  # the attackers that most of the rules aren't told of
        mix=MIXINGS[mixing],
        partition=SPLITS[split],
        shards_per_worker=1,
        seed=seed,
        attack=f"mimic:worker={_COPIED[seed % len(_COPIED)]}",
        **{**_COMMON, **RULES[rule], **settings},
    )


def accuracies(
    cells: Sequence[Cell], runs: Sequence[Settings], columns: Columns
) -> dict[Cell, list[float]]:
    """Return the test accuracies of each cell's runs, in percent, each of its last measurements.

    Args:
        cells: the cells, in the order of the runs.
        runs: the runs: for each seed, all cells.
        columns: their measurements.
    """
    found: dict[Cell, list[float]] = {cell: [] for cell in cells}
    for k, cell in zip(range(len(runs)), itertools.cycle(cells), strict=False):
        last = np.asarray(columns["test_accuracy"])[columns["run"] == k][-_AVERAGED:]
        found[cell].append(100 * float(last.mean()))
    return found


def rows(found: Mapping[Cell, Sequence[float]]) -> list[dict[str, str | float]]:
    """Return the table: published and ours, each with its standard error.

    Args:
        found: the accuracies of each cell's runs.
    """
    table: list[dict[str, str | float]] = []
    for (mixing, split, rule), values in found.items():
        theirs = PUBLISHED[mixing, split][list(RULES).index(rule)]
        error = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        table.append(
            {
                "mixing": mixing,
                "split": split,
                "rule": rule,
                "published": theirs.mean,
                "published_error": theirs.deviation / math.sqrt(_RUNS),
                "ours": float(np.mean(values)),
                "error": float(error),
            }
        )
    return table


def figure(cells: Sequence[Cell], runs: Sequence[Settings], columns: Columns) -> Figure:
    """Draw the accuracies over the steps, averaged over the seeds, beside the published ones.

    Args:
        cells: the cells, in the order of the runs.
        runs: the runs: for each seed, all cells.
        columns: their measurements.
    """
    tables = list(dict.fromkeys(cell[:2] for cell in cells))
    rows = max(1, len(tables) // 2)
    drawn, axes = plots.new_figure(rows, len(tables) // rows, "Test accuracy; dashed: published")
    for axis, (mixing, split) in zip(axes, tables, strict=True):
        extra = "" if mixing == "none" else f" and {mixing}"
        axis.set_title(f"{split} images{extra}", fontsize=10)
        axis.set(xlabel="step", ylabel="percent", ylim=(0, 101))
    by_run = [np.asarray(columns["test_accuracy"])[columns["run"] == k] for k in range(len(runs))]
    steps = np.asarray(columns["step"])[columns["run"] == 0]
    for k, cell in enumerate(cells):
        axis, rule = axes[tables.index(cell[:2])], list(RULES).index(cell[2])
        mean = np.mean(by_run[k :: len(cells)], axis=0)
        axis.plot(steps, 100 * mean, color=plots.COLOURS[rule], label=cell[2])
        theirs = PUBLISHED[cell[:2]][rule].mean
        axis.axhline(theirs, color=plots.COLOURS[rule], linestyle="--", linewidth=1)
    plots.legend_below(drawn, *axes[0].get_legend_handles_labels())
    return drawn


def _show(console: Console, folder: Path, found: Mapping[Cell, Sequence[float]]) -> None:
    """Print the table and write it."""
    table = rows(found)
    results.write_table(folder / "table.parquet", {k: [row[k] for row in table] for k in table[0]})
    cells = [
        (
            *(str(row[name]) for name in ("mixing", "split", "rule")),
            _with_error(row["published"], row["published_error"]),
            _with_error(row["ours"], row["error"]),
        )
        for row in table
    ]
    console.print("\nTest accuracy in percent, mean ± standard error:")
    console.print(text_table(("mixing", "images", "rule", "published", "ours"), cells))
    console.print(f"\nresults in {folder}", soft_wrap=True)


def _with_error(mean: str | float, error: str | float) -> str:
    return f"{mean:.2f}" + ("" if np.isnan(error) else f" ± {error:.2f}")  # NaN with one seed


if __name__ == "__main__":
    sys.exit(main())
