"""Mixing: linear combinations of the workers' vectors, n to m of them, before a rule.

A factory builds a stage (impossible settings fail there), which `medjax.mix` puts into a chain, or
`rules.premixed` before a rule:

>>> import jax.numpy as jnp
>>> from medjax import mixing, rules
>>> rule = rules.premixed(rules.trimmed_mean(1), mixing.nnm(1))
>>> print(rule(jnp.array([[1.0], [2.0], [3.0], [100.0]])))
[2.]
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from medjax import _checks
from medjax._vectors import Vectors

Draw = Key[Array, ""] | None
"""What a matrix is drawn from; None where none is."""


@dataclass(frozen=True)
class Mixing:
    """A stage that gives M X for the vectors X, with a matrix M from how they lie to each other.

    Attributes:
        name: the stage with its settings.
        matrix: (vectors, key) to M, (m, n). Checks n where the stage restricts it. The key is None
            unless `needs_key`.
        needs_key: whether the matrix is drawn.
    """

    name: str
    matrix: Callable[[Vectors, Draw], Float[Array, "m n"]]
    needs_key: bool = False


def nnm(num_byzantine: int) -> Mixing:
    """Nearest-neighbour mixing: each vector becomes the mean of the n - f nearest to it.

        y_i = (1/(n - f)) Σ_{j ∈ N(i)} x_j, N(i) the n - f nearest to i.

    Itself included (Allouah et al., 2023, "Fixing by mixing"). Of equally near ones the lowest
    index is taken. A vector with NaN or ±∞ is infinitely far from all: while at most f are, it has
    no part in any other's mean, and its own stays non-finite.

    Args:
        num_byzantine: f, with 2f < n.

    Raises:
        TypeError: if f isn't a static integer.
        ValueError: if f is negative, or, when traced, if 2f >= n.
    """
    f = _checks.integer("num_byzantine", num_byzantine, minimum=0)
    name = f"nnm(num_byzantine={f})"

    def matrix(vectors: Vectors, key: Draw) -> Array:
        del key
        n = vectors.num_workers
        _checks.honest_majority(name, f, n)
        # To itself 0 even if that is so to others: a vector is always among its own nearest.
        own = jnp.where(jnp.eye(n, dtype=bool), -1, vectors.squared_distances)
        nearest = jnp.argsort(own, axis=1, stable=True)[:, : n - f]
        shares = jnp.zeros((n, n), vectors.dtype)
        return shares.at[jnp.arange(n)[:, None], nearest].set(1 / (n - f))

    return Mixing(name, matrix)


def bucketing(bucket_size: int = 2) -> Mixing:
    """Means of s consecutive vectors of a random order; the last may be of fewer.

        y_k = (1/s) (x_π((k-1)s+1) + ... + x_π(ks)), π a random permutation.

    n vectors become ⌈n/s⌉, of which at most f have a Byzantine part (Karimireddy et al., 2022).

    Args:
        bucket_size: s.

    Raises:
        TypeError: if s isn't a static integer.
        ValueError: if s is below 1, or, when traced, if s > n.
    """
    s = _checks.integer("bucket_size", bucket_size, minimum=1)
    name = f"bucketing(bucket_size={s})"

    def matrix(vectors: Vectors, key: Draw) -> Array:
        assert key is not None
        n = vectors.num_workers
        if s > n:
            raise ValueError(f"{name} needs at least {s} workers, got n = {n}")
        buckets = jnp.arange(n) // s
        members = buckets == jnp.arange(-(-n // s))[:, None]
        shares = members / members.sum(axis=1, keepdims=True)
        return shares.astype(vectors.dtype)[:, jnp.argsort(jax.random.permutation(key, n))]

    return Mixing(name, matrix, needs_key=True)


def clip(max_norm: float | Float[Array, ""]) -> Mixing:
    """Scale the vectors that are longer than c down to it: x_i · min(1, c/‖x_i‖).

    As gradients are (Pascanu et al., 2013), but each worker's by itself. A vector with NaN or ±∞
    becomes 0, as one of infinite length does, that has no direction.

    Args:
        max_norm: c > 0; may be traced.

    Raises:
        TypeError: if c isn't a real number.
        ValueError: if c isn't positive and finite.
    """
    _checks.real("max_norm", max_norm, minimum=0.0, exclusive=True)
    name = "clip(max_norm)" if isinstance(max_norm, jax.Array) else f"clip(max_norm={max_norm:g})"
    return Mixing(name, lambda vectors, key: _shorten(vectors, jnp.asarray(max_norm)))


def arc(num_byzantine: int) -> Mixing:
    """Adaptive robust clipping: the k = ⌊2f(n-f)/n⌋ longest are clipped to the next length.

        x_i · min(1, c/‖x_i‖), c the (k + 1)-th largest norm.

    (Allouah et al., 2025.) A vector with NaN or ±∞ becomes 0, while that length is finite.

    Args:
        num_byzantine: f, with 2f < n.

    Raises:
        TypeError: if f isn't a static integer.
        ValueError: if f is negative, or, when traced, if 2f >= n.
    """
    f = _checks.integer("num_byzantine", num_byzantine, minimum=0)
    name = f"arc(num_byzantine={f})"

    def matrix(vectors: Vectors, key: Draw) -> Array:
        del key
        n = vectors.num_workers
        _checks.honest_majority(name, f, n)
        # 2f < n makes k < n.
        longest = jnp.sort(vectors.norms, descending=True)
        return _shorten(vectors, longest[2 * f * (n - f) // n])

    return Mixing(name, matrix)


MIXINGS: Mapping[str, Callable[..., Mixing]] = {
    "nnm": nnm,
    "bucketing": bucketing,
    "clip": clip,
    "arc": arc,
}
"""Every mixing's factory by its name."""


def _shorten(vectors: Vectors, length: Float[Array, ""]) -> Float[Array, "n n"]:
    norms = vectors.norms
    factors = jnp.where(norms > length, length / norms, 1)
    return jnp.diag(factors.astype(vectors.dtype))
