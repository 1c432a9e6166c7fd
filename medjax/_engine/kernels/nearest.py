"""The mean of the values of each column that are nearest to a centre."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from medjax._engine.kernels.order_statistics import NETWORK_MAX_ROWS, order_statistics
from medjax._engine.kernels.rows import fold_rows

_ROWS_AT_ONCE = 16


def mean_nearest(x: Float[Array, "n d"], center: Float[Array, " d"], keep: int) -> Array:
    """Mean of the `keep` values of each column nearest to its centre.

    In sorted order they are a window. If several windows are equally near, the result is midway
    between those of the lowest and the highest: then it depends neither on the order of the rows
    nor on which side of the centre comes first. NaN and ±∞ are infinitely far.

    Args:
        x: float32 or float64.
        center: one number for each column.
        keep: how many to average, static, from 1 to n.

    Returns:
        The means; ±∞ or NaN where fewer than `keep` values are finite, or the centre isn't.
    """
    # By a power of two, so that no difference, nor the sum of all, overflows. The barrier keeps
    # XLA from multiplying the difference instead.
    scale = 2.0 ** -(2 * keep).bit_length()
    scaled_center = lax.optimization_barrier(center * scale)

    def deviation(x: Array) -> Array:
        return x * scale - scaled_center

    # What all values have in common isn't rounded: their deviations are summed.
    if x.shape[0] <= NETWORK_MAX_ROWS:
        ordered = order_statistics(x, tuple(range(x.shape[0])))
        total = _sum_nearest([deviation(values) for values in ordered], keep)
    else:
        (limit,) = order_statistics(jnp.abs(deviation(x)), (keep - 1,))
        total = _sum_within(limit, deviation, x, keep)
    return (scaled_center + total / keep) / scale


def _sum_nearest(deviations: list[Float[Array, " d"]], keep: int) -> Float[Array, " d"]:
    """From all in order: a window of `keep` has one of every keep-th of them, the nearest."""

    def nearer(a: Array, b: Array) -> Array:
        # Equally far on both sides: midway is the centre, 0, but NaN if they aren't finite.
        return jnp.where(jnp.abs(a) < jnp.abs(b), a, jnp.where(a == -b, a + b, b))

    nearest = [functools.reduce(nearer, deviations[i::keep]) for i in range(keep)]
    return functools.reduce(jnp.add, nearest)


def _sum_within(
    limit: Float[Array, " d"],
    deviation: Callable[[Array], Array],
    x: Float[Array, "n d"],
    keep: int,
) -> Float[Array, " d"]:
    """From the distance of the farthest to be kept."""

    def look(carry: tuple[Array, ...], row: list[Array], *_: object) -> Any:
        total, inside, at_low, at_high = carry
        apart = deviation(row[0])
        nearer = jnp.abs(apart) < limit
        return (
            total + jnp.where(nearer, apart, 0),
            inside + nearer,
            at_low + (apart == -limit),
            at_high + (apart == limit),
        )

    zero, none = jnp.zeros_like(limit), jnp.zeros(limit.shape, jnp.int32)
    start = (zero, none, none, none)
    total, inside, at_low, at_high = fold_rows(look, [x], start, unroll=_ROWS_AT_ONCE)
    places = keep - inside
    # The lowest window fills them from the lower limit first, the highest from the upper.
    return total + (jnp.minimum(at_high, places) - jnp.minimum(at_low, places)) * limit
