"""Draw the study of robustness: worst cases, and every attack."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from medjax.lab import plots
from medjax.lab.sweeps import heatmap
from medjax.lab.sweeps.select import Statistic


class Problem(NamedTuple):
    """A problem that rules are tried on.

    Attributes:
        byzantine: f, the number of workers who lie.
        split: the partition's name.
    """

    byzantine: int
    split: str

    def __str__(self) -> str:
        return f"{self.split}, f = {self.byzantine}"


Accuracies: TypeAlias = Mapping[tuple[Problem, str], Mapping[str, Statistic]]
"""The last test accuracy of each problem and rule, under each attack."""


class _Panel(NamedTuple):
    """Accuracies in %, a row for each rule.

    Attributes:
        title: the panel's.
        columns: the columns' names.
        values: the accuracies, shape (rules, columns).
        texts: the text of each cell.
        is_worst: whether these are worst cases; the best of them is outlined.
    """

    title: str
    columns: Sequence[str]
    values: np.ndarray
    texts: Sequence[Sequence[str]]
    is_worst: bool


# In inches: a cell, between panels, between rows of them, for rules' names, for the colour bar.
_WIDTH, _HEIGHT, _GAP, _BELOW, _NAMES, _BAR = 0.62, 0.36, 0.3, 0.85, 1.65, 0.75
_WIDEST = 12  # cells, in a row of panels
_SCALE = Normalize(0, 100)


def worst(under: Mapping[str, Statistic]) -> tuple[str, Statistic]:
    """Return the attack under which the accuracy is lowest, and that accuracy."""
    return min(under.items(), key=lambda item: item[1].mean)


def figure(found: Accuracies, title: str) -> Figure:
    """Draw a panel of the worst cases for each f, and one of every attack for each split.

    Args:
        found: the accuracies.
        title: the picture's.
    """
    rules = list(dict.fromkeys(rule for _, rule in found))
    rows = _rows(_panels(found, rules))
    made = Figure()
    widths = [sum(len(p.columns) * _WIDTH + _GAP for p in row) for row in rows]
    height = len(rules) * _HEIGHT
    made.set_figwidth(_NAMES + max(widths) + _BAR)
    plots.set_title(made, title)
    above = 0.45 + 0.2 * len(made.get_suptitle().splitlines())
    made.set_figheight(above + len(rows) * (height + _BELOW) - 0.3)

    def add(x: float, y: float, w: float, h: float) -> Axes:
        place = np.array([x, made.get_figheight() - y - h, w, h])
        return made.add_axes(tuple(place / np.tile(made.get_size_inches(), 2)))

    for number, row in enumerate(rows):
        x, y = _NAMES, above + number * (height + _BELOW)
        for panel in row:
            axis = add(x, y, len(panel.columns) * _WIDTH, height)
            _draw(axis, panel, rules, named=panel is row[0])
            x += len(panel.columns) * _WIDTH + _GAP
    bar = add(_NAMES + max(widths), above, 0.15, height)
    made.colorbar(ScalarMappable(_SCALE, heatmap.COLOURS), cax=bar, label="test accuracy, %")
    return made


def _panels(found: Accuracies, rules: Sequence[str]) -> list[_Panel]:
    problems = list(dict.fromkeys(problem for problem, _ in found))
    numbers = list(dict.fromkeys(problem.byzantine for problem in problems))
    panels = []
    for f in numbers:
        those = [problem for problem in problems if problem.byzantine == f]
        cases = [[worst(found[problem, rule]) for problem in those] for rule in rules]
        values = np.array([[100 * value.mean for _, value in row] for row in cases])
        texts = [[f"{100 * value.mean:.0f}\n{_name(a)}" for a, value in row] for row in cases]
        title = f"f = {f}" if panels else f"worst case, f = {f}"
        panels.append(_Panel(title, [problem.split for problem in those], values, texts, True))
    for problem in (problem for problem in problems if problem.byzantine == max(numbers)):
        under = [found[problem, rule] for rule in rules]
        attacks = list(dict.fromkeys(attack for row in under for attack in row))
        means = [[row[a].mean if a in row else np.nan for a in attacks] for row in under]
        values = 100 * np.array(means)
        texts = [["–" if np.isnan(value) else f"{value:.0f}" for value in row] for row in values]
        names = [_name(attack).replace("_", "\n") for attack in attacks]
        panels.append(_Panel(str(problem), names, values, texts, False))
    return panels


def _name(attack: str) -> str:
    return attack.partition(":")[0]


def _rows(panels: Sequence[_Panel]) -> list[list[_Panel]]:
    """Put as many panels side by side as there is room for."""
    rows: list[list[_Panel]] = [[]]
    for panel in panels:
        if sum(len(p.columns) for p in (*rows[-1], panel)) > _WIDEST and rows[-1]:
            rows.append([])
        rows[-1].append(panel)
    return rows


def _draw(axis: Axes, panel: _Panel, rules: Sequence[str], named: bool) -> None:
    heatmap.draw_cells(axis, panel.values, panel.texts, _SCALE, 7 if panel.is_worst else 9)
    axis.invert_yaxis()
    # Families apart: with NNM before them, and without.
    mixed = ["+" in rule for rule in rules]
    edges = [k for k in range(1, len(rules)) if mixed[k] != mixed[k - 1]]
    axis.hlines(np.array(edges) - 0.5, *axis.get_xlim(), color="white", linewidth=2.5)
    for column, row in enumerate(panel.values.argmax(axis=0)):
        if panel.is_worst:
            heatmap.outline(axis, int(row), column)
    axis.set_xticks(range(len(panel.columns)), panel.columns, fontsize=9)
    axis.set_yticks(range(len(rules)), rules if named else [""] * len(rules), fontsize=9)
    axis.set_title(panel.title, fontsize=10, loc="left")
