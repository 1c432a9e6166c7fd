"""Train the curves of a figure, each a run, all of them one sweep that can be gone on with."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console

from experiments.paper.claims import text_table
from experiments.pictures import write_picture
from medjax.lab import plots
from medjax.lab.plots import Curves
from medjax.lab.settings.config import Settings
from medjax.lab.storage import results
from medjax.lab.sweeps import select
from medjax.lab.sweeps.session import run_grid
from medjax.lab.task.training import stop_on_signal

_DECADE = 10  # below it, a log axis has no round numbers to show
_LEAST = 1e-7
_SHARES = ("train_accuracy", "test_accuracy")
T = TypeVar("T", bound=Hashable)
"""The label of an arm."""

METRICS = {
    "train_loss": "training loss",
    "grad_norm": "norm of the true mean gradient",
    "train_accuracy": "training accuracy",
    "test_accuracy": "test accuracy",
}


def length(steps: int, measurements: int = 100) -> dict[str, int]:
    """Return the settings of a run of some steps, measured about so many times.

    Args:
        steps: the number of steps.
        measurements: the number of measurements.
    """
    return {"steps": steps, "eval_every": max(1, steps // measurements)}


def train(
    console: Console, folder: Path, arms: Mapping[T, Settings], checkpoint_every: int | None = None
) -> dict[T, Curves]:
    """Train each arm; those that the folder has already aren't trained again.

    Args:
        console: where to print.
        folder: where the results go.
        arms: the runs by label.
        checkpoint_every: how many steps at most are lost where it is interrupted; None for all.

    Returns:
        The curves by label.

    Raises:
        KeyboardInterrupt: if stopped; finished runs stay in the folder.
    """
    runs = list(dict.fromkeys(arms.values()))
    columns = _run(console, folder, runs, checkpoint_every)

    def curves(label: T) -> Curves:
        rows = columns["run"] == runs.index(arms[label])
        return Curves(str(label), {name: x[rows] for name, x in columns.items()})

    return {label: curves(label) for label in arms}


def tuned(
    console: Console,
    folder: Path,
    arms: Mapping[T, Settings],
    step_sizes: Sequence[float],
    steps: int,
) -> dict[T, Settings]:
    """Choose each arm's step size: the best on the validation data after some steps.

    Args:
        console: where to print.
        folder: where the results go.
        arms: the runs by label.
        step_sizes: the step sizes to choose from.
        steps: the number of steps.

    Returns:
        The arms with their best step sizes.

    Raises:
        KeyboardInterrupt: as `train`.
    """
    candidates = {
        label: [replace(run, lr=lr, steps=steps, eval_every=steps) for lr in step_sizes]
        for label, run in arms.items()
    }
    runs = [run for several in candidates.values() for run in several]
    columns = _run(console, folder, runs)
    found = select.candidates(runs, columns)
    best = {}
    for label, several in candidates.items():
        (chosen,) = select.best([c for c in found if c.run in several], columns)
        best[label] = replace(arms[label], lr=chosen.run.lr)
    return best


def write(
    console: Console,
    folder: Path,
    title: str,
    metrics: Sequence[str],
    curves: Mapping[str, Mapping[str, Curves]],
) -> None:
    """Draw the curves, a row of panels for each algorithm; write and print how they end.

    Args:
        console: where to print.
        folder: where the picture, which gets the folder's name, and the table go.
        title: the picture's.
        metrics: the metrics to draw, a panel each.
        curves: the arms of each algorithm.
    """
    figure, axes = plots.new_figure(len(curves), len(metrics), title)
    for row, (algorithm, arms) in enumerate(curves.items()):
        for axis, metric in zip(axes[row * len(metrics) :], metrics, strict=False):
            for colour, (label, curve) in zip(plots.COLOURS, arms.items(), strict=False):
                x, y = (np.asarray(curve.columns[name]) for name in ("step", metric))
                # A norm that is 0 to the last digit has no place on a log axis.
                y = np.maximum(y, _LEAST) if metric not in _SHARES else y
                text = f"{label}, δ = {curve.columns['lr'][0]:g}"
                axis.plot(x, y, color=colour, label=text, linewidth=1.3)
            axis.set_xlabel("step")
            axis.set_ylabel(METRICS[metric])
            axis.set_title(algorithm, fontsize=10)
            if metric in _SHARES:
                axis.set_ylim(0, 1.02)
            elif axis.dataLim.ymax > _DECADE * axis.dataLim.ymin:
                axis.set_yscale("log")
        beside = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)}
        axes[(row + 1) * len(metrics) - 1].legend(frameon=False, fontsize=9, **beside)
    write_picture(folder, folder.name, figure)
    rows = [
        {"algorithm": algorithm, "arm": label}
        | {name: float(curve.columns[name][-1]) for name in ("lr", "step", *METRICS)}
        for algorithm, arms in curves.items()
        for label, curve in arms.items()
    ]
    results.write_table(folder / "table.parquet", {k: [row[k] for row in rows] for k in rows[0]})
    headings = [name.replace("_", " ") for name in rows[0]]
    cells = [[x if isinstance(x, str) else f"{x:.4g}" for x in row.values()] for row in rows]
    console.print(text_table(headings, cells))


def final(curve: Curves, metric: str, share: float = 0.1) -> float:
    """Return the median of a metric over the last part of a run: single measurements jump about.

    Args:
        curve: the run's measurements.
        metric: the metric's name.
        share: the share of the run that counts as its last part.
    """
    values = np.asarray(curve.columns[metric])
    return float(np.median(values[-max(1, round(share * len(values))) :]))


def _run(
    console: Console, folder: Path, runs: Sequence[Settings], checkpoint_every: int | None = None
) -> select.Columns:
    with (
        stop_on_signal() as stop,
        run_grid(console, folder, runs, stop, checkpoint_every=checkpoint_every) as columns,
    ):
        return columns
