"""The best of all subsets of n - f vectors, averaged."""

import itertools
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from medjax._engine.random import MaybeKey
from medjax._engine import checks
from medjax._engine.vectors import Vectors
from medjax.rules._geometric import Geometric

MAX_SUBSETS = 200_000
"""How many subsets a rule looks at; of 20 workers, there are at most 167,960 to leave out."""

_ROUNDING = 16  # times the precision of a product: by so much scores differ that are equal
_NUMBERS_AT_ONCE = 1 << 22  # 16 MiB of float32: pairs of vectors of some of the subsets


def mda(num_byzantine: int) -> Geometric:
    """Minimum-diameter averaging: the mean of the n - f vectors with the smallest diameter.

        (1/(n - f)) Σ_{i ∈ S} x_i, S = argmin_{|S| = n - f} max_{i,j ∈ S} ‖x_i - x_j‖.

    The diameter is the largest distance of two of them; of those that are equal but for rounding
    the lexicographically first subset is taken (Rousseeuw, 1985; El Mhamdi et al., 2018). A vector
    with NaN or ±∞ is infinitely far from all, so that none is chosen while at most f are
    non-finite.

    Exact, by looking at all subsets: time and compilation grow with n!/(f! (n - f)!).

    Args:
        num_byzantine: f, with 2f < n.

    Raises:
        TypeError: if f isn't a static integer.
        ValueError: if f is negative, or, when traced, if 2f >= n or there are more subsets than
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

    Its covariance has the smallest top eigenvalue; of those that are equal but for rounding the
    lexicographically first subset is taken (El Mhamdi et al., 2023, "On the privacy-robustness-
    utility trilemma in distributed learning"). A subset with a vector with NaN or ±∞ is not taken
    while at most f are non-finite.

    Exact, by looking at all subsets, with the eigenvalues of their Gram matrices: time and
    compilation grow with n!/(f! (n - f)!).

    Args:
        num_byzantine: f, with 2f < n.

    Raises:
        TypeError: if f isn't a static integer.
        ValueError: if f is negative, or, when traced, if 2f >= n or there are more subsets than
            `MAX_SUBSETS`.

    >>> print(smea(1)(jnp.array([[1.0], [3.0], [2.0], [9.0]])))
    [2.]
    """
    f = checks.integer("num_byzantine", num_byzantine, minimum=0)
    name = f"smea(num_byzantine={f})"

    def weights(vectors: Vectors, key: MaybeKey) -> Array:
        del key
        gram, far = vectors.gram, float(jnp.finfo(vectors.dtype).max)
        # What is out of range is worse than what isn't, and what isn't finite the worst.
        worst = jnp.where(vectors.finite, jnp.where(vectors.within_range, 0, far), jnp.inf)

        def largest_variance(chosen: Array) -> Array:
            products = gram[chosen[:, None], chosen]
            centred = products - products.mean(axis=0)
            centred -= centred.mean(axis=1, keepdims=True)
            # A constant times the variance, and so in the same order.
            return jnp.maximum(jnp.linalg.eigvalsh(centred)[-1], worst[chosen].max())

        return _mean_of_best(name, vectors, f, largest_variance)

    return Geometric(name, weights)


def _mean_of_best(
    name: str, vectors: Vectors, f: int, score: Callable[[Array], Array]
) -> Float[Array, " n"]:
    """The weights of the mean of the subset with the lowest score, the first of equal ones.

    Equal but for rounding, which is relative to the products that scores are computed of.
    """
    n = vectors.num_workers
    m = n - f
    left_out = jnp.asarray(_left_out(name, n, f))

    def chosen(left_out: Array) -> Array:
        # The k-th index that isn't left out has k others before it, and those left out.
        k = jnp.arange(m)
        return k + jnp.sum(left_out - jnp.arange(f) <= k[:, None], axis=1)

    at_once = max(1, _NUMBERS_AT_ONCE // m**2)
    scores = lax.map(lambda out: score(chosen(out)), left_out, batch_size=at_once)
    lowest = chosen(left_out[jnp.argmin(scores)])
    rounding = _ROUNDING * jnp.finfo(vectors.dtype).eps * jnp.diagonal(vectors.gram)[lowest].max()
    best = chosen(left_out[jnp.argmax(scores <= scores.min() + rounding)])
    return jnp.zeros(n, vectors.dtype).at[best].set(1 / m)


def _left_out(name: str, n: int, f: int) -> Int[np.ndarray, "subsets f"]:
    """What each subset of n - f leaves out, the subsets in lexicographic order.

    Raises:
        ValueError: if 2f >= n, or if there are too many.
    """
    checks.honest_majority(name, f, n)
    count = math.comb(n, f)
    if count > MAX_SUBSETS:
        raise ValueError(
            f"{name} looks at every subset of n - f workers: of n = {n} with f = {f} there are "
            f"{count}, and at most {MAX_SUBSETS} are looked at"
        )
    combinations = itertools.chain.from_iterable(itertools.combinations(range(n), f))
    # The first to differ is in the lexicographically smaller subset, and so left out by the other.
    return np.fromiter(combinations, np.int32, count * f).reshape(count, f)[::-1]
