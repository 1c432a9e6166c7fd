"""What Chen et al. (2020) prove, as numbers: the median of noisy values, exactly, and the settings.

Y = median_i(u_i + b ξ_i) is what one coordinate of Noisy medianSGD moves by, and its sign what
Noisy signSGD moves by. As b grows, E[Y] goes to the mean of the u_i (theorems 3 and 4):

>>> from medjax import theory
>>> [round(theory.median_gap([1, 2, 10], b), 4) for b in (0, 3, 10, 30)]
[-2.3333, -1.1593, -0.1717, -0.0201]
>>> theory.theorem5(T=10_000, d=1)
Rates(b=10.0, lr=0.01)

Y <= y if at least (n + 1)/2 of the n independent events u_i + b ξ_i <= y happen: so the
distribution function of Y is a tail of the Poisson binomial distribution. Everything is computed on
the host, in float64, by Gauss-Legendre quadrature of that function on panels between its kinks.
"""

import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Float
from numpy.typing import ArrayLike

from medjax._engine import checks
from medjax.noise import Noise
from medjax.noise._distributions import as_noise as check_noise

Vector = Float[np.ndarray, " n"]
"""The workers' numbers."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_CHUNK = 4096


class Rates(NamedTuple):
    """An algorithm's settings for a given number of steps.

    Attributes:
        b: the scale of the noise.
        lr: δ, the step size.
    """

    b: float
    lr: float


class Moments(NamedTuple):
    """Of the median of noisy values: its expectation less the values' mean, and its variance."""

    gap: float
    variance: float


def theorem5(T: int, d: int) -> Rates:
    """Noisy signSGD's b = (T d)^(1/4) and δ = 1/√(T d): the rate O(d^(3/4) / T^(1/4)).

    Chen et al. (2020), theorem 5.

    Args:
        T: the number of steps.
        d: the number of parameters.

    Raises:
        TypeError: if T or d isn't an integer.
        ValueError: if T or d is below 1.
    """
    size = _size(T, d)
    return Rates(b=size**0.25, lr=size**-0.5)


def theorem6(T: int, d: int) -> Rates:
    """Noisy medianSGD's b = (T d)^(1/6) and δ = (T d)^(-2/3): the rate O(d^(2/3) / T^(1/3)).

    Chen et al. (2020), theorem 6. Arguments and errors are those of `theorem5`.
    """
    size = _size(T, d)
    return Rates(b=size ** (1 / 6), lr=size ** (-2 / 3))


def median_gap(u: ArrayLike, b: float, noise: Noise | None = None) -> float:
    """E[median_i(u_i + b ξ_i)] - mean_i(u_i), which falls at least as fast as 1/b.

    With c any number and G the median's distribution function it is
    c - mean_i(u_i) + ∫_0^∞ [1 - G(c + t) - G(c - t)] dt, for large b with c the mean, so that no
    digits are lost: the error is about 1e-15 (b + max_i |u_i|). For three values the gap falls as
    -(9/2) (∫ f³) Π_i (u_i - mean) / b², f the noise's density.

    Chen et al. (2020), theorems 3 and 4; b = 0 gives the gap that stops the algorithms without
    noise.

    Args:
        u: (n,), the workers' values, n odd as in the paper.
        b: the standard deviation of the noise.
        noise: the distribution of ξ; standard normal by default.

    Raises:
        ValueError: if n is even or 0, b is negative, or a number isn't finite.
        TypeError: if u or b isn't made of real numbers or is traced, or `noise` isn't a `Noise`.
    """
    return median_moments(u, b, noise).gap


def median_variance(u: ArrayLike, b: float, noise: Noise | None = None) -> float:
    """Var[median_i(u_i + b ξ_i)], which grows as b²: what a small gap costs.

    As in `median_gap`, it is ∫_0^∞ 2t [1 - G(c + t) + G(c - t)] dt - (E[median] - c)².

    Chen et al. (2020), theorems 3 and 4. Arguments and errors are those of `median_gap`.
    """
    return median_moments(u, b, noise).variance


def median_moments(u: ArrayLike, b: float, noise: Noise | None = None) -> Moments:
    """Both of `median_gap` and `median_variance`, for the time of one."""
    u, b, noise = _check(u, b, noise)
    mean = np.mean(u)
    # Near the median's expectation, so that little is subtracted.
    centre = mean if b > np.ptp(u) else np.median(u)
    offset, variance = _moments(u - centre, b, noise)
    return Moments(float(centre - mean) + offset, variance)


def median_cdf(
    u: ArrayLike, b: float, y: ArrayLike, noise: Noise | None = None
) -> Float[np.ndarray, "..."]:
    """P(median_i(u_i + b ξ_i) <= y), elementwise in y.

    At y = 0 it gives the direction of Noisy signSGD: E[sign(median)] = 1 - 2 P(median <= 0).

    Args:
        u: (n,), the workers' values, n odd.
        b: the standard deviation of the noise.
        y: numbers, of any shape.
        noise: the distribution of ξ; standard normal by default.

    Raises:
        ValueError, TypeError: as `median_gap`.
    """
    u, b, noise = _check(u, b, noise)
    y = np.asarray(y, np.float64)
    return _below(u, y.ravel(), b, noise).reshape(y.shape)


def median_quantile(u: ArrayLike, b: float, q: float = 0.5, noise: Noise | None = None) -> float:
    """The least y with P(median_i(u_i + b ξ_i) <= y) >= q.

    The default, the median of the median, is where Noisy signSGD is at rest.

    Args:
        u: (n,), the workers' values, n odd.
        b: the standard deviation of the noise.
        q: a probability, between 0 and 1.
        noise: the distribution of ξ; standard normal by default.

    Raises:
        ValueError: if q isn't between 0 and 1, or as `median_gap`.
        TypeError: as `median_gap`.

    >>> round(median_quantile([1, 2, 10], 10.0), 3)
    4.173
    """
    u, b, noise = _check(u, b, noise)
    checks.real("q", q, minimum=0.0, exclusive=True)
    if q >= 1:
        raise ValueError(f"q must be below 1, got {q:g}")
    if q > 0.5:
        return -_quantile(-u[::-1], b, 1 - q, noise)
    return _quantile(u, b, float(q), noise)


def _quantile(u: Vector, b: float, q: float, noise: Noise) -> float:
    # Above all u_i every event has probability 1/2 or more. Below all of them by x b they have at
    # most 1/(2x²), by Chebyshev, and half of them happen with at most twice that, by Markov.
    low = u[0] - b * min(1 / math.sqrt(q), noise.support)
    high = u[-1]
    for _ in range(10):
        y = np.linspace(low, high, 129)
        first = int(np.argmax(_below(u, y, b, noise) >= q))
        low, high = y[max(first - 1, 0)], y[first]
    return float(high)


def _moments(v: Vector, b: float, noise: Noise) -> tuple[float, float]:
    """E[Y] and Var[Y] of Y = median_i(v_i + b ξ_i)."""
    if len(v) == 1 or b == 0:
        return float(np.median(v)), b * b  # one worker's tails may be too heavy for the quadrature
    edges = _panels(np.abs(v), b, noise.support)
    half = np.diff(edges) / 2
    t = (edges[:-1, None] + half[:, None] * (1 + _NODES)).ravel()
    weights = (half[:, None] * _WEIGHTS).ravel()
    # By symmetry, P(Y > t) is the probability that the median of the -v_i + b ξ_i is below -t.
    above, below = _below(-v, -t, b, noise), _below(v, -t, b, noise)
    mean = float(weights @ (above - below))
    return mean, float(weights @ (2 * t * (above + below))) - mean**2


def _below(
    u: Vector, y: Float[np.ndarray, " k"], b: float, noise: Noise
) -> Float[np.ndarray, " k"]:
    """P(median_i(u_i + b ξ_i) <= y): that at least half of the n events u_i + b ξ_i <= y happen."""
    if b == 0:
        return np.where(np.median(u) <= y, 1.0, 0.0)
    with np.errstate(over="ignore"):
        x = (y - u[:, None]) / b
    half = len(u) // 2 + 1
    # counts[j] is the probability that j have happened, the last that `half` or more have.
    counts = np.zeros((half + 1, len(y)))
    counts[0] = 1
    for p in _cdf(noise, x):
        moved = counts[:-1] * p
        counts[:-1] -= moved
        counts[1:] += moved
    return counts[-1]


def _cdf(noise: Noise, x: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """F in float64, some thousands of numbers at a time: JAX compiles anew for every shape."""
    chunks = np.zeros((x.size // _CHUNK + 1, _CHUNK))
    chunks.ravel()[: x.size] = x.ravel()
    # Within someone's jit too these are numbers, now.
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        values = [np.asarray(noise.cdf(chunk), np.float64) for chunk in chunks]
    return np.concatenate(values)[: x.size].reshape(x.shape)


def _panels(centres: Vector, b: float, support: float) -> Float[np.ndarray, " panels"]:
    """Edges from 0 to where nothing is left: at every kink, and as dense as f is steep.

    At a distance x from the nearest centre the workers' distribution functions change over lengths
    of about max(b, x); near it that of the median is steeper by √n.
    """
    reach = b * min(support, _reach(len(centres)))
    end = float(np.max(centres)) + reach
    edges, t = [0.0], 0.0
    while t < end:
        away = float(np.min(np.abs(t - centres)))
        # The last two so that rounding doesn't stop it where b is next to nothing.
        t += max(b / math.sqrt(len(centres)), away / 2, 1e-15 * t, 1e-300)
        edges.append(t)
    # (Where the support is infinite the ends of the reach are no kinks, and do no harm.)
    kinks = np.abs([centres - reach, centres, centres + reach])
    return np.unique(np.clip([*edges, *kinks.ravel()], 0, end))


def _reach(n: int) -> float:
    """How many b's to go into an infinite tail: what is left has 1e-20 of the second moment.

    By Chebyshev, half of the events are at most C(n, half) (2 t²)^-half likely beyond t.
    """
    half = n // 2 + 1
    return (1e20 * math.comb(n, half) / 2**half) ** (0.5 / max(half - 1, 1))


def _check(u: Any, b: Any, noise: Noise | None) -> tuple[Vector, float, Noise]:
    """The values in order, b and the distribution, as the functions above promise."""
    if isinstance(u, Tracer) or isinstance(b, Tracer):
        raise TypeError("u and b must be numbers, not traced: medjax.theory computes on the host")
    checks.real("b", b, minimum=0.0)
    values = np.asarray(u)
    if not (np.issubdtype(values.dtype, np.floating) or np.issubdtype(values.dtype, np.integer)):
        raise TypeError(f"u must be a list of real numbers, got {u!r}")
    if values.ndim != 1 or len(values) % 2 == 0:
        raise ValueError(
            "u must be a list of an odd number of values, one for each worker; "
            f"got shape {values.shape}"
        )
    if not np.all(np.isfinite(values)):
        raise ValueError(f"u must be a list of finite numbers, got {u}")
    return np.sort(values.astype(np.float64)), float(b), check_noise(float(b), noise)


def _size(T: int, d: int) -> int:
    return checks.integer("T", T, minimum=1) * checks.integer("d", d, minimum=1)
