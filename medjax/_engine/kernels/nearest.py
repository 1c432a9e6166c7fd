"""Mean of the values of each column that are nearest to a centre."""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from medjax._engine.kernels import network
from medjax._engine.kernels.columns import by_columns
from medjax._engine.kernels.rows import reduce_rows
from medjax._engine.kernels.selection import select

_UNROLLED_ROWS = 16


def mean_nearest(x: Float[Array, "n d"], center: Float[Array, " d"], keep: int) -> Array:
    """Return the mean of the `keep` values of each column nearest to its centre.

    In sorted order these values are a window. If several windows are equally near, the result is
    midway between the means of the lowest and the highest, so that it depends neither on the order
    of the rows nor on which side of the centre comes first. NaN and ±∞ are infinitely far.

    Args:
        x: float32 or float64.
        center: one number for each column.
        keep: the number of values to average, static, from 1 to n.

    Returns:
        The means; ±∞ or NaN where fewer than `keep` values are finite, or the centre isn't.
    """
    # Scaled down by a power of two, neither a difference nor the sum of them all overflows. The
    # barrier keeps XLA from subtracting first and scaling the difference.
    scale = 2.0 ** -(2 * keep).bit_length()
    scaled_center = lax.optimization_barrier(center * scale)
    # Deviations are summed, not values, so that what the values have in common isn't rounded.
    total = by_columns(_sum_of_rows, _sum_of_matrix, x, scaled_center, keep=keep, scale=scale)
    return (scaled_center + total / keep) / scale


def _sum_of_rows(
    rows: Sequence[Float[Array, " d"]], center: Float[Array, " d"], *, keep: int, scale: float
) -> Float[Array, " d"]:
    """Return the sum of the `keep` deviations nearest to 0, from all of them in order.

    A window of `keep` has one member of each residue class of ranks modulo `keep`. The nearest
    window has the nearest member of each class.
    """

    def nearer(a: Array, b: Array) -> Array:
        # Midway between two that are equally far on either side is 0, the centre. If they aren't
        # finite, their sum is NaN, as it has to be.
        return jnp.where(jnp.abs(a) < jnp.abs(b), a, jnp.where(a == -b, a + b, b))

    deviations = [x * scale - center for x in network.select(rows, range(len(rows)))]
    nearest = [functools.reduce(nearer, deviations[i::keep]) for i in range(keep)]
    return functools.reduce(jnp.add, nearest)


def _sum_of_matrix(
    x: Float[Array, "n d"], center: Float[Array, " d"], *, keep: int, scale: float
) -> Float[Array, " d"]:
    """Return the sum of the `keep` deviations nearest to 0, in passes over the rows.

    The deviations are computed again in each pass, so that they needn't be stored.
    """
    limit = select(jnp.abs(x * scale - center[None]), keep - 1)

    def visit(row: Array) -> list[Array]:
        difference = row * scale - center
        nearer = jnp.abs(difference) < limit
        return [
            jnp.where(nearer, difference, 0),
            nearer,
            difference == -limit,
            difference == limit,
        ]

    zero, none = jnp.zeros_like(limit), jnp.zeros(limit.shape, jnp.int32)
    total, inside, at_low, at_high = reduce_rows(
        visit, [x], (zero, none, none, none), ("sum",) * 4, unroll=_UNROLLED_ROWS
    )
    places = keep - inside
    # The lowest window fills the places with values at the lower limit first, the highest window
    # with values at the upper limit first. This is the midpoint of their sums.
    surplus = jnp.minimum(at_high, places) - jnp.minimum(at_low, places)
    return total + surplus.astype(limit.dtype) * limit
