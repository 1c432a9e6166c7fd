"""Pictures of runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's (2008), which the colour-blind can tell apart."""


@dataclass(frozen=True)
class Curves:
    """A run's measurements: a column for each metric, and `step`."""

    label: str
    columns: Mapping[str, Sequence[float]]


def new_figure(rows: int, columns: int, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with its axes, in the style of all our pictures."""
    figure = Figure(figsize=(4.6 * columns, 3.4 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    figure.suptitle(title, fontsize=11)
    for axis in axes:
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def run_figure(curves: Curves) -> Figure:
    """One run: loss, accuracy, and the norms of the true gradient and of the median-mean gap."""
    figure, axes = new_figure(1, 3, curves.label)
    panels = (
        ("loss", {"train_loss": "training", "test_loss": "test"}),
        ("accuracy", {"train_accuracy": "training", "test_accuracy": "test"}),
        ("norm", {"grad_norm": "true mean gradient", "median_mean_gap": "median - mean gap"}),
    )
    for axis, (name, metrics) in zip(axes, panels, strict=True):
        for colour, (metric, label) in zip(COLOURS, metrics.items(), strict=False):
            axis.plot(curves.columns["step"], curves.columns[metric], color=colour, label=label)
        _label(axis, name)
        axis.legend(frameon=False)
    return figure


def comparison_figure(runs: Sequence[Curves], title: str) -> Figure:
    """Several runs, a panel for each metric."""
    figure, axes = new_figure(2, 2, title)
    panels = {
        "train_loss": "training loss",
        "test_accuracy": "test accuracy",
        "grad_norm": "norm of the true mean gradient",
        "median_mean_gap": "median - mean gap",
    }
    for axis, (metric, name) in zip(axes, panels.items(), strict=True):
        for k, run in enumerate(runs):
            axis.plot(
                run.columns["step"],
                run.columns[metric],
                color=COLOURS[k % len(COLOURS)],
                linestyle=("-", "--", ":")[k // len(COLOURS) % 3],
                label=run.label,
            )
        _label(axis, name)
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(3, len(runs)),
        fontsize=9,
        frameon=False,
    )
    return figure


def _label(axis: Axes, name: str) -> None:
    axis.set_xlabel("step")
    axis.set_ylabel(name)
    if "accuracy" in name:
        axis.set_ylim(0, 1.02)
    elif any(y > 0 for line in axis.get_lines() for y in np.ravel(line.get_ydata())):
        axis.set_yscale("log")


def describe(config: Mapping[str, Any]) -> str:
    """A run in a line, from its resolved settings."""
    parts = [str(config["rule"]), f"n = {config['workers']}", f"δ = {config['lr']:g}"]
    if config["b"] is not None:
        parts.append(f"b = {config['b']}")
    batch = config["batch_size"]
    parts.append("full batch" if batch == "full" else f"batches of {batch}")
    return ", ".join([*parts, str(config["dataset"]).rpartition("/")[2]])
