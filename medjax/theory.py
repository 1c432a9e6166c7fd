"""Results of Chen et al. (2020) as numbers: the exact median of noisy values, and the settings.

One coordinate of Noisy medianSGD moves by Y = median_i(u_i + b ξ_i), one of Noisy signSGD by the
sign of Y. As b grows, E[Y] goes to the mean of the u_i (theorems 3 and 4):

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
from itertools import islice
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

_RULES = [np.polynomial.legendre.leggauss(order) for order in (5, 8, 16)]
_CHUNK_SIZE = 2048
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
    size = checks.integer("T", T, minimum=1) * checks.integer("d", d, minimum=1)
    return Rates(b=size**0.25, lr=size**-0.5)


def theorem6(T: int, d: int) -> Rates:
    """Return b = (T d)^(1/6), δ = (T d)^(-2/3) for Noisy medianSGD: the rate O(d^(2/3) / T^(1/3)).

    Chen et al. (2020), theorem 6. Arguments and errors are those of `theorem5`.
    """
    size = checks.integer("T", T, minimum=1) * checks.integer("d", d, minimum=1)
    return Rates(b=size ** (1 / 6), lr=size ** (-2 / 3))


def median_gap(u: ArrayLike, b: float, noise: Noise | None = None) -> float:
    """Return E[median_i(u_i + b ξ_i)] - mean_i(u_i), which falls at least as fast as 1/b.

    For any number c, with G the median's distribution function, it is
    c - mean_i(u_i) + ∫_0^∞ [1 - G(c + t) - G(c - t)] dt. For large b, c is the mean, so that no
    digits are lost: the error is about 1e-15 (b + max_i |u_i|), or up to 1e-9 b if n is above 200
    and the noise's density f has kinks. A thousand values take about a second, or a few with kinks.
    For three values the gap falls as -(9/2) (∫ f³) Π_i (u_i - mean) / b².

    Chen et al. (2020), theorems 3 and 4. b = 0 gives the gap that stops the noiseless algorithms.

    Args:
        u: (n,), the workers' values, n odd as in the paper.
        b: the standard deviation of the noise.
        noise: the distribution of ξ; standard normal by default.

    Raises:
        ValueError: if n is even or 0, b is negative, a number isn't finite, or `noise.cdf` is None.
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
    """Return P(median_i(u_i + b ξ_i) <= y), elementwise for numbers y of any shape.

    At y = 0 it gives the direction of Noisy signSGD: E[sign(median)] = 1 - 2 P(median <= 0).
    The other arguments and the errors are those of `median_gap`.
    """
    u, b, noise = _check(u, b, noise)
    y = np.asarray(y, np.float64)
    return _below(u, y.ravel(), b, noise).reshape(y.shape)


def median_quantile(u: ArrayLike, b: float, q: float = 0.5, noise: Noise | None = None) -> float:
    """Return the least y with P(median_i(u_i + b ξ_i) <= y) >= q.

    The default, the median of the median, is where Noisy signSGD is at rest. q must be above 0 and
    below 1, or a ValueError is raised. Other arguments and errors are those of `median_gap`.

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
    """Return the quantile for q up to 0.5, from a bracket that shrinks 2^70 times."""
    # Above all u_i every event has probability 1/2 or more. At x b below all of them each has at
    # most 1/(2x²), by Chebyshev, so half of them happen with at most twice that, by Markov.
    low, high = u[0] - b * min(1 / math.sqrt(q), noise.support), u[-1]
    halvings = 7 if len(u) < 100 else 3  # a call's cost is mostly fixed for few workers only
    for _ in range(70 // halvings):
        y = np.linspace(low, high, 2**halvings + 1)
        # The last point counts as reached even if rounding says otherwise.
        first = int(np.argmax(np.append(_below(u, y[:-1], b, noise) >= q, True)))
        low, high = y[max(first - 1, 0)], y[first]
    return float(high)


def _moments(v: Vector, b: float, noise: Noise) -> tuple[float, float]:
    """Return E[Y] and Var[Y] of Y = median_i(v_i + b ξ_i)."""
    n = len(v)
    if n == 1 or b == 0:
        return float(np.median(v)), b * b  # one worker's tails may be too heavy for the quadrature
    mean = square = 0.0
    steps = _steps(np.abs(v), b, noise)
    # As many at a time as fill a chunk of `_cdf`: more would go too far beyond the end.
    steps_per_turn = min(max(_CHUNK_SIZE // (16 * n), 1), 32)
    while True:
        t, weights = np.concatenate([_nodes(e) for e in islice(steps, steps_per_turn)], axis=1)
        # By symmetry, P(Y > t) is the probability that the median of the -v_i + b ξ_i is below -t.
        above, below = _below(-v, -t, b, noise), _below(v, -t, b, noise)
        mean += float(weights @ (above - below))
        square += float(weights @ (2 * t * (above + below)))
        # About t² P(|Y| > t) of E[Y²] remains, and Var[Y] is about b²/n or more.
        if not (above[-1] + below[-1]) * (t[-1] / b) ** 2 > 1e-20 / n:
            break
    return mean, square - mean**2


def _below(
    u: Vector, y: Float[np.ndarray, " k"], b: float, noise: Noise
) -> Float[np.ndarray, " k"]:
    """Return P(median_i(u_i + b ξ_i) <= y), that at least half of the n events happen.

    The recursion over the events takes n²/4 multiplications for each y and keeps the digits of the
    tails. Fourier transforms lose these, and would be no faster for a thousand values.
    """
    if b == 0:
        return np.where(np.median(u) <= y, 1.0, 0.0)
    n, half = len(u), len(u) // 2 + 1
    tails = []
    for some in np.array_split(y, len(y) * half // _TABLE_SIZE + 1):
        with np.errstate(over="ignore"):
            p = _cdf(noise, (some - u[:, None]) / b)
        # counts[j] is the probability that j have happened, the last one that `half` or more have.
        counts = np.zeros((half + 1, len(some)))
        counts[0] = 1
        for i in range(n):
            # Before event i at most i have happened; fewer than `low` can't become `half` any more.
            low, high = max(half - (n - i), 0), min(i + 1, half)
            moved = counts[low:high] * p[i]
            counts[low:high] -= moved
            counts[low + 1 : high + 1] += moved
        tails.append(counts[-1])
    return np.concatenate(tails)


def _cdf(noise: Noise, x: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """Return F(x) in float64, in chunks of one size, as JAX compiles anew for every shape."""
    assert noise.cdf is not None  # `_check` has seen to it
    chunks = np.zeros((x.size // _CHUNK_SIZE + 1, _CHUNK_SIZE))
    chunks.ravel()[: x.size] = x.ravel()
    # Inside a caller's jit, too, these must be numbers at once.
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        values = [np.asarray(noise.cdf(chunk), np.float64) for chunk in chunks]
    return np.concatenate(values)[: x.size].reshape(x.shape)


def _steps(centres: Vector, b: float, noise: Noise) -> Iterator[Float[np.ndarray, " edges"]]:
    """Yield the edges of panels, one step at a time, from 0 outwards and without end.

    With m centres within 6b the median's distribution function changes over b/√m, or over b/m where
    bounded noise ends; far from all, over the distance to the nearest. 16 nodes suffice for several
    such lengths, between the kinks that the workers' functions have at their centres and ends.
    """
    bounded, far = math.isfinite(noise.support), b * noise.support
    density, kinked = _shape(noise)
    ends = [np.abs(centres - far), centres + far]
    kinks = np.unique([centres, *ends] if kinked else ends)
    most = max(3 * 10**7 // len(centres) ** 2, 8)
    low = 0.0
    while True:
        distances = np.abs(low - centres)
        near, away = np.count_nonzero(distances < 6 * b), float(np.min(distances))
        step = b * min(0.5 / density, 1) * min((1 if bounded else 3) / math.sqrt(max(near, 1)), 0.6)
        # The last two keep it going where b is so small that it would be lost to rounding.
        high = low + max(step, min(away / 2, away - 4 * b), 1e-15 * low, 1e-300)
        inside = kinks[np.searchsorted(kinks, low, "right") : np.searchsorted(kinks, high)]
        if len(inside) > most:
            # To bound the time, keep the kinks far from the one before and every k-th of the rest.
            keep = np.diff(inside, prepend=-math.inf) > (inside[-1] - inside[0]) / most
            keep[:: len(inside) // most + 1] = keep[-1] = True
            inside = inside[keep]
        yield np.array([low, *inside, high])
        low = high


def _shape(noise: Noise) -> tuple[float, bool]:
    """Return the density f(0), at least 0.5, and whether f has a kink there."""
    linear, *others = _cdf(noise, np.array([[1e-3, 2e-3, 4e-3]]))[0] - 0.5
    # By symmetry, what isn't linear in F grows as x³, but as x² if f has a kink.
    first, second = others[0] - 2 * linear, others[1] - 2 * others[0]
    kinked = abs(first) > 1e-12 and abs(second) < 6 * abs(first)
    return max(float(linear) / 1e-3, 0.5), bool(kinked)


def _nodes(edges: Float[np.ndarray, " edges"]) -> Float[np.ndarray, "2 k"]:
    """Return the nodes and weights of a step's panels; narrow panels need only few nodes."""
    widths = np.diff(edges)
    rules = [_RULES[k] for k in np.searchsorted((1 / 16, 1 / 2), widths / np.sum(widths))]
    nodes = [low + w / 2 * (1 + x) for low, w, (x, _) in zip(edges, widths, rules, strict=False)]
    weights = [w / 2 * weights for w, (_, weights) in zip(widths, rules, strict=True)]
    return np.stack([np.concatenate(nodes), np.concatenate(weights)])


def _check(u: Any, b: Any, noise: Noise | None) -> tuple[Vector, float, Noise]:
    """Return the sorted values, b and the distribution after checking them."""
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
    finite = np.isfinite(values)
    if not np.all(finite):
        i = int(np.argmin(finite))
        raise ValueError(f"u must be a list of finite numbers, got {values[i]} at index {i}")
    noise = as_noise(noise)
    if noise.cdf is None:
        raise ValueError(f"theory needs the noise's distribution function: {noise.name} has no cdf")
    return np.sort(values.astype(np.float64)), float(b), noise
