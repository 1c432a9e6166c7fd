"""SignGuard: filters by norm and by the shares of positive, negative and zero numbers."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from medjax._engine import checks
from medjax._engine.gram import dot
from medjax._engine.random import MaybeKey
from medjax._engine.settings import Real, settings_text, static_real
from medjax._engine.vectors import Vectors
from medjax.rules._clustering import clip_factors
from medjax.rules._geometric import Geometric
from medjax.rules._selection import mean_of, middle, sample_columns

_NUM_SHIFTS = 100
_SLACK = 1e-5  # relative; keeps rounding from excluding points just within the bandwidth


def signguard(lower: Real = 0.1, upper: Real = 3.0, fraction: float = 0.1) -> Geometric:
    """The mean of the vectors that pass two filters, clipped to the median norm (Xu et al., 2022).

        (1/|S|) Σ_{i ∈ S} x_i · min(1, M/‖x_i‖), M = median_i ‖x_i‖, L ≤ ‖x_i‖/M ≤ R in S.

    The first filter keeps the vectors with L ≤ ‖x_i‖/M ≤ R. The second computes each vector's
    shares of positive, negative and zero numbers at random coordinates, and keeps the largest
    cluster of these triples. S contains the vectors that pass both filters, or those that pass the
    first if none passes both. If none passes the first, which can happen only for R below 2, the
    result is 0.

    The clusters are found by mean shift, as in the paper, with a flat kernel. Each triple is moved
    100 times to the mean of all triples within the bandwidth of its current position. Its cluster
    is the set of triples that end within the bandwidth of where it ends; ties between equally large
    clusters go to the lowest index. The paper leaves the bandwidth open; here it is the average
    distance from a triple to its ⌊n/2⌋-th nearest, counting the triple itself as the first.

    A vector with NaN or ±∞ is infinitely long and belongs to no cluster. The result is finite while
    fewer than half of the vectors are non-finite.

    Args:
        lower: L, from 0 to 1; may be traced.
        upper: R ≥ 1; may be traced.
        fraction: the fraction of the coordinates to look at, above 0 and at most 1. Coordinates are
            drawn with replacement; at 1, all are used.

    Raises:
        TypeError: if a setting isn't a real number, or `fraction` isn't static.
        ValueError: if a setting is out of range; when called, if n < 2, or if no key is given.

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
        within_bounds = (lower * length <= norms) & (norms <= upper * length) & finite

        size = sum(x.shape[1] for x in vectors.rows)
        sample = sample_columns(vectors.rows, key, max(1, round(share * size)))
        triples = jnp.stack([jnp.mean(sample > 0, axis=1), jnp.mean(sample < 0, axis=1)], axis=1)
        triples = jnp.concatenate([triples, 1 - triples.sum(axis=1, keepdims=True)], axis=1)
        both = within_bounds & _largest_cluster(triples, finite)
        kept = jnp.where(both.any(), both, within_bounds)
        return mean_of(kept, norms.dtype) * clip_factors(norms)

    return Geometric(name, weights, needs_key=True)


def _largest_cluster(points: Float[Array, "n k"], alive: Bool[Array, " n"]) -> Bool[Array, " n"]:
    """Return the mask of the largest mean-shift cluster of the points that are alive."""

    def distances(a: Array, b: Array) -> Array:
        return jnp.sqrt(jnp.sum((a[:, None] - b[None]) ** 2, axis=2))

    nearest = jnp.sort(jnp.where(alive, distances(points, points), jnp.inf), axis=1)
    rank = jnp.maximum(alive.sum() // 2, 1) - 1
    distance_at_rank = jnp.take(nearest, rank, axis=1)
    count = jnp.maximum(alive.sum(), 1).astype(points.dtype)
    bandwidth = jnp.sum(jnp.where(alive, distance_at_rank, 0)) / count
    bandwidth += _SLACK * jnp.maximum(bandwidth, 0.1)

    def shift(_: Array, modes: Array) -> Array:
        near = (distances(modes, points) <= bandwidth) & alive[None]
        near = near.astype(points.dtype)
        return dot(near, points) / jnp.maximum(near.sum(axis=1, keepdims=True), 1)

    modes = lax.fori_loop(0, _NUM_SHIFTS, shift, points)
    together = (distances(modes, modes) <= bandwidth) & alive[None] & alive[:, None]
    return together[jnp.argmax(together.sum(axis=1))]
