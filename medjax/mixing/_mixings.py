"""The kind of mixing stages, and its catalogue."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax._engine import checks
from medjax._engine.plain import accepts_key, check_function, joined, name_of
from medjax._engine.random import MaybeKey
from medjax._engine.vectors import Vectors


@dataclass(frozen=True)
class Mixing:
    """A stage that gives M X for the vectors X, with a matrix M made from the vectors.

    Attributes:
        name: the stage with its settings.
        matrix: (vectors, key) to M, (m, n). Checks n where the stage restricts it. The key is None
            unless `needs_key`.
        needs_key: whether the matrix is drawn.
    """

    name: str
    matrix: Callable[[Vectors, MaybeKey], Float[Array, "m n"]]
    needs_key: bool = False


PlainMixing: TypeAlias = Callable[..., Float[Array, "m n"]]
"""(vectors (n, d)) or (vectors (n, d), key) to a matrix (m, n): any such function is a mixing."""


def as_mixing(mixing: object) -> Mixing:
    """Return a built mixing as it is, and a plain function as a mixing.

    Raises:
        TypeError: if it is neither (`mixing.arc` in place of `mixing.arc(1)`).
    """
    if isinstance(mixing, Mixing):
        return mixing
    check_function("mixing", mixing, 1, "medjax.mixing.nnm(1)")
    assert callable(mixing)
    name = name_of(mixing)

    def matrix(vectors: Vectors, key: MaybeKey) -> Array:
        draw = {} if key is None else {"key": key}
        found = jnp.asarray(mixing(joined(vectors.rows), **draw))
        if found.ndim != 2 or found.shape[1] != vectors.num_workers or not found.size:
            raise ValueError(
                f"mixing {name} must return a matrix (m, {vectors.num_workers}), "
                f"got shape {found.shape}"
            )
        return found.astype(vectors.dtype)

    return Mixing(name, matrix, accepts_key(mixing))


def nnm(num_byzantine: int) -> Mixing:
    """Nearest-neighbour mixing: each vector becomes the mean of the n - f vectors nearest to it.

        y_i = (1/(n - f)) Σ_{j ∈ N(i)} x_j, N(i) the n - f nearest to i.

    The vector itself is among them (Allouah et al., 2023, "Fixing by mixing"). Ties go to the
    lowest index. A vector with NaN or ±∞ is infinitely far from all others. While there are at most
    f of these, none has a part in a finite vector's mean, and their own means stay non-finite.

    Args:
        num_byzantine: f, with 2f < n.

    Raises:
        TypeError: if f isn't a static integer.
        ValueError: if f is negative, or, when traced, if 2f >= n.
    """
    f = checks.integer("num_byzantine", num_byzantine, minimum=0)
    name = f"nnm(num_byzantine={f})"

    def matrix(vectors: Vectors, key: MaybeKey) -> Array:
        del key
        n = vectors.num_workers
        checks.honest_majority(name, f, n)
        # -1, not 0: a vector is always among its own nearest, even if others are at distance 0.
        distances = jnp.where(jnp.eye(n, dtype=bool), -1, vectors.squared_distances)
        nearest = jnp.argsort(distances, axis=1, stable=True)[:, : n - f]
        shares = jnp.zeros((n, n), vectors.dtype)
        return shares.at[jnp.arange(n)[:, None], nearest].set(1 / (n - f))

    return Mixing(name, matrix)


def bucketing(bucket_size: int = 2) -> Mixing:
    """Means of s consecutive vectors in a random order; the last mean may be of fewer.

        y_k = (1/s) (x_π((k-1)s+1) + ... + x_π(ks)), π a random permutation.

    n vectors become ⌈n/s⌉, and at most f of these contain a Byzantine vector (Karimireddy et al.,
    2022).

    Args:
        bucket_size: s.

    Raises:
        TypeError: if s isn't a static integer.
        ValueError: if s is below 1, or, when traced, if s > n.
    """
    s = checks.integer("bucket_size", bucket_size, minimum=1)
    name = f"bucketing(bucket_size={s})"

    def matrix(vectors: Vectors, key: MaybeKey) -> Array:
        assert key is not None
        n = vectors.num_workers
        if s > n:
            raise ValueError(f"{name} needs at least {s} workers, got n = {n}")
        buckets = jnp.arange(n) // s
        members = (buckets[None] == jnp.arange(-(-n // s))[:, None]).astype(float)
        shares = members / members.sum(axis=1, keepdims=True)
        return shares.astype(vectors.dtype)[:, jnp.argsort(jax.random.permutation(key, n))]

    return Mixing(name, matrix, needs_key=True)


def clip(max_norm: float | Float[Array, ""]) -> Mixing:
    """Scale the vectors that are longer than c down to length c: x_i · min(1, c/‖x_i‖).

    This is gradient clipping (Pascanu et al., 2013), applied to each worker's vector by itself. A
    vector with NaN or ±∞ counts as infinitely long and becomes 0, as it has no direction.

    Args:
        max_norm: c > 0; may be traced.

    Raises:
        TypeError: if c isn't a real number.
        ValueError: if c isn't positive and finite.
    """
    checks.real("max_norm", max_norm, minimum=0.0, exclusive=True)
    name = "clip(max_norm)" if isinstance(max_norm, jax.Array) else f"clip(max_norm={max_norm:g})"
    return Mixing(name, lambda vectors, key: _clipping_matrix(vectors, jnp.asarray(max_norm)))


def arc(num_byzantine: int) -> Mixing:
    """Adaptive robust clipping: clip the k = ⌊2f(n-f)/n⌋ longest vectors to the next length.

        x_i · min(1, c/‖x_i‖), c the (k + 1)-th largest norm.

    The stage is from Allouah et al. (2025). A vector with NaN or ±∞ becomes 0 while c is finite.

    Args:
        num_byzantine: f, with 2f < n.

    Raises:
        TypeError: if f isn't a static integer.
        ValueError: if f is negative, or, when traced, if 2f >= n.
    """
    f = checks.integer("num_byzantine", num_byzantine, minimum=0)
    name = f"arc(num_byzantine={f})"

    def matrix(vectors: Vectors, key: MaybeKey) -> Array:
        del key
        n = vectors.num_workers
        checks.honest_majority(name, f, n)
        # k < n, as 2f < n.
        longest = jnp.sort(vectors.norms, descending=True)
        return _clipping_matrix(vectors, longest[2 * f * (n - f) // n])

    return Mixing(name, matrix)


def _clipping_matrix(vectors: Vectors, length: Float[Array, ""]) -> Float[Array, "n n"]:
    """Return the diagonal matrix that clips the vectors to a length."""
    norms = vectors.norms
    factors = jnp.where(norms > length, length / norms, 1)
    return jnp.diag(factors.astype(vectors.dtype))
