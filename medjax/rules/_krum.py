"""Krum and multi-Krum: the vectors with the nearest neighbours."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from medjax._engine import checks
from medjax._engine.random import MaybeKey
from medjax._engine.vectors import Vectors
from medjax.rules._geometric import Geometric


def krum(num_byzantine: int, num_neighbors: int | None = None) -> Geometric:
    """The vector nearest to its neighbours (Blanchard et al., 2017).

        x_i with the lowest score_i = Σ_{j ∈ N(i)} ‖x_i - x_j‖², N(i) = the k vectors nearest x_i.

    Ties go to the lowest index. A vector with NaN or ±∞ is infinitely far from all others, so none
    is chosen while at most f are non-finite.

    Args:
        num_byzantine: f, with 2f < n.
        num_neighbors: k, at most n - 1; None for the paper's n - f - 2, but at least 1. Some
            libraries use n - f - 1.

    Raises:
        TypeError: if a setting isn't a static integer.
        ValueError: if f is negative or k is below 1; when called, if 2f >= n or k >= n.

    >>> print(krum(1)(jnp.array([[1.0], [1.1], [1.3], [9.0]])))
    [1.]
    """
    f, k = _check_settings(num_byzantine, num_neighbors)
    name = f"krum(num_byzantine={f}{'' if k is None else f', num_neighbors={k}'})"
    return Geometric(name, lambda vectors, key: _select(name, vectors, f, k, 1))


def multi_krum(
    num_byzantine: int, num_selected: int | None = None, num_neighbors: int | None = None
) -> Geometric:
    """The mean of the m vectors with the lowest scores of `krum` (Blanchard et al., 2017).

        (1/m) Σ_{i ∈ S} x_i, S = the indices of the m lowest Σ_{j ∈ N(i)} ‖x_i - x_j‖².

    Args:
        num_byzantine: f, with 2f < n.
        num_selected: m, at most n; None for n - f.
        num_neighbors: k, as in `krum`.

    Raises:
        TypeError: if a setting isn't a static integer.
        ValueError: if f is negative, or m or k is below 1; when called, if 2f >= n, m > n or
            k >= n.

    >>> print(multi_krum(1, num_selected=2)(jnp.array([[1.0], [1.1], [1.3], [9.0]])))
    [1.05]
    """
    f, k = _check_settings(num_byzantine, num_neighbors)
    m = num_selected
    if m is not None:
        m = checks.integer("num_selected", m, minimum=1)
    settings = {"num_byzantine": f, "num_selected": m, "num_neighbors": k}
    given = ", ".join(f"{key}={value}" for key, value in settings.items() if value is not None)
    name = f"multi_krum({given})"

    def weights(vectors: Vectors, key: MaybeKey) -> Array:
        del key
        return _select(name, vectors, f, k, vectors.num_workers - f if m is None else m)

    return Geometric(name, weights)


def lowest_scores(
    name: str, vectors: Vectors, f: int, num_neighbors: int | None, count: int
) -> Int[Array, " m"]:
    """Return the indices of the `count` vectors with the lowest scores of Krum, the lowest first.

    Raises:
        ValueError: if 2f >= n, or if there are fewer vectors than `count`, or fewer neighbours than
            `num_neighbors`.
    """
    n = vectors.num_workers
    checks.honest_majority(name, f, n)
    k = max(1, n - f - 2) if num_neighbors is None else num_neighbors
    if count > n:
        raise ValueError(f"{name} selects {count} vectors, got only n = {n} workers")
    if k >= n and not (num_neighbors is None and n == 1):
        raise ValueError(f"{name} needs {k} neighbours, n = {n} workers have {n - 1}")
    # The first of the sorted distances is the one from a vector to itself.
    scores = jnp.sort(vectors.squared_distances, axis=1)[:, 1 : k + 1].sum(axis=1)
    # A finite vector comes before any other, also if one of its neighbours is infinitely far.
    longest = float(jnp.finfo(scores.dtype).max)
    scores = jnp.where(vectors.finite, jnp.minimum(scores, longest), jnp.inf)
    return lax.top_k(-scores, count)[1]


def _select(name: str, vectors: Vectors, f: int, k: int | None, m: int) -> Float[Array, " n"]:
    """Return the weights of the mean of the m vectors with the lowest scores."""
    chosen = lowest_scores(name, vectors, f, k, m)
    return jnp.zeros(vectors.num_workers, vectors.dtype).at[chosen].set(1 / m)


def _check_settings(num_byzantine: int, num_neighbors: int | None) -> tuple[int, int | None]:
    """Check f and k, and return them."""
    f = checks.integer("num_byzantine", num_byzantine, minimum=0)
    if num_neighbors is None:
        return f, None
    return f, checks.integer("num_neighbors", num_neighbors, minimum=1)
