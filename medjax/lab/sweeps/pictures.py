"""The pictures of a grid."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from medjax.lab import plots
from medjax.lab.settings import wording
from medjax.lab.settings.config import Settings
from medjax.lab.sweeps import against, heatmap, lines
from medjax.lab.sweeps.lines import Line
from medjax.lab.sweeps.select import Candidate, Columns, best, candidates

_MOST_HEATMAPS = 5


def draw(runs: Sequence[Settings], columns: Columns, title: str) -> dict[str, Figure]:
    """Draw the pictures that make sense for a grid, each under its name.

    `curves` are metrics against the step; under a setting's name are the last metrics against it,
    and under `heatmap-Y-X` the last test accuracy for two settings, one vertical, one horizontal.
    """
    found = candidates(runs, columns)
    figures = {"curves": curves(found, columns, title)}
    names = lines.numeric_settings(found)
    for name in names:
        drawn = lines.along(found, columns, name)
        numbers = [sum(lines.is_number(x) for (x,) in line.points) for line in drawn]
        if max(numbers) >= (2 if name == "b" else 3):
            figures[name] = against.figure(found, columns, name, drawn, title)
    heatmaps = {}
    # Settings of the algorithm come first.
    for pair in itertools.combinations(sorted(names, key=lambda name: name not in lines.CHOSEN), 2):
        panels = heatmap.panels(found, columns, pair)
        if panels and len(heatmaps) < _MOST_HEATMAPS:
            name = f"heatmap-{'-'.join(pair)}"
            heatmaps[name] = heatmap.figure(found, columns, pair, panels, title)
    return figures | heatmaps


def curves(found: Sequence[Candidate], columns: Columns, title: str) -> Figure:
    """Draw metrics against the step, for each rule's best setting in each of the problems."""
    names = wording.telling([vars(candidate.run) for candidate in found])
    every = [Line(wording.named(vars(c.run), names), {(): c}) for c in best(found, columns)]
    shown = lines.foremost(every, columns)
    notes = (
        f"best settings by {lines.by(columns)}" if len(every) < len(found) else "",
        lines.seeds("bands", found),
        lines.left_out(shown, every),
    )
    means = [_mean(columns, line.label, line.points[()].runs) for line in shown]
    return plots.comparison_figure(means, lines.with_notes(title, notes))


def _mean(columns: Columns, label: str, runs: Sequence[int]) -> plots.Curves:
    """Average over the seeds at each step, with standard errors if there are several."""
    rows = np.isin(columns["run"], runs)  # sorted by run, then step; measured at the same steps
    values = {
        name: columns[name][rows].reshape(len(runs), -1).astype(np.float64)
        for name in ("step", *plots.METRICS)
    }
    with np.errstate(invalid="ignore"):  # diverged runs are infinite
        means = {name: value.mean(0) for name, value in values.items()}
        if len(runs) == 1:
            return plots.Curves(label, means)
        root = math.sqrt(len(runs))
        return plots.Curves(label, means, {k: v.std(0, ddof=1) / root for k, v in values.items()})
