"""Growth of time and memory along n or d: the rows of a table, and its picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._point import Measurement
from medjax.lab import plots

Size = Literal["n", "d"]
WORDS: dict[Size, str] = {"n": "worker", "d": "parameter"}
NEAR: dict[Size, int] = {"n": 100, "d": 100_000}
"""Sizes near which a point is the reference for the time of each worker or parameter."""


@dataclass(frozen=True)
class Row:
    """A point of n workers and d parameters; NaN where it failed.

    Attributes:
        ms: milliseconds for a step.
        relative: ms for each worker, or parameter, as a multiple of that at the reference.
        compile_s: seconds to compile.
        peak_mb: peak memory of the process in megabytes (10^6 bytes).
        beyond_mb: megabytes of that beyond the baseline.
    """

    n: int
    d: int
    ms: float
    relative: float
    compile_s: float
    peak_mb: float
    beyond_mb: float


def rows(
    along: Size, measured: Sequence[tuple[int, int, Measurement]], baseline: Measurement
) -> list[Row]:
    """Return the table along n or d from (n, d, measurement)."""

    def size(n: int, d: int) -> int:
        return n if along == "n" else d

    # The nearest point that didn't fail gives the time for one worker or parameter.
    *_, reference = min(
        (math.isnan(m.ms), abs(math.log(size(n, d) / NEAR[along])), m.ms / size(n, d))
        for n, d, m in measured
    )
    return [
        Row(
            n,
            d,
            m.ms,
            m.ms / size(n, d) / reference,
            m.compile_s,
            m.peak_bytes / 1e6,
            (m.peak_bytes - baseline.peak_bytes) / 1e6,
        )
        for n, d, m in measured
    ]


def picture(tables: dict[Size, list[Row]], title: str) -> Figure:
    """Draw time and memory, a row of panels for each table; the dashed lines have slope 1."""
    figure, axes = plots.new_figure(len(tables), 2, title)
    for (along, table), time, memory in zip(tables.items(), axes[::2], axes[1::2], strict=True):
        sizes = [getattr(row, along) for row in table]
        proportional = [row.ms / row.relative for row in table]
        _line(time, sizes, [row.ms for row in table], 0, "one step")
        _dashed(time, sizes, proportional, f"proportional to {along}")
        _line(memory, sizes, [row.peak_mb for row in table], 1, "whole process")
        _line(memory, sizes, [row.beyond_mb for row in table], 2, "beyond the baseline")
        _dashed(memory, sizes, [4e-6 * row.n * row.d for row in table], "n gradients alone")
        for axis, name in ((time, "milliseconds"), (memory, "peak memory, MB")):
            _finish(axis, name, along, table[0])
    return figure


def _line(axis: Axes, x: Sequence[float], y: Sequence[float], colour: int, label: str) -> None:
    axis.plot(x, y, "o-", markersize=4, color=plots.COLOURS[colour], label=label)


def _dashed(axis: Axes, x: Sequence[float], y: Sequence[float], label: str) -> None:
    axis.plot(x, y, "--", linewidth=1, color="0.5", label=label, zorder=1)


def _finish(axis: Axes, name: str, along: Size, row: Row) -> None:
    fixed: Size = "d" if along == "n" else "n"
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel(f"{WORDS[along]}s {along}, where {fixed} = {getattr(row, fixed):,}")
    axis.set_ylabel(name)
    axis.legend(frameon=False)
