"""Clipped clustering: the larger of two clusters of directions."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from medjax._engine.random import MaybeKey
from medjax._engine.vectors import Vectors
from medjax.rules._geometric import Geometric
from medjax.rules._selection import mean_of, middle

_Clusters = tuple[Array, Array, Array]


def clipped_clustering() -> Geometric:
    """The mean of the larger of two clusters of the vectors, clipped to their median norm.

        (1/|S|) Σ_{i ∈ S} x_i · min(1, M/‖x_i‖), M = median_i ‖x_i‖, S the larger cluster.

    x_i · min(1, median_j ‖x_j‖/‖x_i‖) are merged into two clusters, always the two with the
    smallest average cosine distance 1 - ⟨x_i, x_j⟩/(‖x_i‖ ‖x_j‖) (agglomerative clustering with
    average linkage), of which the larger is averaged. Ties go to the lowest index: of equally near
    pairs, and of equally large clusters to that of the lowest. (Li, Ngai and Voigt, 2023, "An
    experimental study of Byzantine-robust aggregation schemes in federated learning", who take the
    median of the norms of all steps so far; this one looks at one step.)

    A vector that is 0 has cosine 0 with every other. One with NaN or ±∞ is infinitely long and
    belongs to no cluster: the result is finite while fewer than half are such.

    Raises:
        ValueError: when traced, if n < 2.

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
        # ‖u - v‖² = 2c² (1 - ⟨u, v⟩/c²) of vectors of one length c: the cosine itself would lose to
        # rounding how nearly equal directions differ. One that is 0 is as 0 is to the others.
        directions = vectors.mixed(jnp.diag(jnp.where(norms > 0, length / norms, 1)))
        right = 2 * (length * vectors.unit) ** 2
        none = (norms == 0) | (norms == 0)[:, None]
        apart = jnp.where(none, right, directions.squared_distances)
        members = larger_cluster(apart, vectors.within_range)
        return mean_of(members, norms.dtype) * clip_factors(norms)

    return Geometric(name, weights)


def clip_factors(norms: Float[Array, " n"]) -> Float[Array, " n"]:
    """min(1, M/‖x_i‖) for the median norm M."""
    length = middle(norms)
    return jnp.where(norms > length, length / norms, 1)


def larger_cluster(distances: Float[Array, "n n"], alive: Bool[Array, " n"]) -> Bool[Array, " n"]:
    """Which points are in the larger of two clusters, by average linkage.

    Args:
        distances: between the points.
        alive: which there are; the others belong to no cluster.
    """
    n = len(alive)
    # A cluster has the index of its first point. Others' rows and columns are infinite.
    distances = (distances + distances.T) / 2
    several = alive & alive[:, None] & ~jnp.eye(n, dtype=bool)
    start = (
        jnp.where(several, distances, jnp.inf),
        alive.astype(distances.dtype),
        jnp.arange(n),
    )

    def merge(state: _Clusters) -> _Clusters:
        apart, sizes, labels = state
        i, j = jnp.divmod(jnp.argmin(apart), n)  # the first of the two has the lower index
        row = (sizes[i] * apart[i] + sizes[j] * apart[j]) / (sizes[i] + sizes[j])
        row = row.at[i].set(jnp.inf)
        apart = apart.at[i].set(row).at[:, i].set(row).at[j].set(jnp.inf).at[:, j].set(jnp.inf)
        sizes = sizes.at[i].add(sizes[j]).at[j].set(0)
        return apart, sizes, jnp.where(labels == j, i, labels)

    _, sizes, labels = lax.while_loop(lambda state: jnp.sum(state[1] > 0) > 2, merge, start)
    return alive & (labels == jnp.argmax(sizes))
