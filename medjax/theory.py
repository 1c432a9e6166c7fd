"""Results of Chen et al. (2020) as numbers: the exact median of noisy values, and the settings.

One coordinate of Noisy medianSGD moves by Y = median_i(u_i + b ξ_i), and one of Noisy signSGD by
the sign of Y. As b grows, E[Y] goes to the mean of the u_i (theorems 3 and 4):

>>> from medjax import theory
>>> [round(theory.median_gap([1, 2, 10], b), 4) for b in (0, 3, 10, 30)]
[-2.3333, -1.1593, -0.1717, -0.0201]
>>> theory.theorem5(T=10_000, d=1)
Rates(b=10.0, lr=0.01)

Y <= y holds if at least (n + 1)/2 of the n independent events u_i + b ξ_i <= y happen, so the
distribution function of Y is a tail of the Poisson binomial distribution. Everything is computed on
the host, in float64, by Gauss-Legendre quadrature of that function between its kinks.
"""

import math
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Float
from numpy.typing import ArrayLike

from medjax._engine import checks
from medjax.noise._distributions import Noise, as_noise

Vector = Float[np.ndarray, " n"]
"""The workers' numbers."""

_FEW, _MANY = (np.polynomial.legendre.leggauss(order) for order in (5, 16))
_CHUNK_SIZE = 4096
_TABLE_SIZE = 2**15  # 256 KiB, so that the recursion stays in the processor's cache


class Rates(NamedTuple):
    """An algorithm's settings for a given number of steps.

    Attributes:
        b: the scale of the noise.
        lr: δ, the step size.
    """

    b: float
    lr: float


class Moments(NamedTuple):
    """The median of noisy values: its expectation minus the values' mean, and its variance."""

    gap: float
    variance: float


def theorem5(T: int, d: int) -> Rates:
    """Return b = (T d)^(1/4) and δ = 1/√(T d) for Noisy signSGD: the rate O(d^(3/4) / T^(1/4)).

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
    """Return b = (T d)^(1/6) and δ = (T d)^(-2/3) for Noisy medianSGD: O(d^(2/3) / T^(1/3)).

    Chen et al. (2020), theorem 6. Arguments and errors are those of `theorem5`.
    """
    size = _size(T, d)
    return Rates(b=size ** (1 / 6), lr=size ** (-2 / 3))


def median_gap(u: ArrayLike, b: float, noise: Noise | None = None) -> float:
    """Return E[median_i(u_i + b ξ_i)] - mean_i(u_i), which falls at least as fast as 1/b.

    For any number c, with G the median's distribution function, it is
    c - mean_i(u_i) + ∫_0^∞ [1 - G(c + t) - G(c - t)] dt. For large b, c is the mean, so that no
    digits are lost: the error is about 1e-15 (b + max_i |u_i|), or up to 1e-10 b if n is above 200
    and the noise's density has kinks. For three values the gap falls as
    -(9/2) (∫ f³) Π_i (u_i - mean) / b², where f is the noise's density.

    Chen et al. (2020), theorems 3 and 4; b = 0 gives the gap that stops the algorithms without
    noise.

    Args:
        u: (n,), the workers' values, n odd as in the paper. A thousand take about a second.
        b: the standard deviation of the noise.
        noise: the distribution of ξ; standard normal by default.

    Raises:
        ValueError: if n is even or 0, b is negative, a number isn't finite, or the noise has no
            `cdf`.
        TypeError: if u or b isn't made of real numbers or is traced, or `noise` isn't a `Noise`.
    """
    return median_moments(u, b, noise).gap


def median_variance(u: ArrayLike, b: float, noise: Noise | None = None) -> float:
    """Return Var[median_i(u_i + b ξ_i)], which grows as b²: the price of a small gap.

    In the notation of `median_gap` it is ∫_0^∞ 2t [1 - G(c + t) + G(c - t)] dt - (E[median] - c)².

    Chen et al. (2020), theorems 3 and 4. Arguments and errors are those of `median_gap`.
    """
    return median_moments(u, b, noise).variance


def median_moments(u: ArrayLike, b: float, noise: Noise | None = None) -> Moments:
    """Return both `median_gap` and `median_variance`, in the time that one of them takes."""
    u, b, noise = _check(u, b, noise)
    mean = np.mean(u)
    # A centre near the median's expectation, so that little is subtracted.
    centre = mean if b > np.ptp(u) else np.median(u)
    offset, variance = _moments(u - centre, b, noise)
    return Moments(float(centre - mean) + offset, variance)


def median_cdf(
    u: ArrayLike, b: float, y: ArrayLike, noise: Noise | None = None
) -> Float[np.ndarray, "..."]:
    """Return P(median_i(u_i + b ξ_i) <= y), elementwise in y.

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
    """Return the least y with P(median_i(u_i + b ξ_i) <= y) >= q.

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
    cells = 128 if len(u) < 100 else 8
    for _ in range(70 // int(math.log2(cells))):
        y = np.linspace(low, high, cells + 1)
        # By the above it holds at the last, where rounding may say otherwise.
        reached = np.append(_below(u, y[:-1], b, noise) >= q, True)
        first = int(np.argmax(reached))
        low, high = y[max(first - 1, 0)], y[first]
    return float(high)


def _moments(v: Vector, b: float, noise: Noise) -> tuple[float, float]:
    """Return E[Y] and Var[Y] of Y = median_i(v_i + b ξ_i)."""
    n = len(v)
    if n == 1 or b == 0:
        return float(np.median(v)), b * b  # one worker's tails may be too heavy for the quadrature
    mean = square = 0.0
    steps = _steps(np.abs(v), b, noise)
    # Few at a time for large n, since the sum stops early; many for small n, as JAX's calls cost.
    while some := list(islice(steps, min(max(_CHUNK_SIZE // (16 * n), 1), 32))):
        t, weights = np.concatenate([_nodes(edges) for edges in some], axis=1)
        # By symmetry, P(Y > t) is the probability that the median of the -v_i + b ξ_i is below -t.
        above, below = _below(-v, -t, b, noise), _below(v, -t, b, noise)
        mean += float(weights @ (above - below))
        square += float(weights @ (2 * t * (above + below)))
        # About t² P(|Y| > t) is left of E[Y²], and Var[Y] is about b²/n or more.
        if (above[-1] + below[-1]) * (t[-1] / b) ** 2 < 1e-20 / n:
            break
    return mean, square - mean**2


def _below(
    u: Vector, y: Float[np.ndarray, " k"], b: float, noise: Noise
) -> Float[np.ndarray, " k"]:
    """Return P(median_i(u_i + b ξ_i) <= y), by adding one event u_i + b ξ_i <= y after another.

    It has n²/4 multiplications for each y, of positive numbers, so that tails keep their digits. By
    Fourier transforms it would be no faster for a thousand values, and tails would be lost.
    """
    if b == 0:
        return np.where(np.median(u) <= y, 1.0, 0.0)
    n, half = len(u), len(u) // 2 + 1
    tails = []
    for some in np.array_split(y, len(y) * half // _TABLE_SIZE + 1):
        with np.errstate(over="ignore"):
            p = _cdf(noise, (some - u[:, None]) / b)
        # counts[j] is the probability that j have happened, the last that `half` or more have.
        counts = np.zeros((half + 1, len(some)))
        counts[0] = 1
        for i in range(n):
            # After i events no more than i have happened, and the last n - i must make up `half`.
            low, high = max(half - (n - i), 0), min(i + 1, half)
            moved = counts[low:high] * p[i]
            counts[low:high] -= moved
            counts[low + 1 : high + 1] += moved
        tails.append(counts[-1])
    return np.concatenate(tails)


def _cdf(noise: Noise, x: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """Return F(x) in float64, computed in chunks of one size: JAX compiles anew for every shape."""
    chunks = np.zeros((x.size // _CHUNK_SIZE + 1, _CHUNK_SIZE))
    chunks.ravel()[: x.size] = x.ravel()
    # Within someone's jit too these are numbers, now.
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        values = [np.asarray(noise.cdf(chunk), np.float64) for chunk in chunks]
    return np.concatenate(values)[: x.size].reshape(x.shape)


def _steps(centres: Vector, b: float, noise: Noise) -> Iterator[Float[np.ndarray, " edges"]]:
    """Yield the edges of panels, a step at a time, from 0 outwards and without end.

    At a distance x from the nearest centre the workers' distribution functions change over lengths
    of about max(b, x). Near it that of the median changes over b/√n, or over b/n where bounded
    noise ends. 16 nodes suffice for several such lengths.
    """
    n, far = len(centres), b * noise.support
    density, kinked = _shape(noise)
    ends = [np.abs(centres - far), centres + far]
    kinks = np.unique([centres, *ends] if kinked else ends)
    most = max(3 * 10**7 // n**2, 8)
    step = b * min(0.5 / density, 1) * min((3 if far == math.inf else 1) / math.sqrt(n), 0.6)
    low = 0.0
    while True:
        away = float(np.min(np.abs(low - centres)))
        # The last two so that rounding doesn't stop it where b is next to nothing.
        high = low + max(step, away / 2, 1e-15 * low, 1e-300)
        inside = kinks[np.searchsorted(kinks, low, "right") : np.searchsorted(kinks, high)]
        if len(inside) > most:
            # For the time: all kinks that are far from the one before, of the others every k-th.
            keep = np.diff(inside, prepend=-math.inf) > (inside[-1] - inside[0]) / most
            keep[:: len(inside) // most + 1] = keep[-1] = True
            inside = inside[keep]
        yield np.array([low, *inside, high])
        low = high


def _shape(noise: Noise) -> tuple[float, bool]:
    """Return the density f(0), at least 0.5, and whether f has a kink there."""
    linear, *others = _cdf(noise, np.array([[1e-3, 2e-3, 4e-3]]))[0] - 0.5
    # What isn't linear in F grows as x³ by symmetry, but as x² if f has a kink.
    first, second = others[0] - 2 * linear, others[1] - 2 * others[0]
    return max(linear / 1e-3, 0.5), abs(first) > 1e-12 and abs(second) < 6 * abs(first)


def _nodes(edges: Float[np.ndarray, " edges"]) -> Float[np.ndarray, "2 k"]:
    """Return the nodes and weights of the panels; panels between close kinks need only few."""
    close = (edges[-1] - edges[0]) / 16
    found = []
    for low, high in pairwise(edges):
        x, weights = _FEW if high - low < close else _MANY
        found.append([low + (high - low) / 2 * (1 + x), (high - low) / 2 * weights])
    return np.concatenate(found, axis=1)


def _check(u: Any, b: Any, noise: Noise | None) -> tuple[Vector, float, Noise]:
    """Return the values in order, b and the distribution, once they are checked."""
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
    noise = as_noise(noise)
    if noise.cdf is None:
        raise ValueError(f"theory needs the noise's distribution function: {noise.name} has no cdf")
    return np.sort(values.astype(np.float64)), float(b), noise


def _size(T: int, d: int) -> int:
    return checks.integer("T", T, minimum=1) * checks.integer("d", d, minimum=1)
