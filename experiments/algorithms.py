"""The study of algorithms: `python -m experiments.algorithms`.

All of them on heterogeneous MNIST: 20 workers whose classes are drawn with α = 0.1, batches of 32,
5 local steps where there are any. Each has the step size that is best on validation data, once at
equal budgets of steps, once at equal budgets of bits.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from experiments.algorithms_study import (
    FAMILIES,
    FULL,
    LOCAL_STEPS,
    QUICK,
    WORKERS,
    Size,
    candidates,
    entries,
)
from experiments.paper import arms
from experiments.paper.claims import text_table
from experiments.paper.options import check_images
from experiments.pictures import write_picture
from medjax.lab import plots
from medjax.lab.data import load
from medjax.lab.plots import Curves
from medjax.lab.settings import cli
from medjax.lab.settings.config import Settings
from medjax.lab.settings.flags import add_out
from medjax.lab.storage import results
from medjax.lab.tables import rounded

_GOAL = 0.85
_CHECKPOINT_EVERY = 200
_BUDGETS = ("steps", "bits")
_WORDS = {"steps": "numbers of batches", "bits": "numbers of bits"}
_AXES = {"steps": "batches of a worker", "bits": "bits for each parameter, sent and got"}


class Reached(NamedTuple):
    """Results of an algorithm, a number for each seed.

    Attributes:
        accuracy: the last test accuracy within the budget.
        rounds: those to the goal; NaN where it isn't reached.
        bits: those that a worker sends and gets until then, for each parameter.
    """

    accuracy: list[float]
    rounds: list[float]
    bits: list[float]


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command.

    Args:
        argv: the command line; by default the process's own.

    Returns:
        The exit code. A mistake in the settings exits with 2.
    """
    parser = cli.Parser("python -m experiments.algorithms", __doc__ or "")
    parser.add_argument("--quick", action="store_true", help="a twentieth of it, nothing chosen")
    parser.add_argument(
        "--dataset", metavar="NAME", default="mnist5k", help="(default: mnist5k; or idx:DIR)"
    )
    parser.add_argument(
        "--only",
        metavar="FAMILY",
        nargs="+",
        type=cli.one_of("family", FAMILIES),
        default=list(FAMILIES),
        help=f"(default: {', '.join(FAMILIES)})",
    )
    add_out(parser)
    arguments = parser.parse_args(argv)
    usual = QUICK if arguments.quick else FULL
    name = "algorithms-quick" if arguments.quick else "algorithms"
    folder = Path(arguments.out or results.DEFAULT_PARENT / name)
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
    names = list(dict.fromkeys(name for family in arguments.only for name in FAMILIES[family]))

    def work() -> int:
        check_images(arguments.dataset)
        size = usual._replace(num_params=num_params(arguments.dataset))
        chosen = choose(console, folder, size, arguments.dataset, names)
        trained = train(console, folder, size, chosen)
        title = _title(size, arguments.dataset)
        for budget in _BUDGETS:
            _show(console, folder, size, budget, {name: trained[budget, name] for name in names})
            panels = [(family, budget) for family in arguments.only]
            write_picture(folder, budget, figure(trained, panels, title))
        for family in arguments.only:
            panels = [(family, budget) for budget in _BUDGETS]
            write_picture(folder, family.replace(" ", "-"), figure(trained, panels, title))
        console.print(f"\nresults in {folder}", soft_wrap=True)
        return 0

    return cli.carry_out(parser, folder, work)


def choose(
    console: Console, folder: Path, size: Size, dataset: str, names: Sequence[str]
) -> dict[tuple[str, str], Settings]:
    """Choose the step sizes by the validation data, for each budget.

    Args:
        console: where to print.
        folder: where the results go.
        size: how much is run.
        dataset: the data set.
        names: the algorithms.

    Returns:
        The settings by budget and algorithm.
    """
    every = {name: candidates(entries()[name], size, dataset) for name in names}
    if size.choices == 1:
        return {(budget, name): every[name][0] for budget in _BUDGETS for name in names}
    runs = {(name, k): run for name, several in every.items() for k, run in enumerate(several)}
    curves = arms.train(console, folder / "tuning", runs, _CHECKPOINT_EVERY)

    def goodness(name: str, k: int, budget: str) -> float:
        curve = within(curves[name, k], size, budget)
        return float(np.nan_to_num(curve.columns["validation_accuracy"][-1]))

    return {
        (budget, name): several[max(range(len(several)), key=lambda k: goodness(name, k, budget))]
        for budget in _BUDGETS
        for name, several in every.items()
    }


def train(
    console: Console, folder: Path, size: Size, chosen: Mapping[tuple[str, str], Settings]
) -> dict[tuple[str, str], list[Curves]]:
    """Train each algorithm as chosen, with several seeds that nothing was chosen by.

    Args:
        console: where to print.
        folder: where the results go.
        size: how much is run.
        chosen: the settings by budget and algorithm.

    Returns:
        By budget and algorithm, each seed's curve within the budget.
    """
    seeds = range(1, size.seeds + 1)
    runs = {(key, seed): replace(run, seed=seed) for key, run in chosen.items() for seed in seeds}
    curves = arms.train(console, folder / "training", runs, _CHECKPOINT_EVERY)
    return {key: [within(curves[key, seed], size, key[0]) for seed in seeds] for key in chosen}


def num_params(dataset: str) -> int:
    """Return the number of the network's parameters, of one hidden layer of 128.

    Args:
        dataset: the data set.
    """
    data = load(dataset)
    pixels = math.prod(data.train_x.shape[1:])
    return 128 * (pixels + 1) + (128 + 1) * data.num_classes


def within(curve: Curves, size: Size, budget: str) -> Curves:
    """Return a curve with `bits`, what a worker sends and gets for each parameter, cut to a budget.

    Args:
        curve: the curve.
        size: the budgets.
        budget: "steps" or "bits".
    """
    columns = {name: np.asarray(x) for name, x in curve.columns.items()}
    bits = (columns["bits_up"] + columns["bits_down"]) / size.num_params / WORKERS
    kept = bits <= size.bits if budget == "bits" else np.ones(len(bits), bool)
    return Curves(curve.label, {name: x[kept] for name, x in (columns | {"bits": bits}).items()})


def reached(curves: Sequence[Curves]) -> Reached:
    """Return what an algorithm reaches.

    Args:
        curves: those of its seeds.
    """
    found = Reached([], [], [])
    for curve in curves:
        accuracy = np.asarray(curve.columns["test_accuracy"])
        found.accuracy.append(float(accuracy[-1]))
        there = np.flatnonzero(accuracy >= _GOAL)
        for name, values in (("step", found.rounds), ("bits", found.bits)):
            values.append(float(curve.columns[name][there[0]]) if len(there) else math.nan)
    return found


def figure(
    trained: Mapping[tuple[str, str], Sequence[Curves]],
    panels: Sequence[tuple[str, str]],
    title: str,
) -> Figure:
    """Draw test accuracies.

    Args:
        trained: by budget and algorithm, the curves of every seed.
        panels: the family and the budget of each.
        title: the picture's.
    """
    made, axes = plots.new_figure(-(-len(panels) // 2), min(2, len(panels)), title)
    made.set_figwidth(1.25 * made.get_figwidth())  # with legends beside the panels
    for axis in axes[len(panels) :]:
        axis.remove()
    for axis, (family, budget) in zip(axes, panels, strict=False):
        for k, (name, entry) in enumerate(FAMILIES[family].items()):
            curves = trained[budget, name]
            x = np.asarray(curves[0].columns["step" if budget == "steps" else "bits"], float)
            if budget == "steps" and entry.walks:
                x = LOCAL_STEPS * x
            several = np.array([curve.columns["test_accuracy"] for curve in curves])
            mean, error = (np.array(x) for x in zip(*map(_mean, several.T), strict=True))
            axis.plot(x, mean, label=name, linewidth=1.3, **plots.style(k))
            colour = plots.style(k)["color"]
            axis.fill_between(x, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
        axis.set_title(f"{family}, at equal {_WORDS[budget]}", fontsize=10)
        axis.set_ylim(0.3, 1)
        axis.set_ylabel("test accuracy")
        axis.set_xlabel(_AXES[budget])
        axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return made


def _show(
    console: Console, folder: Path, size: Size, budget: str, curves: Mapping[str, Sequence[Curves]]
) -> None:
    """Print the table and write it."""
    found = {name: reached(several) for name, several in curves.items()}
    rows = [
        {
            "algorithm": name,
            "step_size": float(_step_size(name, curves[name][0])),
            **{
                key: value
                for field, values in each._asdict().items()
                for key, value in zip((field, f"{field}_error"), _mean(values), strict=True)
            },
        }
        for name, each in found.items()
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    results.write_table(folder / f"{budget}.parquet", columns)
    told = [
        (
            str(row["algorithm"]),
            f"{row['step_size']:g}",
            *(
                "–" if math.isnan(row[x]) else rounded(row[x], row[f"{x}_error"])
                for x in ("accuracy", "rounds", "bits")
            ),
        )
        for row in rows
    ]
    what = f"{size.batches} batches" if budget == "steps" else f"{size.bits} bits per parameter"
    console.print(f"\nWithin {what} of each worker, mean ± standard error of {size.seeds} seeds:")
    headings = ("algorithm", "step size", "test accuracy", f"rounds to {_GOAL}")
    console.print(text_table((*headings, f"bits per parameter to {_GOAL}"), told))


def _step_size(name: str, curve: Curves) -> float:
    """Return the step size that was chosen."""
    (of,) = entries()[name].choices
    return float(np.asarray(curve.columns[of])[0])


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error, NaN where some seeds have no value."""
    if len(values) < 2:
        return values[0], math.nan
    # Equal values have no error, not even that of their sum.
    error = 0.0 if len(set(values)) == 1 else np.std(values, ddof=1) / math.sqrt(len(values))
    return float(np.mean(values)), float(error)


def _title(size: Size, dataset: str) -> str:
    error = f"; mean ± standard error of {size.seeds} seeds" if size.seeds > 1 else ""
    return (
        f"{dataset.partition(':')[0]}, 784-128-10, {WORKERS} workers, Dirichlet α = 0.1, batches "
        f"of 32{error}"
    )


if __name__ == "__main__":
    sys.exit(main())
