"""Mean of the values of each column that are nearest to a centre."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from medjax._engine.kernels.order_statistics import NETWORK_MAX_ROWS, order_statistics
from medjax._engine.kernels.rows import fold_rows

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

    def deviation(x: Array) -> Array:
        return x * scale - scaled_center

    # Deviations are summed, not values, so that what the values have in common isn't rounded.
    if x.shape[0] <= NETWORK_MAX_ROWS:
        ordered = order_statistics(x, tuple(range(x.shape[0])))
        total = _sum_nearest([deviation(values) for values in ordered], keep)
    else:
        (limit,) = order_statistics(jnp.abs(deviation(x)), (keep - 1,))
        total = _sum_within(limit, deviation, x, keep)
    return (scaled_center + total / keep) / scale


def _sum_nearest(deviations: list[Float[Array, " d"]], keep: int) -> Float[Array, " d"]:
    """Return the sum of the `keep` nearest deviations, given all of them in order.

    A window of `keep` has one member of each residue class of ranks modulo `keep`. The nearest
    window has the nearest member of each class.
    """

    def nearer(a: Array, b: Array) -> Array:
        # Midway between two that are equally far on either side is 0, the centre. If they aren't
        # finite, their sum is NaN, as it has to be.
        return jnp.where(jnp.abs(a) < jnp.abs(b), a, jnp.where(a == -b, a + b, b))

    nearest = [functools.reduce(nearer, deviations[i::keep]) for i in range(keep)]
    return functools.reduce(jnp.add, nearest)


def _sum_within(
    limit: Float[Array, " d"],
    deviation: Callable[[Array], Array],
    x: Float[Array, "n d"],
    keep: int,
) -> Float[Array, " d"]:
    """Return the sum of the `keep` nearest deviations, given `limit`, the largest distance kept.

    The deviations are computed again in one pass over the rows, so that they needn't be stored.
    """

    def visit(carry: tuple[Array, ...], row: list[Array], *_: object) -> Any:
        total, inside, at_low, at_high = carry
        difference = deviation(row[0])
        nearer = jnp.abs(difference) < limit
        return (
            total + jnp.where(nearer, difference, 0),
            inside + nearer,
            at_low + (difference == -limit),
            at_high + (difference == limit),
        )

    zero, none = jnp.zeros_like(limit), jnp.zeros(limit.shape, jnp.int32)
    start = (zero, none, none, none)
    total, inside, at_low, at_high = fold_rows(visit, [x], start, unroll=_UNROLLED_ROWS)
    places = keep - inside
    # The lowest window fills the places with values at the lower limit first, the highest window
    # with values at the upper limit first. This is the midpoint of their sums.
    return total + (jnp.minimum(at_high, places) - jnp.minimum(at_low, places)) * limit
