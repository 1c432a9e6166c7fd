"""The price of each noise: the spread of the median at which its gap is small enough.

More noise brings the median's expectation nearer to the mean, and makes the median itself noisier.
All distributions have variance 1, but differ in how much of it the median keeps, and in how soon
the gap closes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from rich.console import Console

from experiments.paper.claims import columns, text_table
from experiments.pictures import write_picture
from medjax import theory
from medjax.lab import plots
from medjax.lab.storage import results
from medjax.noise import NOISES

if TYPE_CHECKING:
    from experiments.paper.theory import Point

TARGET = 0.01
"""The gap to reach, in standard deviations of the u_i."""


@dataclass(frozen=True)
class Cost:
    """The least b from which on the gap is within the target, and the median's deviation there."""

    noise: str
    n: int
    b: float
    std: float


def run(
    console: Console,
    folder: Path,
    points: Sequence["Point"],
    values: Mapping[int, Float[np.ndarray, " n"]],
) -> None:
    """Print and write the costs, and draw the trade-off from the curves of gap and variance.

    Args:
        console: where to print.
        folder: where the results go.
        points: the points of the curves of gap and variance.
        values: u_1..u_n for each number of workers n.
    """
    with console.status("the price of a small gap"):
        costs = [cost(name, u, points) for u in values.values() for name in NOISES]
    results.write_table(folder / "noise_cost.parquet", columns(costs))
    write_picture(folder, "noise_cost", figure(points, costs, values))
    console.print(f"the b for a gap of {TARGET:.0%} of σ, and the median's standard deviation then")
    by_n = [(n, values[n].std()) for n in values]
    headings = ["noise", *(h for n in values for h in (f"b/σ, n = {n}", "std/σ"))]
    found = {(c.noise, c.n): c for c in costs}
    rows = [
        [name, *(f"{x / s:.2f}" for n, s in by_n for c in [found[name, n]] for x in (c.b, c.std))]
        for name in NOISES
    ]
    console.print(text_table(headings, rows))
    console.print()


def cost(name: str, u: Float[np.ndarray, " n"], points: Sequence["Point"]) -> Cost:
    """Bisect between the last b of the curve where the gap is beyond the target, and the next.

    Args:
        name: the noise's name.
        u: the values u_1..u_n.
        points: the curves' points.

    Returns:
        The cost.
    """
    noise, target = NOISES[name](), TARGET * u.std()
    own = [p for p in points if (p.noise, p.n) == (name, len(u))]
    last = max(k for k, p in enumerate(own) if abs(p.gap) > target)
    low, high = own[last].b, own[last + 1].b
    while high / low > 1.001:
        middle = float(np.sqrt(low * high))
        if abs(theory.median_gap(u, middle, noise)) > target:
            low = middle
        else:
            high = middle
    return Cost(name, len(u), high, theory.median_variance(u, high, noise) ** 0.5)


def figure(
    points: Sequence["Point"],
    costs: Sequence[Cost],
    values: Mapping[int, Float[np.ndarray, " n"]],
) -> Figure:
    """Draw the gap against the median's standard deviation as b varies, a panel for each n.

    Args:
        points: the curves' points.
        costs: the costs to mark.
        values: u_1..u_n for each number of workers n.
    """
    title = (
        f"What a small gap costs, by noise of equal variance; points: a gap of {TARGET:.0%} of σ"
    )
    drawing, axes = plots.new_figure(1, len(values), title)
    for axis, (n, u) in zip(axes, values.items(), strict=True):
        for colour, name in zip(plots.COLOURS, NOISES, strict=False):
            own = [p for p in points if (p.noise, p.n) == (name, n)]
            x, y = [p.variance**0.5 / u.std() for p in own], [abs(p.gap) / u.std() for p in own]
            axis.plot(x, y, color=colour, label=name, linewidth=1.2)
            x = [c.std / u.std() for c in costs if (c.noise, c.n) == (name, n)]
            axis.plot(x, [TARGET], "o", color=colour, markersize=4)
        axis.axhline(TARGET, color="0.4", linestyle=":", linewidth=1, zorder=1)
        axis.set_title(f"n = {n}", fontsize=10)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlim(0.1, 10)
        axis.set_ylim(1e-3, 1)
        axis.set_xlabel("standard deviation of the median / σ")
    axes[0].set_ylabel("|E[median] - mean| / σ")
    drawing.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False
    )
    return drawing
