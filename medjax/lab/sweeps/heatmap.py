"""Pictures of the last test accuracy for the values of two settings."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from medjax.lab import plots
from medjax.lab.settings import wording
from medjax.lab.sweeps import lines
from medjax.lab.sweeps.lines import Line
from medjax.lab.sweeps.select import Candidate, Columns, best

_METRIC = "test_accuracy"
_MOST_PANELS = 6
COLOURS = matplotlib.colormaps["viridis"].with_extremes(bad="#DDDDDD")
_OUTLINE = plots.COLOURS[1]
# In inches: a cell; a letter; the colour bar with its labels; a figure.
_WIDTH, _HEIGHT, _LETTER, _BAR, _NARROWEST, _WIDEST = 0.6, 0.42, 0.08, 0.9, 5, 13


def panels(found: Sequence[Candidate], columns: Columns, names: tuple[str, str]) -> list[Line]:
    """List the panels for two settings; none if no panel has several numbers of both."""
    if any(lines.follows(found, a, (b,)) for a, b in (names, names[::-1])):
        return []
    drawn = lines.along(found, columns, *names)
    return drawn if any(_is_plane(panel) for panel in drawn) else []


def _is_plane(panel: Line) -> bool:
    axes = zip(*panel.points, strict=True)
    return all(sum(map(lines.is_number, set(values))) > 1 for values in axes)


def figure(
    found: Sequence[Candidate],
    columns: Columns,
    names: tuple[str, str],
    every: Sequence[Line],
    title: str,
) -> Figure:
    """Draw a panel for each rule and problem, all with the same colours.

    Args:
        found: the grid's candidates.
        columns: the grid's table.
        names: the settings, vertical and horizontal.
        every: all panels.
        title: the picture's.
    """
    shown = lines.foremost(every, columns, _MOST_PANELS)
    shown.sort(key=lambda panel: -len(_values(panel)[0]))
    chosen = [best(list(panel.points.values()), columns) for panel in shown]
    outlined = any(len(b) < len(panel.points) for b, panel in zip(chosen, shown, strict=True))
    notes = (
        lines.choice(found, columns, *names),
        f"outlined: best by {lines.by(columns)}" if outlined else "",
        lines.left_out(shown, every),
    )
    means = [c.final[_METRIC].mean for panel in shown for c in panel.points.values()]
    means = [mean for mean in means if math.isfinite(mean)] or [0.0, 1.0]
    scale = Normalize(min(means), max(means))
    digits = 2 if max(means) - min(means) >= 0.1 else 3
    made, axes, bar = _figure(shown, lines.with_notes(title, notes))
    for axis, panel, those in zip(axes, shown, chosen, strict=True):
        _draw(axis, panel, scale, digits)
        _outline(axis, panel, those if len(those) < len(panel.points) else [])
        axis.set_ylabel(lines.called(names[0]))
        axis.set_xlabel(lines.called(names[1]))
    made.colorbar(ScalarMappable(scale, COLOURS), cax=bar, label=plots.METRICS[_METRIC])
    return made


def _figure(shown: Sequence[Line], title: str) -> tuple[Figure, list[Axes], Axes]:
    """Make a figure in which all cells have one size, however many a panel has.

    Returns:
        The figure, the panels' axes, and those of the colour bar.
    """
    boxes, width, height = _boxes(shown)
    made = Figure(figsize=(max(width + _BAR, _NARROWEST), height))
    plots.set_title(made, title)
    above = 0.2 + 0.2 * len(made.get_suptitle().splitlines())
    made.set_figheight(height + above)
    margin = (made.get_figwidth() - width - _BAR) / 2

    def add(x: float, y: float, w: float, h: float) -> Axes:
        place = np.array([margin + x, made.get_figheight() - above - y - h, w, h])
        return made.add_axes(tuple(place / np.tile(made.get_size_inches(), 2)))

    axes = [add(*box) for box in boxes]
    (_, top, _, _), (_, y, _, h) = boxes[0], boxes[-1]
    return made, axes, add(width, top, 0.15, y + h - top)


def _boxes(shown: Sequence[Line]) -> tuple[list[tuple[float, float, float, float]], float, float]:
    """Place the panels in rows, in which all are of one height.

    Returns:
        Left, top, width and height of each, without its labels; and the width and height of all
        with their labels. In inches.
    """
    boxes: list[tuple[float, float, float, float]] = []
    x = y = width = bottom = 0.0
    for panel in shown:
        rows, columns = _values(panel)
        w, h = _WIDTH * len(columns), _HEIGHT * len(rows)
        left = 0.45 + _LETTER * max(len(_text(value)) for value in rows)
        right = left + max(w, _LETTER * len(panel.label)) + 0.2
        if x and (x + right > _WIDEST or h != boxes[-1][3]):
            x, y = 0.0, bottom
        boxes.append((x + left, y + 0.3, w, h))
        x, bottom = x + right, y + h + 1.0
        width = max(width, x)
    return boxes, width, bottom


def _values(panel: Line) -> tuple[list[Any], list[Any]]:
    """Sort the settings' values, vertical and horizontal: none, numbers, words."""

    def key(value: Any) -> tuple[bool, Any]:
        if value is None:
            return (False, -math.inf)
        return (False, value) if lines.is_number(value) else (True, str(value))

    y, x = (sorted(set(values), key=key) for values in zip(*panel.points, strict=True))
    return y, x


def _draw(axis: Axes, panel: Line, scale: Normalize, digits: int) -> None:
    y, x = _values(panel)
    means = np.array([[_mean(panel.points.get((row, column))) for column in x] for row in y])
    texts = [[f"{x:.{digits}f}" if math.isfinite(x) else "–" for x in row] for row in means]
    draw_cells(axis, means, texts, scale)
    axis.set_xticks(range(len(x)), [_text(value).replace(":", "\n") for value in x], fontsize=9)
    axis.set_yticks(range(len(y)), map(_text, y), fontsize=9)
    axis.set_title(panel.label, fontsize=10, loc="left", parse_math=False)


def draw_cells(
    axis: Axes, values: np.ndarray, texts: Sequence[Sequence[str]], scale: Normalize, size: int = 9
) -> None:
    """Draw coloured cells, from the bottom up, each with its text in black or white."""
    colours = axis.imshow(values, cmap=COLOURS, norm=scale, origin="lower", aspect="auto")
    for row, (line, words) in enumerate(zip(values, texts, strict=True)):
        for column, (value, word) in enumerate(zip(line, words, strict=True)):
            light = np.dot(colours.to_rgba(value)[:3], (0.3, 0.6, 0.1)) > 0.5
            text = axis.text(column, row, word, ha="center", va="center", fontsize=size)
            text.set_color("black" if light else "white")
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)


def _text(value: object) -> str:
    return "none" if value is None else wording.short(value)


def _mean(candidate: Candidate | None) -> float:
    return math.nan if candidate is None else candidate.final[_METRIC].mean


def _outline(axis: Axes, panel: Line, chosen: Sequence[Candidate]) -> None:
    y, x = _values(panel)
    for (row, column), candidate in panel.points.items():
        if candidate in chosen:
            outline(axis, y.index(row), x.index(column))


def outline(axis: Axes, row: int, column: int) -> None:
    """Draw a cell's outline."""
    corner = (column - 0.5, row - 0.5)
    cell = Rectangle(corner, 1, 1, fill=False, color=_OUTLINE, linewidth=2.5, zorder=3)
    axis.add_patch(cell).set_clip_on(False)
