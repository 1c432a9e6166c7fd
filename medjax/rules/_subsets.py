"""Averages of the best of all subsets of n - f vectors."""

import itertools
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from medjax._engine import checks
from medjax._engine.random import MaybeKey
from medjax._engine.vectors import Vectors
from medjax.rules._geometric import Geometric

MAX_SUBSETS = 200_000
"""The largest number of subsets that a rule looks at; 20 workers have at most 167,960."""

_ROUNDING = 16  # times the precision of a product: scores that differ by less are tied
_PAIRS_PER_BATCH = 1 << 22  # pairs of vectors in a batch of subsets, 16 MiB of float32


def mda(num_byzantine: int) -> Geometric:
    """Minimum-diameter averaging: the mean of the n - f vectors with the smallest diameter.

        (1/(n - f)) Σ_{i ∈ S} x_i, S = argmin_{|S| = n - f} max_{i,j ∈ S} ‖x_i - x_j‖.

    The diameter is the largest distance between two of the vectors (Rousseeuw, 1985; El Mhamdi et
    al., 2018). Diameters that differ only by rounding are ties, which go to the lexicographically
    first subset. A vector with NaN or ±∞ is infinitely far from all others, so none is chosen while
    at most f are non-finite.

    The result is exact because the rule looks at all subsets, so time and compilation grow with
    n!/(f! (n - f)!).

    Args:
        num_byzantine: f, with 2f < n.

    Raises:
        TypeError: if f isn't a static integer.
        ValueError: if f is negative; when called, if 2f >= n or there are more subsets than
            `MAX_SUBSETS`.

    >>> print(mda(1)(jnp.array([[1.0], [3.0], [2.0], [9.0]])))
    [2.]
    """
    f = checks.integer("num_byzantine", num_byzantine, minimum=0)
    name = f"mda(num_byzantine={f})"

    def weights(vectors: Vectors, key: MaybeKey) -> Array:
        del key
        distances = vectors.squared_distances

        def diameter(chosen: Array) -> Array:
            return distances[chosen[:, None], chosen].max()

        return _mean_of_best(name, vectors, f, diameter)

    return Geometric(name, weights)


def smea(num_byzantine: int) -> Geometric:
    """Smallest maximum eigenvalue averaging: the mean of the n - f vectors that vary the least.

        (1/(n - f)) Σ_{i ∈ S} x_i, S = argmin_{|S| = n - f} λ_max(Cov_{i ∈ S} x_i).

    The variation of a subset is the top eigenvalue of its covariance (Allouah et al., 2023b, "On
    the privacy-robustness-utility trilemma in distributed learning"). Eigenvalues that differ only
    by rounding are ties, which go to the lexicographically first subset. No vector with NaN or ±∞
    is chosen while at most f are non-finite.

    The result is exact because the rule computes the eigenvalues of every subset's Gram matrix, so
    time and compilation grow with n!/(f! (n - f)!).

    Args:
        num_byzantine: f, with 2f < n.

    Raises:
        TypeError: if f isn't a static integer.
        ValueError: if f is negative; when called, if 2f >= n or there are more subsets than
            `MAX_SUBSETS`.

    >>> print(smea(1)(jnp.array([[1.0], [3.0], [2.0], [9.0]])))
    [2.]
    """
    f = checks.integer("num_byzantine", num_byzantine, minimum=0)
    name = f"smea(num_byzantine={f})"

    def weights(vectors: Vectors, key: MaybeKey) -> Array:
        del key
        gram, far = vectors.gram, float(jnp.finfo(vectors.dtype).max)
        # A vector out of range is worse than any within it, and a non-finite one is the worst.
        worst = jnp.where(vectors.finite, jnp.where(vectors.within_range, 0, far), jnp.inf)
        worst = worst.astype(vectors.dtype)

        def largest_variance(chosen: Array) -> Array:
            products = gram[chosen[:, None], chosen]
            centred = products - products.mean(axis=0, keepdims=True)
            centred -= centred.mean(axis=1, keepdims=True)
            # This is a constant times the variance, so it orders the subsets alike.
            return jnp.maximum(jnp.linalg.eigvalsh(centred)[-1], worst[chosen].max())

        return _mean_of_best(name, vectors, f, largest_variance)

    return Geometric(name, weights)


def _mean_of_best(
    name: str, vectors: Vectors, f: int, score: Callable[[Array], Array]
) -> Float[Array, " n"]:
    """Return the weights of the mean of the subset with the lowest score.

    Ties go to the first subset. Scores are tied if they differ only by rounding, which is relative
    to the products that they are computed from.
    """
    n = vectors.num_workers
    m = n - f
    left_out = jnp.asarray(_left_out(name, n, f))

    def chosen(left_out: Array) -> Array:
        # The k-th kept index, counted from 0, is k plus the number of left-out indices below it.
        k, integer = jnp.arange(m, dtype=left_out.dtype), left_out.dtype
        below = (left_out - jnp.arange(f, dtype=integer))[None] <= k[:, None]
        return k + jnp.sum(below, axis=1, dtype=integer)

    batch_size = max(1, _PAIRS_PER_BATCH // m**2)
    scores = lax.map(lambda out: score(chosen(out)), left_out, batch_size=batch_size)
    lowest = chosen(left_out[jnp.argmin(scores)])
    rounding = _ROUNDING * jnp.finfo(vectors.dtype).eps * jnp.diagonal(vectors.gram)[lowest].max()
    best = chosen(left_out[jnp.argmax(scores <= scores.min() + rounding)])
    return jnp.zeros(n, vectors.dtype).at[best].set(1 / m)


def _left_out(name: str, n: int, f: int) -> Int[np.ndarray, "subsets f"]:
    """Return the indices that each subset of n - f leaves out, in the subsets' lexicographic order.

    Raises:
        ValueError: if 2f >= n, or if there are more than `MAX_SUBSETS` subsets.
    """
    checks.honest_majority(name, f, n)
    count = math.comb(n, f)
    if count > MAX_SUBSETS:
        raise ValueError(
            f"{name} looks at every subset of n - f workers: of n = {n} with f = {f} there are "
            f"{count}, and at most {MAX_SUBSETS} are looked at"
        )
    combinations = itertools.chain.from_iterable(itertools.combinations(range(n), f))
    # Reversed: the smaller of two subsets has the first index where they differ, so the indices
    # that it leaves out come later in lexicographic order.
    return np.fromiter(combinations, np.int32, count * f).reshape(count, f)[::-1]
