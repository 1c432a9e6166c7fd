"""Clipped clustering: the mean of the larger of two clusters of directions."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from medjax._engine.random import MaybeKey
from medjax._engine.vectors import Vectors
from medjax.rules._geometric import Geometric
from medjax.rules._selection import mean_of, middle

_Clusters = tuple[Array, Array, Array]  # distances and sizes of clusters, each point's cluster


def clipped_clustering() -> Geometric:
    """The mean of the larger of two clusters of the vectors, clipped to their median norm.

        (1/|S|) Σ_{i ∈ S} x_i · min(1, M/‖x_i‖), M = median_i ‖x_i‖, S = the larger cluster.

    Agglomerative clustering with average linkage merges the vectors into two clusters: each step
    merges the two clusters with the smallest average cosine distance
    1 - ⟨x_i, x_j⟩/(‖x_i‖ ‖x_j‖). Ties between pairs go to the lowest index, and ties between the
    last two clusters to the one with the lowest index. The rule is from Li, Ngai and Voigt (2023),
    "An experimental study of Byzantine-robust aggregation schemes in federated learning". They take
    the median of the norms of all steps so far; this rule looks at one step.

    A zero vector has cosine 0 with every other vector. A vector with NaN or ±∞ is infinitely long
    and belongs to no cluster. The result is finite while fewer than half of the vectors are
    non-finite.

    Raises:
        ValueError: when called, if n < 2.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 2.0], [0.0, 4.0], [0.2, 3.0]])
    >>> print(clipped_clustering()(x).round(2))
    [0.06 2.33]
    """
    name = "clipped_clustering"

    def weights(vectors: Vectors, key: MaybeKey) -> Array:
        del key
        n = vectors.num_workers
        if n < 2:
            raise ValueError(f"{name} needs n >= 2, got n = {n} workers")
        norms, length = vectors.norms, middle(vectors.norms)
        # For vectors of one length c, ‖u - v‖² = 2c² (1 - ⟨u, v⟩/c²). Distances keep the small
        # differences between nearly equal directions, which cosines would lose to rounding. A zero
        # vector can't be scaled to length c, so its distances are set to those of a right angle.
        directions = vectors.mixed(jnp.diag(jnp.where(norms > 0, length / norms, 1)))
        right_angle = 2 * (length * vectors.unit) ** 2
        has_zero = (norms == 0)[None] | (norms == 0)[:, None]
        distances = jnp.where(has_zero, right_angle, directions.squared_distances)
        members = larger_cluster(distances, vectors.within_range)
        return mean_of(members, norms.dtype) * clip_factors(norms)

    return Geometric(name, weights)


def clip_factors(norms: Float[Array, " n"]) -> Float[Array, " n"]:
    """Return min(1, M/‖x_i‖) for the median norm M."""
    length = middle(norms)
    return jnp.where(norms > length, length / norms, 1)


def larger_cluster(distances: Float[Array, "n n"], alive: Bool[Array, " n"]) -> Bool[Array, " n"]:
    """Return the mask of the points in the larger of two clusters, by average linkage.

    Args:
        distances: the distances between the points.
        alive: the mask of the points to cluster; the others belong to no cluster.
    """
    n = len(alive)
    # A cluster has the index of its first point; the other rows and columns are infinite. The
    # matrix is made symmetric, so that its first smallest entry (i, j) has i < j.
    distances = (distances + distances.T) / 2
    pairs = alive[None] & alive[:, None] & ~jnp.eye(n, dtype=bool)
    start = (
        jnp.where(pairs, distances, jnp.inf),
        alive.astype(distances.dtype),
        jnp.arange(n),
    )

    def merge(state: _Clusters) -> _Clusters:
        distances, sizes, labels = state
        i, j = jnp.divmod(jnp.argmin(distances), n)
        row = (sizes[i] * distances[i] + sizes[j] * distances[j]) / (sizes[i] + sizes[j])
        row = row.at[i].set(jnp.inf)
        distances = (
            distances.at[i].set(row).at[:, i].set(row).at[j].set(jnp.inf).at[:, j].set(jnp.inf)
        )
        sizes = sizes.at[i].add(sizes[j]).at[j].set(0)
        return distances, sizes, jnp.where(labels == j, i, labels)

    _, sizes, labels = lax.while_loop(lambda state: jnp.sum(state[1] > 0) > 2, merge, start)
    return alive & (labels == jnp.argmax(sizes))
