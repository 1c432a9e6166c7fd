"""Theorems 3 to 6 in numbers: the gap, its price, and the rates of convergence.

Theorems 3 and 4, here: for fixed u_1..u_n the median of u_i + b ξ_i has expectation
mean(u) + O(1/b) and variance O(b²), and its distribution becomes symmetric about the mean at
O(1/b²). Curves by quadrature (`medjax.theory`), points by drawing noise and taking medians. The
price of a small gap is in `noise_cost`, theorems 5 and 6 are in `convergence`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from matplotlib.figure import Figure
from rich.console import Console

from experiments.paper import convergence, noise_cost
from experiments.paper.claims import Claim, columns, log_slope, text_table
from experiments.paper.options import Options
from experiments.pictures import write_picture
from medjax import rules, theory
from medjax.lab import plots
from medjax.lab.storage import results
from medjax.noise import NOISES, Noise

TOY = np.array([1.0, 2.0, 10.0])
SPREAD = float(TOY.std())
"""σ, the standard deviation of the u_i, for every n."""
NUM_WORKERS = (3, 11, 31)
QUANTITIES = ("gap", "variance", "asymmetry")
DRAWN = 10 ** np.array([-1 / 3, 0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3])
"""The b/σ, of those of the curves, at which noise is drawn."""


@dataclass(frozen=True)
class Point:
    """Gap, variance and asymmetry for one b, by quadrature."""

    noise: str
    n: int
    b: float
    gap: float
    variance: float
    asymmetry: float


@dataclass(frozen=True)
class Draw:
    """Gap and variance for one b, by drawing, with standard errors."""

    noise: str
    n: int
    b: float
    gap: float
    gap_error: float
    variance: float
    variance_error: float


def settings(options: Options) -> dict[str, Any]:
    """Return the settings that the results depend on."""
    return {
        "u": {str(n): values(n).tolist() for n in NUM_WORKERS},
        "num_scales": 25 if options.quick else 37,
        "num_pairs": 2**15 if options.quick else 2**19,
        **convergence.settings(options),
    }


def run(console: Console, folder: Path, options: Options) -> list[Claim]:
    """Measure all three; print short tables; write the figures and the data behind them.

    Args:
        console: where to print.
        folder: where to write; made if need be.
        options: with `quick`, fewer points, draws and steps: a minute on two cores, instead of
            about four.

    Returns:
        The theorems' claims, and whether we saw them.
    """
    numbers = settings(options)
    scales = SPREAD * np.geomspace(0.1, 1000, numbers["num_scales"])
    with console.status("the median's distribution"):
        points = [p for n in NUM_WORKERS for name in NOISES for p in curve(name, n, scales)]
        drawn = [p for p in points if any(math.isclose(p.b, x * SPREAD) for x in DRAWN)]
        draws = [draw(p.noise, p.n, p.b, numbers["num_pairs"], seed=k) for k, p in enumerate(drawn)]
    results.write_table(folder / "theory_curves.parquet", columns(points))
    results.write_table(folder / "theory_draws.parquet", columns(draws))
    write_picture(folder, "theory_gap", figure(points, list(zip(draws, drawn, strict=True))))
    slopes = {(p.noise, p.n): large_b_slopes(points, p.noise, p.n) for p in points}
    console.print("slopes for large b, log against log")
    headings = ("noise", *(f"{what}, n = {n}" for what in QUANTITIES for n in NUM_WORKERS))
    rows = [
        [name, *(f"{slopes[name, n][what]:.2f}" for what in QUANTITIES for n in NUM_WORKERS)]
        for name in NOISES
    ]
    console.print(text_table(headings, rows))
    off = max(abs(d.gap - p.gap) / d.gap_error for d, p in zip(draws, drawn, strict=True))
    console.print(
        f"{len(draws)} gaps by drawing are within {off:.1f} standard errors of quadrature's\n"
    )
    noise_cost.run(console, folder, points, {n: values(n) for n in NUM_WORKERS})
    return [*claims(slopes), *convergence.run(console, folder, options)]


def values(n: int) -> Float[np.ndarray, " n"]:
    """Return u_1..u_n: the paper's toy for n = 3; else quantiles of an exponential distribution."""
    if n == 3:
        return TOY
    u = -np.log1p(-(np.arange(n) + 0.5) / n)
    return TOY.mean() + SPREAD * (u - u.mean()) / u.std()


def curve(name: str, n: int, scales: np.ndarray) -> list[Point]:
    """Compute gap, variance and asymmetry for each b, by quadrature.

    Args:
        name: the noise's name.
        n: the number of workers.
        scales: the b's.

    Returns:
        A point for each b.
    """
    u, noise = values(n), NOISES[name]()
    return [
        Point(name, n, b, *theory.median_moments(u, b, noise), asymmetry(u, b, noise))
        for b in map(float, scales)
    ]


def asymmetry(u: Float[np.ndarray, " n"], b: float, noise: Noise) -> float:
    """Return max_t |P(Y > m + t) - P(Y < m - t)|, Y the median of u_i + b ξ_i, m their mean.

    Args:
        u: the values u_1..u_n.
        b: the scale of the noise.
        noise: the noise.
    """
    v = u - u.mean()
    # Kinks of F make it largest near them: near 0, and near the support's ends.
    near = np.linspace(0, 1.1 * np.abs(v).max(), 60)
    t = [near, np.linspace(0, 3 * b, 60)]
    if noise.support < math.inf:
        t += [np.abs(noise.support * b - near), noise.support * b + near]
    below = -np.concatenate(t)
    above = theory.median_cdf(-v, b, below, noise)
    return float(np.max(np.abs(above - theory.median_cdf(v, b, below, noise))))


def draw(name: str, n: int, b: float, num_pairs: int, seed: int) -> Draw:
    """Estimate gap and variance by drawing.

    The draws are in pairs, ξ and -ξ: for large b the two medians are nearly opposite, so that their
    average is good to about the spread of the u_i over √pairs, whatever b.

    Args:
        name: the noise's name.
        n: the number of workers.
        b: the scale of the noise.
        num_pairs: the number of pairs.
        seed: the seed of the draws.

    Returns:
        The estimates, with standard errors.
    """
    v = jnp.asarray(values(n) - values(n).mean(), jnp.float32)[:, None]
    medians = _medians(name, num_pairs)(jax.random.key(seed), v, jnp.float32(b))
    y = np.asarray(medians, np.float64)
    squares = (y - y.mean()) ** 2
    return Draw(name, n, b, *_with_error(y.mean(axis=0)), *_with_error(squares.mean(axis=0)))


@functools.cache
def _medians(name: str, num_pairs: int) -> Callable[..., Float[Array, "2 pairs"]]:
    """Compile (key, v, b) to the medians of v_i ± b ξ_i, one program for each n."""
    noise, median = NOISES[name](), rules.median()

    @jax.jit
    def medians(key: Key[Array, ""], v: Float[Array, "n 1"], b: Array) -> Float[Array, "2 pairs"]:
        xi = noise.sample(key, (len(v), num_pairs))
        return jnp.stack([jnp.asarray(median(v + sign * b * xi)) for sign in (1, -1)])

    return medians


def _with_error(x: Float[np.ndarray, " k"]) -> tuple[float, float]:
    return float(x.mean()), float(x.std(ddof=1) / math.sqrt(len(x)))


def large_b_slopes(points: Sequence[Point], name: str, n: int) -> dict[str, float]:
    """Fit each quantity's slope over the largest b's at which it is more than rounding error.

    Args:
        points: the curves' points.
        name: the noise's name.
        n: the number of workers.

    Returns:
        The slopes, log against log, by quantity.
    """
    own = [p for p in points if (p.noise, p.n) == (name, n)]
    # Far below these, values are lost in the rounding of probabilities near 1/2.
    floors = {"gap": 1e-11, "variance": 0.0, "asymmetry": 1e-11}

    def slope(what: str) -> float:
        sizes = [(p.b, abs(getattr(p, what))) for p in own]
        last = max(b for b, y in sizes if y > floors[what] * (b if what == "gap" else 1))
        x, y = zip(*((b, y) for b, y in sizes if last / 5 < b <= last), strict=True)
        return log_slope(x, y)[0]

    return {what: slope(what) for what in QUANTITIES}


def claims(slopes: dict[tuple[str, int], dict[str, float]]) -> list[Claim]:
    """Check theorems 3 and 4 against the measured slopes."""

    def claim(text: str, what: str, proven: float, names: Sequence[str], slack: float) -> Claim:
        measured = [slopes[name, n][what] for name in names for n in NUM_WORKERS]
        low, high = f"{min(measured):.2f}", f"{max(measured):.2f}"
        ours = f"slope {low}" if low == high else f"slopes {low} to {high}"
        holds = max(measured) <= proven + slack
        return Claim("theory", text, "Theorems 3, 4", f"slope at most {proven:g}", ours, holds)

    gaps = [
        claim(f"{name} noise: E[median] - mean is O(1/b)", "gap", -1, [name], 0) for name in NOISES
    ]
    # Slopes of the last few points, where lower orders are down to less than a hundredth.
    return [
        *gaps,
        claim("every noise: the median's variance is O(b²)", "variance", 2, list(NOISES), 0.01),
        claim("every noise: its asymmetry is O(1/b²)", "asymmetry", -2, list(NOISES), 0.01),
    ]


def figure(points: Sequence[Point], draws: Sequence[tuple[Draw, Point]]) -> Figure:
    """Draw the gap and the variance against b, a column for each number of workers.

    Args:
        points: the curves' points.
        draws: the estimates by drawing, each with the curves' point at its b.
    """
    title = "The median of n noisy values: curves by quadrature, points by drawing (± 2 s.e.)"
    drawing, axes = plots.new_figure(2, len(NUM_WORKERS), title)
    for column, n in enumerate(NUM_WORKERS):
        top, bottom = axes[column], axes[column + len(NUM_WORKERS)]
        for colour, name in zip(plots.COLOURS, NOISES, strict=False):
            own = [p for p in points if (p.noise, p.n) == (name, n)]
            x = [p.b / SPREAD for p in own]
            top.plot(x, [abs(p.gap) / SPREAD for p in own], color=colour, label=name, linewidth=1.2)
            bottom.plot(x, [n * p.variance / p.b**2 for p in own], color=colour, linewidth=1.2)
        for d, exact in (pair for pair in draws if pair[0].n == n):
            style: dict[str, Any] = {"color": plots.COLOURS[list(NOISES).index(d.noise)]}
            style |= {"fmt": "o", "markersize": 3, "elinewidth": 1}
            x, unit = d.b / SPREAD, n / d.b**2
            # Smaller gaps can't be told from 0.
            if abs(exact.gap) > 4 * d.gap_error:
                top.errorbar(x, abs(d.gap) / SPREAD, 2 * d.gap_error / SPREAD, **style)
            bottom.errorbar(x, d.variance * unit, 2 * d.variance_error * unit, **style)
        guide = np.array([3.0, 1000.0])
        for order, line, label in ((1, "--", "1/b, the bound"), (2, ":", "1/b²")):
            y = 3 * guide**-order
            top.plot(guide, y, color="0.4", linestyle=line, linewidth=1, label=label)
        top.set_title(f"n = {n}", fontsize=10)
        top.set_yscale("log")
        top.set_ylim(1e-7, 3)
        bottom.set_ylim(0, 4)
        for axis in (top, bottom):
            axis.set_xscale("log")
            axis.set_xlabel("b / σ")
    axes[0].set_ylabel("|E[median] - mean| / σ")
    axes[len(NUM_WORKERS)].set_ylabel("n · variance / b² (the mean's is 1)")
    drawing.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=8, frameon=False
    )
    return drawing
