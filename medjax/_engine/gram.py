"""Inner products of the workers' vectors about a pivot, so that what they have in common cancels.

‖x_i‖² + ‖x_j‖² - 2⟨x_i, x_j⟩ is nothing but rounding where vectors differ by a thousandth of their
length. About a point p of their midst, x_i - p are no longer than the vectors are apart.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from medjax._engine.mesh import Axes, to_columns, total

Rows = list[Float[Array, "n _"]]
"""The workers' vectors in parts, a matrix for each leaf."""

_SAMPLED = 64  # coordinates, of which the pivot is chosen at first
_COLUMNS = 4096  # centred at a time: 100 rows of float32 stay in a cache
_FAR = 64  # times as large squared distances to the majority: not in the midst
_TINY = 2.0**-40  # times the sum of all coordinates, which is finite if they are


class Products(NamedTuple):
    """What is known of n vectors by their inner products.

    Attributes:
        gram: the inner products of x_1 - p, ..., x_n - p and p, times `unit` squared. No sum of a
            few times n² of them overflows, but for the rows and columns of vectors that are too
            far off, or aren't finite: these have something non-finite on the diagonal.
        finite: which vectors are finite.
        unit: a power of two: 1, or less if the squares of half of the vectors would overflow.
    """

    gram: Float[Array, "m m"]
    finite: Bool[Array, " n"]
    unit: Float[Array, ""]


def products(leaves: Rows, num_workers: int, names: Axes) -> Products:
    """The products about a vector in the midst of the majority.

    The first pivot is the vector that is nearest to the median, at some coordinates. By what it
    gives another is taken if it isn't in the midst: those coordinates may hide an outlier.

    Args:
        leaves: the vectors of the workers that are here, in float32 at least.
        num_workers: n.
        names: the axes of the mesh that they are spread over.
    """
    columns = [to_columns(x, num_workers, names) for x in leaves]
    dtype = jnp.result_type(*columns)
    least = small_unit(dtype)

    def turn(state: tuple[Array, ...]) -> tuple[Array, ...]:
        _, pivot, unit, _ = state
        gram = total(_about(columns, pivot, unit, dtype), names)
        gram = jnp.where(jnp.diag(jnp.diagonal(gram) > _limit(gram)), jnp.inf, gram)
        nearest, is_far, overflows = _judge(gram[:-1, :-1])
        shrinks = overflows & (unit == 1)
        unit = jnp.where(shrinks, least, jnp.where(is_far, 1, unit))
        # It ends: a pivot that isn't in the midst gives way to one that is nearer to it.
        return ~shrinks & ~is_far, jnp.where(is_far, nearest, pivot), unit, gram

    start = (
        jnp.array(False),
        _nearest_to_median(columns, names),
        jnp.ones([], dtype),
        jnp.zeros((num_workers + 2, num_workers + 2), dtype),
    )
    *_, unit, gram = lax.while_loop(lambda state: ~state[0], turn, start)
    return Products(gram[:-1, :-1], jnp.isfinite(gram[-1, :-2]), unit)


def small_unit(dtype: jnp.dtype) -> float:
    """A unit in which no square of a number overflows, nor underflows if it did so before."""
    return 2.0 ** -int(0.7 * float(jnp.finfo(dtype).maxexp))


def squared_distances(gram: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """‖x_i - x_j‖² from inner products about any point."""
    squares = jnp.diagonal(gram)
    return jnp.maximum(squares + squares[:, None] - 2 * gram, 0)


def dot(a: Array, b: Array) -> Array:
    """The matrix product in full precision, on every device."""
    return jnp.dot(a, b, precision=lax.Precision.HIGHEST)


def _nearest_to_median(columns: Rows, names: Axes) -> Int[Array, ""]:
    """Which vector is nearest to the coordinate-wise median of all, at some coordinates."""
    step = -(-sum(x.shape[1] for x in columns) // _SAMPLED) or 1
    sample = jnp.concatenate([x[:, ::step] for x in columns], axis=1)
    # NaN is sorted to the end, as +∞ is.
    median = jnp.sort(sample, axis=0)[(len(sample) - 1) // 2]
    apart = total(jnp.sum(jnp.abs(sample - median), axis=1), names)
    return jnp.argmin(jnp.where(jnp.isnan(apart), jnp.inf, apart))


def _about(
    columns: Rows, pivot: Int[Array, ""], unit: Float[Array, ""], dtype: jnp.dtype
) -> Float[Array, "m m"]:
    """The products of x_1 - p, ..., x_n - p, p and a tiny constant, at the coordinates here."""
    n = columns[0].shape[0]

    def of_block(x: Array, p: Array) -> Array:
        # A row of a matrix product with NaN or ∞ in it spoils its own row and column only.
        x, p = x * unit.astype(x.dtype), p * unit.astype(x.dtype)
        block = jnp.concatenate([x - p, p[None], jnp.full((1, len(p)), _TINY, x.dtype)])
        return dot(block, block.T).astype(dtype)

    def of_leaf(x: Array) -> Array:
        p = x[pivot]
        p = jnp.where(jnp.isfinite(p), p, 0)
        blocks = x.shape[1] // _COLUMNS

        def add(k: Array, gram: Array) -> Array:
            part = (lax.dynamic_slice_in_dim(y, k * _COLUMNS, _COLUMNS, -1) for y in (x, p))
            return gram + of_block(*part)

        gram = jnp.zeros((n + 2, n + 2), dtype)
        gram = lax.fori_loop(0, blocks, add, gram) if blocks else gram
        rest = blocks * _COLUMNS
        return gram + of_block(x[:, rest:], p[rest:]) if rest < x.shape[1] else gram

    return sum((of_leaf(x) for x in columns), jnp.zeros((n + 2, n + 2), dtype))


def _limit(gram: Float[Array, "m m"]) -> float:
    return float(jnp.finfo(gram.dtype).max) / (8 * len(gram) ** 2)


def _judge(
    gram: Float[Array, "m m"],
) -> tuple[Int[Array, ""], Bool[Array, ""], Bool[Array, ""]]:
    """Which vector is in the midst, if the pivot is far from there, and if products overflow.

    In the midst is the one whose median distance to the others is the smallest.
    """
    squares, rank = jnp.diagonal(gram), (len(gram) - 1) // 2
    apart = squared_distances(gram[:-1, :-1])
    medians = jnp.sort(jnp.where(jnp.isfinite(apart), apart, jnp.inf), axis=1)[:, rank]
    of_pivot = jnp.sort(squares[:-1])[rank]
    nearest = jnp.argmin(medians)
    fits = jnp.isfinite(of_pivot) & jnp.isfinite(squares[-1])
    return nearest, fits & (of_pivot > _FAR * medians[nearest]), ~fits
