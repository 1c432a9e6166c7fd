"""Pictures of runs.

Matplotlib is imported where one is drawn: it takes half a second, for which no error should wait.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

if find_spec("matplotlib") is None:  # said now, not when a run has ended
    raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's (2008), which the colour-blind can tell apart."""

METRICS = {
    "train_loss": "training loss",
    "test_accuracy": "test accuracy",
    "grad_norm": "norm of the true mean gradient",
    "median_mean_gap": "median - mean gap",
}
"""The metrics that are compared, and their names in words."""

# By font size; a bit more than most letters need.
_INCHES_PER_LETTER = {9: 0.066, 11: 0.085}
_DIVERGED = 100  # times its value at the start: beyond, a metric is of no interest


@dataclass(frozen=True)
class Curves:
    """A run's measurements: a column for each metric, and `step`; a mean's standard errors."""

    label: str
    columns: Mapping[str, Sequence[float] | np.ndarray]
    errors: Mapping[str, np.ndarray] = field(default_factory=dict)


def new_figure(rows: int, columns: int, title: str) -> "tuple[Figure, list[Axes]]":
    """Make a figure and its axes, in the style of all pictures here."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * columns, 3.4 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    set_title(figure, title)
    for axis in axes:
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def set_title(figure: "Figure", title: str) -> None:
    """Set a title, wrapped to the figure's width."""
    width = int(figure.get_figwidth() / _INCHES_PER_LETTER[11])
    lines = (textwrap.fill(line, width) for line in title.splitlines())
    # In names, $ begins no formula.
    figure.suptitle("\n".join(lines), fontsize=11, parse_math=False)


def legend_below(figure: "Figure", handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Make the figure taller, and put a legend under its axes, in as many columns as fit."""
    longest = max(map(len, labels))
    columns = int(figure.get_figwidth() / (0.7 + _INCHES_PER_LETTER[9] * longest))
    columns = max(1, min(columns, len(labels)))
    figure.set_figheight(figure.get_figheight() + 0.19 * -(-len(labels) // columns))
    place = "outside lower center"
    legend = figure.legend(handles, labels, loc=place, ncols=columns, fontsize=9, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def run_figure(curves: Curves) -> "Figure":
    """Draw a run's loss, accuracy, and the norms of the true gradient and the median-mean gap."""
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


def comparison_figure(runs: Sequence[Curves], title: str) -> "Figure":
    """Draw several runs, with a panel for each metric."""
    figure, axes = new_figure(2, 2, title)
    for axis, (metric, name) in zip(axes, METRICS.items(), strict=True):
        for k, run in enumerate(runs):
            x, y = run.columns["step"], np.asarray(run.columns[metric], np.float64)
            axis.plot(x, np.where(np.isfinite(y), y, np.nan), label=run.label, **style(k))
            if metric in run.errors:
                low, high = around(y, np.asarray(run.errors[metric]))
                axis.fill_between(x, low, high, color=style(k)["color"], alpha=0.15, linewidth=0)
        _label(axis, name, [run.columns[metric][0] for run in runs])
    legend_below(figure, *axes[0].get_legend_handles_labels())
    return figure


def style(k: int) -> dict[str, Any]:
    """Return the colour and dashes of the k-th of several lines."""
    return {
        "color": COLOURS[k % len(COLOURS)],
        "linestyle": ("-", "--", ":")[k // len(COLOURS) % 3],
    }


def around(mean: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean - error and mean + error, at least a tenth of the mean, for log axes.

    (The standard error of positive numbers is at most their mean: few come so far down.)
    """
    return np.maximum(mean - error, mean / 10), mean + error


def _label(axis: "Axes", name: str, start: Sequence[float] = ()) -> None:
    axis.set_xlabel("step")
    label_metric(axis, name, start)


def label_metric(axis: "Axes", name: str, start: Sequence[float] | np.ndarray = ()) -> None:
    """Make the vertical axis of a metric, once its values are drawn.

    Args:
        axis: the panel.
        name: of the metric.
        start: its values at the start of training: a log axis ends where they are far exceeded.
    """
    axis.set_ylabel(name)
    if "accuracy" in name:
        axis.set_ylim(0, 1.02)
        return
    if not any(y > 0 for line in axis.get_lines() for y in np.ravel(line.get_ydata())):
        return
    axis.set_yscale("log")
    bottom, top = axis.get_ylim()
    ceiling = _DIVERGED * np.max(start, initial=0.0)
    if bottom < ceiling < top:
        axis.set_ylim(bottom, top := ceiling)
    if top / bottom < 100:  # hardly a power of ten
        from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

        steps = (1, 2, 5)
        near = top / bottom < 10
        locator = MaxNLocator(8, steps=(*steps, 10)) if near else LogLocator(subs=steps)
        axis.yaxis.set_major_locator(locator)
        axis.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
        axis.yaxis.set_minor_locator(NullLocator())
