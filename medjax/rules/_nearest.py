"""Averages of the n - f vectors that are nearest to something: a worker's vector, or 0."""

import jax.numpy as jnp
from jaxtyping import Array

from medjax._engine.random import MaybeKey
from medjax._engine import checks
from medjax._engine.vectors import Vectors
from medjax.rules._geometric import Geometric
from medjax.rules._selection import mean_of_lowest


def monna(num_byzantine: int, reference: int = 0) -> Geometric:
    """The mean of the n - f vectors nearest to x_reference, itself included.

        (1/(n - f)) Σ_{i ∈ S} x_i, S the n - f of smallest ‖x_i - x_reference‖.

    It is a step of MoNNA (Farhadkhani et al., 2023, "Robust collaborative learning with linear
    gradient overhead"), where each worker takes its own vector for the reference, which it trusts.
    Of equally near ones the lowest index is taken. A vector with NaN or ±∞ is infinitely far from
    all, so that none has a part while at most f are non-finite; if the reference is such a one, all
    the others count as equally near.

    Args:
        num_byzantine: f, with 2f < n.
        reference: the index of the trusted worker.

    Raises:
        TypeError: if a setting isn't a static integer.
        ValueError: if one is negative, or, when traced, if 2f >= n or reference >= n.

    >>> print(monna(1)(jnp.array([[1.0], [1.5], [2.0], [9.0]])))
    [1.5]
    """
    f = checks.integer("num_byzantine", num_byzantine, minimum=0)
    own = checks.integer("reference", reference, minimum=0)
    name = f"monna(num_byzantine={f}, reference={own})"

    def weights(vectors: Vectors, key: MaybeKey) -> Array:
        del key
        n = vectors.num_workers
        checks.honest_majority(name, f, n)
        if own >= n:
            raise ValueError(f"{name} needs worker {own}, got only n = {n} workers")
        finite = vectors.finite
        distances = jnp.where(finite[own], vectors.squared_distances[own], 0)
        # Below 0, lest others that are equal to it take its place.
        distances = distances.at[own].set(-1)
        return mean_of_lowest(jnp.where(finite, distances, jnp.inf), n - f)

    return Geometric(name, weights)


def cge(num_byzantine: int) -> Geometric:
    """Comparative gradient elimination: the mean of the n - f shortest vectors.

        (1/(n - f)) Σ_{i ∈ S} x_i, S the n - f of smallest ‖x_i‖.

    By Gupta, Liu and Vaidya (2020), "Byzantine fault-tolerant distributed machine learning using
    stochastic gradient descent (SGD) and norm-based comparative gradient elimination (CGE)". Of
    equally long ones the lowest index is taken. A vector with NaN or ±∞ is infinitely long, so that
    none has a part while at most f are non-finite.

    Args:
        num_byzantine: f, with f < n.

    Raises:
        TypeError: if f isn't a static integer.
        ValueError: if f is negative, or, when traced, if f >= n.

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
