"""Filters of the vectors that lie far out in the direction in which all vary the most."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from medjax._engine.random import MaybeKey
from medjax._engine import checks
from medjax._engine.gram import dot
from medjax._engine.vectors import Vectors, vectors_of_rows
from medjax.rules._geometric import Geometric
from medjax.rules._selection import mean_of, mean_of_lowest, sample_columns
from medjax._engine.settings import settings_text, static_real


def caf(num_byzantine: int) -> Geometric:
    """The covariance-bound agnostic filter: vectors far out where all vary most lose weight.

        μ = Σ_i c_i x_i / Σ_i c_i, c_i ← c_i (1 - p_i²/max_j p_j²), p_i = ⟨x_i - μ, v⟩.

    (Allouah et al., 2025, "Towards trustworthy federated learning with untrusted participants".)
    All weights c_i are 1 at first. While Σ c_i > n - 2f, μ is the weighted mean, v the top
    eigenvector of the weighted covariance, and c_i ← c_i (1 - p_i²/max_j p_j²) for p_i = ⟨x_i - μ,
    v⟩, with the maximum over c_j > 0. The result is the μ whose top eigenvalue was the smallest
    (for f = 0, where there is none, the mean). A vector with NaN or ±∞ has weight 0 from the start.

    Each turn sets a weight to 0, so that there are at most 2f.

    Args:
        num_byzantine: f, with 2f < n.

    Raises:
        TypeError: if f isn't a static integer.
        ValueError: if f is negative, or, when traced, if 2f >= n.

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

        def turn(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            c, best, smallest = state
            shares = c / c.sum()
            variance, scores = _most_varying(gram, shares)
            # Without any variance the mean is exact, and all weights are dropped, to end here.
            c = jnp.where(scores.max() > 0, c * (1 - scores), 0)
            best = jnp.where(variance < smallest, shares, best)
            return c, best, jnp.minimum(variance, smallest)

        c = vectors.within_range.astype(vectors.dtype)
        start = (c, c / c.sum(), jnp.full([], jnp.inf, c.dtype))
        return lax.while_loop(lambda state: state[0].sum() > n - 2 * f, turn, start)[1]

    return Geometric(name, weights)


def dnc(
    num_byzantine: int,
    num_iterations: int = 1,
    sub_dim: int = 10_000,
    filter_fraction: float = 1.0,
) -> Geometric:
    """Divide-and-conquer: spectral filtering on random coordinates (Shejwalkar & Houmansadr, 2021).

        (1/|S|) Σ_{i ∈ S} x_i, S without the ⌈c f⌉ of largest ⟨x_i - μ, v⟩² of each iteration.

    Each iteration looks at `sub_dim` random coordinates only: it centres the vectors, projects them
    on their top right singular vector, and drops the ⌈c f⌉ with the largest squared projections (of
    equal ones the highest indices). The result is the mean, in all coordinates, of the vectors that
    no iteration dropped; if there is none, of those that the last one didn't. A vector with NaN or
    ±∞ is dropped by every iteration, before the others.

    The coordinates, of all leaves together, are drawn with replacement, which the paper leaves
    open; if there are no more than `sub_dim`, all are taken, and nothing is drawn.

    Args:
        num_byzantine: f, with 2f < n.
        num_iterations: how often coordinates are drawn.
        sub_dim: how many.
        filter_fraction: c, with ⌈c f⌉ < n.

    Raises:
        TypeError: if a setting isn't static, or not of its type.
        ValueError: if f is negative, the others aren't positive, or, when traced, if 2f >= n or
            ⌈c f⌉ >= n; or if no key is given when called.

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
    dropped = math.ceil(c * f - 1e-9)  # 1.1 · 10 is above 11

    def weights(vectors: Vectors, key: MaybeKey) -> Array:
        n = vectors.num_workers
        checks.honest_majority(name, f, n)
        if dropped >= n:
            raise ValueError(f"{name} drops {dropped} vectors, got only n = {n} workers")

        rows, whole = vectors.rows, jnp.isfinite(vectors.norms)

        def kept(seen: Vectors) -> Bool[Array, " n"]:
            # What isn't finite may be so at the coordinates that are looked at.
            among = whole & seen.within_range
            _, scores = _most_varying(seen.gram[:-1, :-1], mean_of(among, seen.dtype))
            scores = jnp.where(among, scores, jnp.inf)
            return (mean_of_lowest(scores, n - dropped) > 0) & among

        def kept_by_sample(iteration: Array) -> Bool[Array, " n"]:
            assert key is not None
            sample = sample_columns(rows, jax.random.fold_in(key, iteration), columns)
            return kept(vectors_of_rows([sample]))

        if sum(x.shape[1] for x in rows) <= columns:
            return mean_of(kept(vectors), vectors.dtype)
        each = lax.map(kept_by_sample, jnp.arange(iterations))
        always = each.all(axis=0)
        return mean_of(jnp.where(always.any(), always, each[-1]), vectors.dtype)

    return Geometric(name, weights, needs_key=True)


def _most_varying(
    gram: Float[Array, "n n"], shares: Float[Array, " n"]
) -> tuple[Float[Array, ""], Float[Array, " n"]]:
    """The largest variance in a direction, and how far out the vectors lie in that direction.

    Args:
        gram: the inner products of the vectors, about any point.
        shares: their weights, of sum 1.

    Returns:
        The top eigenvalue of the covariance (but for a constant factor), and the squares of the
        projections of the centred vectors on its eigenvector, relative to the largest. These are 0
        where the share is 0, and everywhere if nothing varies.
    """
    along = dot(gram, shares)
    centred = gram - along - along[:, None] + dot(shares, along)
    roots = jnp.sqrt(shares)
    variances, directions = jnp.linalg.eigh(roots[:, None] * centred * roots)
    projections = jnp.where(shares > 0, dot(centred, roots * directions[:, -1]), 0)
    largest = jnp.abs(projections).max()
    return variances[-1], jnp.where(largest > 0, projections / largest, 0) ** 2
