"""Filters that remove the vectors farthest out in the direction of the largest variance."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from medjax._engine import checks
from medjax._engine.gram import dot
from medjax._engine.random import MaybeKey
from medjax._engine.settings import settings_text, static_real
from medjax._engine.vectors import Vectors, vectors_of_rows
from medjax.rules._geometric import Geometric
from medjax.rules._selection import mean_of, mean_of_lowest, sample_columns


def caf(num_byzantine: int) -> Geometric:
    """Covariance-bound agnostic filter: downweight outliers in the direction of most variance.

        μ = Σ_i c_i x_i / Σ_i c_i, c_i ← c_i (1 - p_i²/max_j p_j²), p_i = ⟨x_i - μ, v⟩.

    The filter is from Allouah et al. (2025), "Towards trustworthy federated learning with untrusted
    participants". All weights c_i start at 1. While Σ_i c_i > n - 2f, μ is the weighted mean, v is
    the top eigenvector of the weighted covariance, and the weights are updated as above, with the
    maximum over c_j > 0. The result is the μ with the smallest top eigenvalue (or the mean for
    f = 0, where no step is taken). A vector with NaN or ±∞ has weight 0 from the start.

    Each step sets at least one weight to 0, so there are at most 2f steps.

    Args:
        num_byzantine: f, with 2f < n.

    Raises:
        TypeError: if f isn't a static integer.
        ValueError: if f is negative; when called, if 2f >= n.

    >>> print(caf(1)(jnp.array([[1.0], [2.0], [3.0], [900.0]])).round(2))
    [2.]
    """
    f = checks.integer("num_byzantine", num_byzantine, minimum=0)
    name = f"caf(num_byzantine={f})"

    def weights(vectors: Vectors, key: MaybeKey) -> Array:
        del key
        n = vectors.num_workers
        checks.honest_majority(name, f, n)

        gram = vectors.gram[:-1, :-1]

        def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            c, best, smallest = state
            shares = c / c.sum()
            variance, scores = _top_direction(gram, shares)
            # Without any variance the mean is exact: weights of 0 end the loop.
            c = jnp.where(scores.max() > 0, c * (1 - scores), 0)
            best = jnp.where(variance < smallest, shares, best)
            return c, best, jnp.minimum(variance, smallest)

        c = vectors.within_range.astype(vectors.dtype)
        start = (c, c / c.sum(), jnp.full([], jnp.inf, c.dtype))
        return lax.while_loop(lambda state: state[0].sum() > n - 2 * f, step, start)[1]

    return Geometric(name, weights)


def dnc(
    num_byzantine: int,
    num_iterations: int = 1,
    sub_dim: int = 10_000,
    filter_fraction: float = 1.0,
) -> Geometric:
    """Divide-and-conquer: spectral filtering on random coordinates (Shejwalkar & Houmansadr, 2021).

        (1/|S|) Σ_{i ∈ S} x_i, S = all i but the ⌈c f⌉ with the largest ⟨x_i - μ, v⟩² per iteration.

    Each iteration looks at only `sub_dim` random coordinates. It centres the vectors, projects them
    on their top right singular vector v, and drops the ⌈c f⌉ with the largest squared projections
    (in ties, the highest indices). The result is the mean, in all coordinates, of the vectors that
    no iteration dropped, or, if none is left, of those that the last iteration kept. A vector
    with NaN or ±∞ is dropped by every iteration, before the others.

    Coordinates are drawn from all leaves together, with replacement (the paper leaves this open).
    If there are no more than `sub_dim`, all are used and nothing is drawn.

    Args:
        num_byzantine: f, with 2f < n.
        num_iterations: the number of iterations.
        sub_dim: the number of coordinates that each iteration draws.
        filter_fraction: c, with ⌈c f⌉ < n.

    Raises:
        TypeError: if a setting isn't static, or has the wrong type.
        ValueError: if f is negative, or another setting isn't positive; when called, if 2f >= n or
            ⌈c f⌉ >= n, or if no key is given.

    >>> x = jnp.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [50.0, 50.0]])
    >>> print(dnc(1)(x, key=0))
    [2. 0.]
    """
    f = checks.integer("num_byzantine", num_byzantine, minimum=0)
    iterations = checks.integer("num_iterations", num_iterations, minimum=1)
    columns = checks.integer("sub_dim", sub_dim, minimum=1)
    c = static_real("filter_fraction", filter_fraction)
    settings = {"num_iterations": iterations, "sub_dim": columns, "filter_fraction": c}
    name = f"dnc({settings_text(num_byzantine=f, **settings)})"
    dropped = math.ceil(c * f - 1e-9)  # in floating point, 1.1 * 10 > 11

    def weights(vectors: Vectors, key: MaybeKey) -> Array:
        n = vectors.num_workers
        checks.honest_majority(name, f, n)
        if dropped >= n:
            raise ValueError(f"{name} drops {dropped} vectors, got only n = {n} workers")

        rows, finite = vectors.rows, jnp.isfinite(vectors.norms)

        def kept(sampled: Vectors) -> Bool[Array, " n"]:
            # A non-finite vector may be finite at the sampled coordinates.
            candidates = finite & sampled.within_range
            _, scores = _top_direction(sampled.gram[:-1, :-1], mean_of(candidates, sampled.dtype))
            scores = jnp.where(candidates, scores, jnp.inf)
            return (mean_of_lowest(scores, n - dropped) > 0) & candidates

        def kept_by_sample(iteration: Array) -> Bool[Array, " n"]:
            assert key is not None
            sample = sample_columns(rows, jax.random.fold_in(key, iteration), columns)
            return kept(vectors_of_rows([sample]))

        if sum(x.shape[1] for x in rows) <= columns:
            return mean_of(kept(vectors), vectors.dtype)
        kept_by_each = lax.map(kept_by_sample, jnp.arange(iterations))
        kept_by_all = kept_by_each.all(axis=0)
        chosen = jnp.where(kept_by_all.any(), kept_by_all, kept_by_each[-1])
        return mean_of(chosen, vectors.dtype)

    return Geometric(name, weights, needs_key=True)


def _top_direction(
    gram: Float[Array, "n n"], shares: Float[Array, " n"]
) -> tuple[Float[Array, ""], Float[Array, " n"]]:
    """Return the largest variance in any direction, and the squared projections on that direction.

    Args:
        gram: the inner products of the vectors, about any point.
        shares: the weights of the vectors, which sum to 1.

    Returns:
        The top eigenvalue of the covariance (up to a constant factor), and the squared projections
        of the centred vectors on its eigenvector, relative to the largest. The projections are 0
        where the share is 0, and everywhere if nothing varies.
    """
    along = dot(gram, shares)
    centred = gram - along[None] - along[:, None] + dot(shares, along)
    roots = jnp.sqrt(shares)
    variances, directions = jnp.linalg.eigh(roots[:, None] * centred * roots[None])
    projections = jnp.where(shares > 0, dot(centred, roots * directions[:, -1]), 0)
    largest = jnp.abs(projections).max()
    return variances[-1], jnp.where(largest > 0, projections / largest, 0) ** 2
