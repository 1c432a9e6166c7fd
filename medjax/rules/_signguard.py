"""SignGuard: filters by norm and by how many signs are positive, negative and 0."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from medjax._engine.random import MaybeKey
from medjax._engine import checks
from medjax._engine.gram import dot
from medjax._engine.vectors import Vectors
from medjax.rules._clustering import clip_factors
from medjax.rules._geometric import Geometric
from medjax.rules._selection import mean_of, middle, sample_columns
from medjax._engine.settings import Real, settings_text, static_real

_NUM_SHIFTS = 100
_SLACK = 1e-5  # so that rounding doesn't decide whether what is just within the bandwidth is


def signguard(lower: Real = 0.1, upper: Real = 3.0, fraction: float = 0.1) -> Geometric:
    """The mean of the vectors that pass two filters, clipped to the median norm (Xu et al., 2022).

        (1/|S|) Σ_{i ∈ S} x_i · min(1, M/‖x_i‖), M = median_i ‖x_i‖, L ≤ ‖x_i‖/M ≤ R in S.

    With M the median norm, the first filter keeps those with L ≤ ‖x_i‖/M ≤ R. The second takes from
    each vector the shares of positive, negative and zero numbers at random coordinates, and keeps
    the largest cluster of these triples. The result is the mean of x_i · min(1, M/‖x_i‖) over what
    both keep; over what the first keeps if they have nothing in common; and 0 if that keeps none,
    which it may only for R below 2.

    The clusters are by mean shift, as in the paper, with a flat kernel: each triple is moved 100
    times to the mean of all triples within the bandwidth of where it is, and a cluster is all that
    end within the bandwidth of where one of them does (of equally large clusters, that of the
    lowest index). The bandwidth, which the paper leaves open, is the average distance of a triple
    to its ⌊n/2⌋-th nearest, itself counted as the first.

    A vector with NaN or ±∞ is infinitely long and belongs to no cluster: the result is finite while
    fewer than half are such.

    Args:
        lower: L, from 0 to 1; may be traced.
        upper: R ≥ 1; may be traced.
        fraction: how many of the coordinates to look at, above 0, at most 1. They are drawn with
            replacement; for 1 all are taken.

    Raises:
        TypeError: if a setting isn't a real number, or `fraction` not static.
        ValueError: if a setting is out of range, or, when traced, if n < 2; or if no key is given
            when called.

    >>> x = jnp.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [-1.0, -1.0], [900.0, 900.0]])
    >>> print(signguard(fraction=1.0)(x, key=0).round(2))
    [1.53 1.53]
    """
    checks.fraction("lower", lower)
    checks.real("upper", upper, minimum=1.0)
    share = static_real("fraction", fraction)
    checks.fraction("fraction", share)
    name = f"signguard({settings_text(lower=lower, upper=upper, fraction=share)})"

    def weights(vectors: Vectors, key: MaybeKey) -> Array:
        assert key is not None
        n = vectors.num_workers
        if n < 2:
            raise ValueError(f"{name} needs n >= 2, got n = {n} workers")
        norms, finite = vectors.norms, jnp.isfinite(vectors.norms)
        length = middle(norms)
        of_usual_length = (lower * length <= norms) & (norms <= upper * length) & finite

        size = sum(x.shape[1] for x in vectors.rows)
        sample = sample_columns(vectors.rows, key, max(1, round(share * size)))
        triples = jnp.stack([jnp.mean(sample > 0, axis=1), jnp.mean(sample < 0, axis=1)], axis=1)
        triples = jnp.concatenate([triples, 1 - triples.sum(axis=1, keepdims=True)], axis=1)
        both = of_usual_length & _largest_cluster(triples, finite)
        kept = jnp.where(both.any(), both, of_usual_length)
        return mean_of(kept, norms.dtype) * clip_factors(norms)

    return Geometric(name, weights, needs_key=True)


def _largest_cluster(points: Float[Array, "n k"], alive: Bool[Array, " n"]) -> Bool[Array, " n"]:
    """The largest cluster by mean shift of the points that are alive."""

    def distances(a: Array, b: Array) -> Array:
        return jnp.sqrt(jnp.sum((a[:, None] - b) ** 2, axis=2))

    nearest = jnp.sort(jnp.where(alive, distances(points, points), jnp.inf), axis=1)
    rank = jnp.maximum(alive.sum() // 2, 1) - 1
    of_each = jnp.take(nearest, rank, axis=1)
    bandwidth = jnp.sum(jnp.where(alive, of_each, 0)) / jnp.maximum(alive.sum(), 1)
    bandwidth += _SLACK * jnp.maximum(bandwidth, 0.1)

    def shift(_: Array, modes: Array) -> Array:
        near = (distances(modes, points) <= bandwidth) & alive
        near = near.astype(points.dtype)
        return dot(near, points) / jnp.maximum(near.sum(axis=1, keepdims=True), 1)

    modes = lax.fori_loop(0, _NUM_SHIFTS, shift, points)
    together = (distances(modes, modes) <= bandwidth) & alive & alive[:, None]
    return together[jnp.argmax(together.sum(axis=1))]
