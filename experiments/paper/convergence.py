"""Theorems 5 and 6: the average squared gradient norm against the number of steps.

f_i(x) = ‖x - a_i‖²/2 for three workers, every coordinate of a_i that of the toy, (1, 2, 10), scaled
to variance 1: the median of the gradients differs from their mean, and without noise both
algorithms stall. A run of T steps, with the theorem's b and δ for that T, starts at ‖∇f(x_0)‖ = 2,
on either side in half of the runs, whatever the number of parameters d: f(x_0) - min f is 2.

The start matters where T is small: of the theorem's small steps it takes T > d³ (theorem 5) or
T > d² (theorem 6) to come near the minimum at all, and before that the average is about 4.
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
import optax
from jax import lax
from jaxtyping import Array, Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from rich.console import Console

import medjax
from experiments.paper.claims import Claim, columns, log_slope, text_table
from experiments.paper.options import Options
from experiments.pictures import write_picture
from medjax import theory
from medjax.lab import plots
from medjax.lab.storage import results

_TOY = np.array([1.0, 2.0, 10.0])
TARGETS = (_TOY - _TOY.mean()) / _TOY.std()
START = 2.0
"""‖∇f(x_0)‖, of which every coordinate has the same part."""
SEEDS = {1: 256, 10: 16}
"""The number of runs for each number of parameters d: few average over coordinates."""
CHUNKS = 100
THEOREMS = {5: ("Noisy signSGD", theory.theorem5), 6: ("Noisy medianSGD", theory.theorem6)}


@dataclass(frozen=True)
class Average:
    """(1/T) Σ_t ‖∇f(x_t)‖² of runs with the theorem's settings, beside what it is compared with.

    Attributes:
        theorem: 5 or 6.
        d: the number of parameters.
        T: the number of steps.
        b: the theorem's scale of the noise.
        lr: the theorem's step size.
        mean: over the seeds.
        error: the mean's standard error.
        noiseless: the same average with b = 0.
        rate: d^(3/4)/T^(1/4) or d^(2/3)/T^(1/3).
        bound: the bound that theorem 6's proof gives, see `bound6`; NaN for theorem 5.
    """

    theorem: int
    d: int
    T: int
    b: float
    lr: float
    mean: float
    error: float
    noiseless: float
    rate: float
    bound: float


def settings(options: Options) -> dict[str, Any]:
    """Return the settings that the results depend on."""
    lengths = [100, 300, 1000, 3000, 10_000]
    if not options.quick:
        lengths += [30_000, 100_000, 300_000, 1_000_000]
    return {"a": TARGETS.tolist(), "start": START, "seeds": SEEDS, "lengths": lengths}


def run(console: Console, folder: Path, options: Options) -> list[Claim]:
    """Measure; print the table; write the figure and the data; return the theorems' claims.

    Args:
        console: where to print.
        folder: where the results go.
        options: the experiment's options.

    Returns:
        The theorems' claims.
    """
    averages: list[Average] = []
    lengths = settings(options)["lengths"]
    with console.status("") as status:
        for theorem in THEOREMS:
            for d in SEEDS:
                for T in lengths:
                    status.update(f"theorem {theorem}, d = {d}, {T} steps")
                    averages.append(measure(theorem, d, T))
    results.write_table(folder / "convergence.parquet", columns(averages))
    write_picture(folder, "convergence", figure(averages))
    console.print("the average of ‖∇f‖² over a run of T steps")
    found = {(a.theorem, a.d, a.T): a for a in averages}
    keys = [(theorem, d) for theorem in THEOREMS for d in SEEDS]
    headings = ["T", *(f"{THEOREMS[theorem][0]}, d = {d}" for theorem, d in keys)]
    rows = [
        [f"{T:,}", *(f"{a.mean:.4f} ± {a.error:.4f}" for key in keys for a in [found[*key, T]])]
        for T in lengths
    ]
    console.print(text_table(headings, rows))
    console.print()
    return claims(averages)


def measure(theorem: int, d: int, T: int) -> Average:
    """Run the theorem's algorithm with its settings, for each seed, and without noise.

    Args:
        theorem: 5 or 6.
        d: the number of parameters.
        T: the number of steps, a multiple of 100.

    Returns:
        The average, with what it is compared with.
    """
    b, lr = THEOREMS[theorem][1](T, d)
    seeds = SEEDS[d]
    scales = jnp.full(seeds + 2, b).at[-2:].set(0.0)
    runs = _averages(theorem, d)(jnp.arange(seeds + 2), scales, lr, T // CHUNKS)
    noisy, noiseless = np.split(np.asarray(runs, np.float64), [seeds])
    return Average(
        theorem,
        d,
        T,
        b,
        lr,
        mean=float(np.mean(noisy)),
        error=float(np.std(noisy, ddof=1) / math.sqrt(seeds)),
        noiseless=float(np.mean(noiseless)),
        rate=d**0.75 / T**0.25 if theorem == 5 else (d * d / T) ** (1 / 3),
        bound=bound6(d, T) if theorem == 6 else math.nan,
    )


@functools.cache
def _averages(theorem: int, d: int) -> Callable[..., Float[Array, " runs"]]:
    """Compile (seeds, scales b, δ, steps/100) to each run's average of ‖∇f(x_t)‖², t < T."""
    algorithm = medjax.noisy_sign_sgd if theorem == 5 else medjax.noisy_median_sgd
    a = jnp.asarray(TARGETS, jnp.float32)[:, None]  # its mean is 0, so that ∇f(x) = x

    def average(seed: Array, b: Array, lr: Array, chunk: Array) -> Float[Array, ""]:
        optimizer = algorithm(lr, b, key=jax.random.key(seed))

        def step(_: Array, carry: tuple[Array, optax.OptState, Array]):
            x, state, total = carry
            updates, state = optimizer.update(x[None] - a, state, x)
            return optax.apply_updates(x, updates), state, total + jnp.sum(x**2)

        def advance(carry: tuple[Array, optax.OptState], _: None):
            x, state, total = lax.fori_loop(0, chunk, step, (*carry, jnp.float32(0)))
            return (x, state), total / chunk  # in parts, so that float32 sums are exact enough

        side = jnp.where(seed % 2 == 0, 1.0, -1.0)
        x = side * jnp.full(d, START / math.sqrt(d))
        return lax.scan(advance, (x, optimizer.init(x)), length=CHUNKS)[1].mean()

    return jax.jit(jax.vmap(average, in_axes=(0, 0, None, None)))


def bound6(d: int, T: int) -> float:
    """Return theorem 6's bound on the average of E‖∇f‖²: 2 D_f/(T δ) + d gap² + δ d Var.

    A step is -δ (∇f + γ + η), γ the gap in every coordinate, η of mean 0, and ∇f is 1-Lipschitz. So
    E f falls by at least δ/2 (‖∇f‖² - ‖γ‖²) - δ²/2 E‖η‖² at every step, if δ <= 1.

    Args:
        d: the number of parameters.
        T: the number of steps.
    """
    b, lr = theory.theorem6(T, d)
    # The median of x - a_i + b ξ_i moves with x: the gap and the variance are the same everywhere.
    gap, variance = theory.median_gap(-TARGETS, b), theory.median_variance(-TARGETS, b)
    return START**2 / (T * lr) + d * gap**2 + lr * d * variance


def claims(averages: Sequence[Average]) -> list[Claim]:
    """Check the theorems' rates in T for d = 1, in T and d together, and the bound of theorem 6."""
    found = []
    for theorem, (power, rate) in {
        5: (4, "d^(3/4) / T^(1/4)"),
        6: (3, "d^(2/3) / T^(1/3)"),
    }.items():
        where, name = f"Theorem {theorem}", THEOREMS[theorem][0]
        slope, error = fitted_slope(averages, theorem, 1)
        found.append(
            Claim(
                "theory",
                f"{name}, d = 1: the average of ‖∇f‖² falls as T^(-1/{power})",
                where,
                f"slope at most -1/{power} = {-1 / power:.3f}",
                f"slope {slope:.3f} ± {error:.3f}",
                slope <= -1 / power + 2 * error,
            )
        )
        # The constant of d = 10, from few steps to many, is no larger than those of d = 1.
        own = [a for a in averages if a.theorem == theorem]
        largest = {d: max(a.mean / a.rate for a in own if a.d == d) for d in SEEDS}
        slack = max(2 * a.error / a.rate for a in own)
        found.append(
            Claim(
                "theory",
                f"{name}: it is at most C {rate}, one C for all T and d",
                where,
                "C doesn't grow with T and d",
                ", ".join(f"{c:.2f} (d = {d})" for d, c in largest.items()),
                largest[10] <= largest[1] + slack,
            )
        )
    ratio = max((a.mean - 2 * a.error) / a.bound for a in averages if a.theorem == 6)
    text = f"{THEOREMS[6][0]}: it is at most 2 D_f/(T δ) + d gap² + δ d variance"
    ours = f"at most {ratio:.2f} of the bound"
    return [*found, Claim("theory", text, "Theorem 6", "at most 1", ours, ratio <= 1)]


def fitted_slope(averages: Sequence[Average], theorem: int, d: int) -> tuple[float, float]:
    """Fit the slope against T over the last factor of 100, log against log, with its error.

    Args:
        averages: the averages of all runs.
        theorem: 5 or 6.
        d: the number of parameters.

    Returns:
        The slope, and its standard error.
    """
    own = [a for a in averages if (a.theorem, a.d) == (theorem, d)]
    own = [a for a in own if 100 * a.T >= own[-1].T]
    return log_slope([a.T for a in own], [a.mean for a in own], [a.error for a in own])


def figure(averages: Sequence[Average]) -> Figure:
    """Draw the averages against T, a panel for each theorem."""
    title = "Average of ‖∇f‖² over T steps, with the theorem's b and δ for T (± 2 s.e.)"
    drawing, axes = plots.new_figure(1, 2, title)
    for axis, (theorem, power) in zip(axes, ((5, 4), (6, 3)), strict=True):
        for colour, d in zip(plots.COLOURS, SEEDS, strict=False):
            own = [a for a in averages if (a.theorem, a.d) == (theorem, d)]
            T, mean = np.array([a.T for a in own]), np.array([a.mean for a in own])
            slope, error = fitted_slope(averages, theorem, d)
            axis.errorbar(
                T,
                mean,
                [2 * a.error for a in own],
                color=colour,
                fmt="o-",
                markersize=4,
                linewidth=1.5,
                label=f"d = {d}: slope {slope:.3f} ± {error:.3f}",
            )
            guide = mean[-1] * (T / T[-1]) ** (-1 / power)
            axis.plot(T, guide, color="0.5", linestyle=":", linewidth=1, zorder=1)
            for values, line in (
                ([a.noiseless for a in own], "--"),
                ([a.bound for a in own], "-."),
            ):
                axis.plot(T, values, color=colour, linestyle=line, linewidth=1)
        axis.set_title(f"Theorem {theorem}: {THEOREMS[theorem][0]}", fontsize=10)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("number of steps T")
        axis.set_ylabel("(1/T) Σ ‖∇f‖²")
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.set_ylim(bottom=axis.get_ylim()[0] / 3)  # room for the legend
        axis.legend(frameon=False, fontsize=9, loc="lower left")
    lines: dict[Any, str] = {
        "-": "with noise",
        "--": "without noise",
        ":": "slope -1/4, -1/3",
        "-.": "the proof's bound",
    }
    handles = [Line2D([], [], color="0.4", linestyle=line, label=lines[line]) for line in lines]
    drawing.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return drawing
