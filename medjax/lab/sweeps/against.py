"""Pictures of the last metrics against the values of a setting."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medjax.lab import plots
from medjax.lab.settings import wording
from medjax.lab.sweeps import lines
from medjax.lab.sweeps.lines import Line
from medjax.lab.sweeps.select import Candidate, Columns

_PANELS = ("test_accuracy", "train_loss", "grad_norm")
_VALIDATION = "validation_accuracy"
# Settings whose values are spaced by factors, however near to each other they are.
_LOG = ("b", "lr")
_MARKERS = ("o", "s", "^")
# Lines that aren't on the axis: of a rule without the setting, and of a value that is no number.
_DASHED = ("--", (0, (7, 2, 1, 2)), (0, (5, 5)))
_DOTTED = (":", (0, (1, 3)), (0, (1, 5)))
_BETWEEN_LABELS = 0.1  # the least distance, as a part of the axis


def figure(
    found: Sequence[Candidate], columns: Columns, name: str, drawn: Sequence[Line], title: str
) -> Figure:
    """Draw a panel for each metric, with the given lines; other settings are the best ones."""
    names = wording.telling([vars(candidate.run) for candidate in found])
    every = [part for line in drawn for part in lines.split(line, name, names)]
    shown = lines.foremost(every, columns)
    values = sorted({x for line in shown for (x,) in line.points if lines.is_number(x)})
    points = [candidate for line in shown for candidate in line.points.values()]
    notes = (
        lines.choice(found, columns, name),
        lines.seeds("bars", found),
        lines.left_out(shown, every),
        "×: diverged" if any(_diverged(c, "train_loss") for c in points) else "",
    )
    made, axes = plots.new_figure(1, len(_PANELS), lines.with_notes(title, notes))
    for axis, metric in zip(axes, _PANELS, strict=True):
        places = _scale(axis, name, values)
        for k, line in enumerate(shown):
            _draw(axis, k, line, metric, places)
        label = plots.METRICS[metric]
        if metric == "test_accuracy" and _VALIDATION in columns:
            _draw_validation(axis, shown, places)
            label += " (dashed: validation)"
        plots.label_metric(axis, label, columns[metric][columns["step"] == 0])
    plots.legend_below(made, *axes[0].get_legend_handles_labels())
    return made


def _scale(axis: Axes, name: str, values: Sequence[float]) -> dict[float, float]:
    """Make the horizontal axis.

    Returns:
        Each value's place: itself, but for 0 on a log axis, which is left of the others.
    """
    positive = [value for value in values if value > 0]
    log = bool(positive) and (name in _LOG or positive[-1] >= 10 * positive[0])
    places = {value: float(value) for value in values}
    if log:
        axis.set_xscale("log")
        if 0 in places:
            gap = (positive[-1] / positive[0]) ** 0.25 if len(positive) > 1 else 10.0
            places[0] = positive[0] / gap
            _break(axis, positive[0] / gap**0.5)
    ticks = list(places.values())
    far = _far_apart(np.log(ticks) if log else np.array(ticks))
    labels = [wording.short(v) if ok else "" for v, ok in zip(places, far, strict=True)]
    axis.set_xticks(ticks, labels)
    axis.minorticks_off()
    axis.set_xlabel(lines.called(name))
    return places


def _break(axis: Axes, x: float) -> None:
    """Mark a place where the axis is interrupted."""
    white = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    across = axis.get_xaxis_transform()
    axis.text(x, 0, "//", transform=across, ha="center", va="center", fontsize=9, bbox=white)


def _far_apart(places: np.ndarray) -> list[bool]:
    """Tell of each tick, from the left, if there is room for its label."""
    least = _BETWEEN_LABELS * (places[-1] - places[0])
    last, far = -np.inf, []
    for place in places:
        far.append(bool(place - last >= least))
        last = place if far[-1] else last
    return far


def _draw(axis: Axes, k: int, line: Line, metric: str, places: Mapping[float, float]) -> None:
    """Draw a line of means with their standard errors."""
    colour, again = plots.COLOURS[k % len(plots.COLOURS)], k // len(plots.COLOURS)
    x, mean, error = _points(line, metric, places)
    if x is None:
        dashes = (_DASHED if (None,) in line.points else _DOTTED)[again]
        axis.axhline(mean[0], color=colour, linestyle=dashes, linewidth=1.5, label=line.label)
        return
    low, high = plots.around(mean, error)
    bars = None if np.isnan(error).all() else (mean - low, high - mean)
    style = {"color": colour, "marker": _MARKERS[again], "markersize": 4.5}
    axis.errorbar(x, mean, bars, label=line.label, elinewidth=1, capsize=2.5, **style)
    # Each a bit lower, so that none hides another.
    lost = [places[value] for (value,), c in line.points.items() if _diverged(c, metric)]
    height = [0.98 - 0.045 * k] * len(lost)
    axis.plot(lost, height, "x", color=colour, transform=axis.get_xaxis_transform())


def _draw_validation(axis: Axes, shown: Sequence[Line], places: Mapping[float, float]) -> None:
    for k, line in enumerate(shown):
        x, mean, _ = _points(line, _VALIDATION, places)
        if x is not None:
            colour = plots.COLOURS[k % len(plots.COLOURS)]
            hollow = {"marker": "o", "markersize": 3, "markerfacecolor": "white"}
            axis.plot(x, mean, "--", color=colour, linewidth=0.9, **hollow)


def _points(
    line: Line, metric: str, places: Mapping[float, float]
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """Return the places of a line's points (None if nowhere), their means and standard errors.

    Between 0 and the log axis that it isn't on, a point without a value makes a gap.
    """
    stats = [candidate.final[metric] for candidate in line.points.values()]
    mean, error = np.array([(s.mean, s.error) for s in stats]).T
    mean = np.where(np.isfinite(mean), mean, np.nan)
    values = [value for (value,) in line.points]
    if not lines.is_number(values[0]):
        return None, mean, error
    x = np.array([places[value] for value in values])
    if values[0] == 0 < x[0]:
        x, mean, error = (np.insert(numbers, 1, np.nan) for numbers in (x, mean, error))
    return x, mean, error


def _diverged(candidate: Candidate, metric: str) -> bool:
    return not math.isfinite(candidate.final[metric].mean)
