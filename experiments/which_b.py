"""The study of the noise scale b: `python -m experiments.which_b`.

Every fixed b, and every adaptive one (a fraction of each tensor's largest local gradient), in every
problem: signs and medians, a convex model with 10 and 40 workers, a network with 10, and
Dirichlet partitions from extreme to none. The regret of a choice is the test accuracy that it loses
against the best fixed b of the problem, averaged over seeds.
"""

import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from experiments.paper.claims import text_table
from experiments.pictures import write_picture
from medjax.lab import plots
from medjax.lab.settings import cli, wording
from medjax.lab.settings.config import Settings, configure
from medjax.lab.settings.field import plain
from medjax.lab.settings.flags import add_out
from medjax.lab.storage import results
from medjax.lab.sweeps import select
from medjax.lab.sweeps.select import Statistic
from medjax.lab.sweeps.session import run_grid
from medjax.lab.task.training import stop_on_signal

FIXED = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
ADAPTIVE = ("adaptive:0.01", "adaptive:0.1", "adaptive:1")
CHOICES = (*FIXED, *ADAPTIVE)
ALPHAS = (0.01, 0.1, 1.0, None)  # None: iid, which is α = ∞
# A vote's step is a length per coordinate.
STEP_SIZES = {"noisy_sign": 0.003, "noisy_median": 0.1}
BATCH_SIZES = {10: 32, 40: 8}
MODELS = {"logistic": (10, 40), "mlp": (10,)}  # to the numbers of workers

Problem = tuple[str, str, int, float | None]
"""Rule, model, n and α."""


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command.

    Args:
        argv: the command line; by default the process's own.

    Returns:
        The exit code. A mistake in the settings exits with 2.
    """
    parser = cli.Parser("python -m experiments.which_b", __doc__ or "")
    parser.add_argument("--seeds", metavar="K", type=cli.integer(1), default=5, help="(default: 5)")
    parser.add_argument(
        "--steps", metavar="T", type=cli.integer(1), default=300, help="(default: 300)"
    )
    parser.add_argument("--dataset", metavar="NAME", default="mnist5k", help="(default: mnist5k)")
    add_out(parser)
    arguments = parser.parse_args(argv)
    folder = Path(arguments.out or results.DEFAULT_PARENT / "which-b")
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
    common = {k: getattr(arguments, k) for k in ("steps", "dataset")}

    def work() -> int:
        runs = [
            run(problem, b, seed=seed, **common)
            for problem in problems()
            for b, seed in itertools.product(CHOICES, range(arguments.seeds))
        ]
        with stop_on_signal() as stop, run_grid(console, folder, runs, stop) as columns:
            stop.finishing = True
            _show(console, folder, accuracies(runs, columns))
        return 0

    return cli.carry_out(parser, folder, work)


def _show(
    console: Console, folder: Path, found: Mapping[tuple[Problem, float | str], Statistic]
) -> None:
    """Print the regrets; write them, and the picture."""
    rows = [regrets(found, problem) for problem in problems()]
    headings = ("rule", "model", "n", "α", "best b", *map(wording.short, CHOICES))
    results.write_table(
        folder / "regret.parquet", {h: [row[k] for row in rows] for k, h in enumerate(headings)}
    )
    cells = [[x if isinstance(x, str) else f"{x:.3f}" for x in row] for row in rows]
    worst = (f"{max(row[k] for row in rows):.3f}" for k in range(5, len(headings)))
    cells.append(["worst", "", "", "", "", *worst])
    console.print("\nTest accuracy lost against the best fixed b of the problem:")
    console.print(text_table(headings, cells))
    write_picture(folder, "which-b", figure(found))
    console.print(f"\nresults in {folder}", soft_wrap=True)


def problems() -> list[Problem]:
    """Return every combination."""
    return [
        (rule, model, n, alpha)
        for rule in STEP_SIZES
        for model, workers in MODELS.items()
        for n in workers
        for alpha in ALPHAS
    ]


def run(problem: Problem, b: float | str, **settings: Any) -> Settings:
    """Return the settings of a run of a problem.

    Args:
        problem: the problem.
        b: the scale of the noise, fixed or adaptive.
        **settings: further settings.
    """
    rule, model, n, alpha = problem
    split: dict[str, Any] = {"partition": "iid"}
    if alpha is not None:
        split = {"partition": "dirichlet", "alpha": alpha}
    return configure(
        rule=rule,
        model=model,
        workers=n,
        batch_size=BATCH_SIZES[n],
        lr=STEP_SIZES[rule],
        b=b,
        eval_every=settings["steps"],
        validation=0.1,
        **split,
        **settings,
    )


def accuracies(
    runs: Sequence[Settings], columns: select.Columns
) -> dict[tuple[Problem, float | str], Statistic]:
    """Return the last test accuracy of each problem and b.

    Args:
        runs: the runs.
        columns: their measurements.
    """
    return {
        (
            (str(c.run.rule), str(c.run.model), c.run.workers, c.run.alpha),
            plain(c.run.b) if c.run.b is not None else 0.0,
        ): c.final["test_accuracy"]
        for c in select.candidates(runs, columns)
    }


def regrets(found: Mapping[tuple[Problem, float | str], Statistic], problem: Problem) -> list[Any]:
    """Return the problem in words, its best fixed b, and each choice's loss against that.

    Args:
        found: the accuracies.
        problem: the problem.
    """
    means = {b: found[problem, b].mean for b in CHOICES}
    best = max(FIXED, key=lambda b: means[b])
    rule, model, n, alpha = problem
    split = "∞" if alpha is None else wording.short(alpha)
    words = [rule, model, str(n), split, wording.short(best)]
    return [*words, *(means[best] - means[b] for b in CHOICES)]


def figure(found: Mapping[tuple[Problem, float | str], Statistic]) -> Figure:
    """Draw test accuracy against b, a panel for each rule and model, a line for each n and α."""
    kinds = list(itertools.product(STEP_SIZES, MODELS))
    drawing, axes = plots.new_figure(
        2,
        len(kinds) // 2,
        "Test accuracy against the noise scale: mean ± standard error over seeds",
    )
    places = np.arange(len(CHOICES)) + (np.arange(len(CHOICES)) >= len(FIXED))  # a gap between
    for axis, (rule, model) in zip(axes, kinds, strict=True):
        for (number, n), (colour, alpha) in itertools.product(
            enumerate(MODELS[model]), zip(plots.COLOURS, ALPHAS, strict=False)
        ):
            values = [found[(rule, model, n, alpha), b] for b in CHOICES]
            label = f"α = {'∞' if alpha is None else wording.short(alpha)}, n = {n}"
            for part in (slice(len(FIXED)), slice(len(FIXED), None)):
                axis.errorbar(
                    places[part],
                    [value.mean for value in values[part]],
                    [value.error for value in values[part]],
                    color=colour,
                    linestyle=("-", "--")[number],
                    marker=("o", "s")[number],
                    markersize=3.5,
                    linewidth=1.2,
                    label=label if part.start is None else None,
                )
        names = [wording.short(b).replace("adaptive:", "a ") for b in CHOICES]
        axis.set_xticks(places, names, fontsize=8)
        axis.set_xlabel("b: fixed, and (a) a fraction of the largest gradient", fontsize=9)
        axis.set_ylabel("test accuracy")
        axis.set_ylim(0, 1)
        axis.set_title(f"{rule}, {model}", fontsize=10)
    drawing.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        fontsize=8,
        frameon=False,
    )
    return drawing


if __name__ == "__main__":
    sys.exit(main())
