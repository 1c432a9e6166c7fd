"""Order statistics down the columns of an (n, d) matrix, far faster than sorting each column.

Floats are compared as integers of the same order, NaN on top, so that ties are exact and a result
doesn't depend on the order of the rows.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax._engine.kernels import network
from medjax._engine.kernels.columns import by_columns
from medjax._engine.kernels.ordered import clip
from medjax._engine.kernels.rows import reduce_rows
from medjax._engine.kernels.selection import select, successor

_UNROLLED_ROWS = 16


def median(x: Float[Array, "n d"]) -> Float[Array, " d"]:
    """Return the middle order statistic of each column, or the midpoint of the middle two.

    NaN counts as +∞.
    """
    return by_columns(_median_of_rows, _median_of_matrix, x)


def _median_of_rows(rows: Sequence[Float[Array, " d"]]) -> Float[Array, " d"]:
    n = len(rows)
    ranks = (n // 2,) if n % 2 else (n // 2 - 1, n // 2)
    return _middle(network.select(rows, ranks))


def _median_of_matrix(x: Float[Array, "n d"]) -> Float[Array, " d"]:
    n = len(x)
    if n % 2:
        return select(x, n // 2)
    low = select(x, n // 2 - 1)
    return _middle([low, successor(x, low, n // 2 - 1)])


def _middle(values: Sequence[Float[Array, " d"]]) -> Float[Array, " d"]:
    """Return the only value, or the midpoint of a low and a high one."""
    if len(values) == 1:
        return values[0]
    low, high = values
    total = low + high
    overflows = (jnp.abs(total) == jnp.inf) & (low > -jnp.inf) & (high < jnp.inf)
    # 0.5·low + 0.5·high wouldn't help: XLA factors out 0.5, and the sum overflows again.
    return clip(jnp.where(overflows, low + 0.5 * (high - low), 0.5 * total), low, high)


def trimmed_mean(x: Float[Array, "n d"], trim: int) -> Float[Array, " d"]:
    """Return the mean of the order statistics of ranks trim, ..., n - trim - 1.

    NaN counts as +∞. Only the kept values are summed: subtracting the trimmed ones from the sum of
    all values would lose everything to rounding when an outlier is large.
    """
    kept = range(trim, x.shape[0] - trim)
    return by_columns(_trimmed_mean_of_rows, _trimmed_mean_of_matrix, x, kept=kept)


def _trimmed_mean_of_rows(rows: Sequence[Float[Array, " d"]], kept: range) -> Float[Array, " d"]:
    values = network.select(rows, kept)
    return clip(functools.reduce(jnp.add, values) / len(kept), values[0], values[-1])


def _trimmed_mean_of_matrix(x: Float[Array, "n d"], kept: range) -> Float[Array, " d"]:
    """Return the mean of the kept ranks: of the values at both ends and all values between them.

    Only two ranks have to be selected. The others are summed in one pass over the rows.
    """
    low, high = select(x, kept[0]), select(x, kept[-1])

    def visit(row: Array) -> list[Array]:
        value = jnp.where(jnp.isnan(row), jnp.inf, row)
        inside = jnp.where((value > low) & (value < high), value, 0)
        return [inside, value <= low, value < high]

    none = jnp.zeros(low.shape, jnp.int32)
    total, at_most_low, below_high = reduce_rows(
        visit, [x], (jnp.zeros_like(low), none, none), ("sum",) * 3, unroll=_UNROLLED_ROWS
    )
    # Values tied with an end count as often as they are among the kept ranks.
    copies_of_low = jnp.minimum(at_most_low, kept.stop) - kept.start
    total += copies_of_low.astype(low.dtype) * low
    copies_of_high = kept.stop - jnp.maximum(below_high, kept.start)
    total = jnp.where(high > low, total + copies_of_high.astype(high.dtype) * high, total)
    return clip(total / len(kept), low, high)
