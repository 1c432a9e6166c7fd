"""Averages of the n - f vectors nearest to a worker's vector or to 0."""

import jax.numpy as jnp
from jaxtyping import Array

from medjax._engine import checks
from medjax._engine.random import MaybeKey
from medjax._engine.vectors import Vectors
from medjax.rules._geometric import Geometric
from medjax.rules._selection import mean_of_lowest


def monna(num_byzantine: int, reference: int = 0) -> Geometric:
    """The mean of the n - f vectors nearest to x_reference, itself included.

        (1/(n - f)) Σ_{i ∈ S} x_i, S = the indices of the n - f smallest ‖x_i - x_reference‖.

    It is a step of MoNNA (Farhadkhani et al., 2023, "Robust collaborative learning with linear
    gradient overhead"), in which each worker takes its own vector, which it trusts, as the
    reference. Ties go to the lowest index. A vector with NaN or ±∞ is infinitely far from all
    others, so none is chosen while at most f are non-finite. If the reference isn't finite, all
    finite vectors count as equally near.

    Args:
        num_byzantine: f, with 2f < n.
        reference: the index of the trusted worker.

    Raises:
        TypeError: if a setting isn't a static integer.
        ValueError: if one is negative; when called, if 2f >= n or reference >= n.

    >>> print(monna(1)(jnp.array([[1.0], [1.5], [2.0], [9.0]])))
    [1.5]
    """
    f = checks.integer("num_byzantine", num_byzantine, minimum=0)
    trusted = checks.integer("reference", reference, minimum=0)
    name = f"monna(num_byzantine={f}, reference={trusted})"

    def weights(vectors: Vectors, key: MaybeKey) -> Array:
        del key
        n = vectors.num_workers
        checks.honest_majority(name, f, n)
        if trusted >= n:
            raise ValueError(f"{name} needs worker {trusted}, got only n = {n} workers")
        finite = vectors.finite
        distances = jnp.where(finite[trusted], vectors.squared_distances[trusted], 0)
        # Below 0, so that no equal vector with a lower index comes before the reference.
        distances = distances.at[trusted].set(-1)
        return mean_of_lowest(jnp.where(finite, distances, jnp.inf), n - f)

    return Geometric(name, weights)


def cge(num_byzantine: int) -> Geometric:
    """Comparative gradient elimination: the mean of the n - f shortest vectors.

        (1/(n - f)) Σ_{i ∈ S} x_i, S = the indices of the n - f smallest ‖x_i‖.

    The rule is from Gupta, Liu and Vaidya (2020), "Byzantine fault-tolerant distributed machine
    learning using stochastic gradient descent (SGD) and norm-based comparative gradient elimination
    (CGE)". Ties go to the lowest index. A vector with NaN or ±∞ is infinitely long, so none is
    chosen while at most f are non-finite.

    Args:
        num_byzantine: f, with f < n.

    Raises:
        TypeError: if f isn't a static integer.
        ValueError: if f is negative; when called, if f >= n.

    >>> print(cge(1)(jnp.array([[1.0], [-2.0], [-9.0]])))
    [-0.5]
    """
    f = checks.integer("num_byzantine", num_byzantine, minimum=0)
    name = f"cge(num_byzantine={f})"

    def weights(vectors: Vectors, key: MaybeKey) -> Array:
        del key
        n = vectors.num_workers
        if f >= n:
            raise ValueError(f"{name} needs f < n, got f = {f} and n = {n} workers")
        return mean_of_lowest(vectors.norms, n - f)

    return Geometric(name, weights)
