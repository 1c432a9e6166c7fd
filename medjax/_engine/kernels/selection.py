"""Select an order statistic of each column in passes over the rows, for any number of rows."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from medjax._engine.kernels import bisection, radix
from medjax._engine.kernels.ordered import from_ordered_integers, to_ordered_integers
from medjax._engine.kernels.rows import reduce_rows

_UNROLLED_ROWS = 64  # counting a row is little work beside reading and writing the counters


def select(x: Float[Array, "n d"], rank: int) -> Float[Array, " d"]:
    """Return the value of the given rank (0 is the smallest) of each column.

    Args:
        x: float32 or float64; NaN counts as +∞.
        rank: static, in [0, n).
    """

    def by(kernel: Callable[..., Array], **options: bool) -> Callable[[Array], Array]:
        return lambda x: from_ordered_integers(
            kernel(to_ordered_integers(x), rank, **options), x.dtype
        )

    return lax.platform_dependent(
        x,
        cpu=by(bisection.select),
        tpu=by(radix.select, unroll=False),
        default=by(radix.select, unroll=True),
    )


def successor(x: Float[Array, "n d"], value: Float[Array, " d"], rank: int) -> Float[Array, " d"]:
    """Return the value of rank + 1, given that of the rank: the same if tied, else the next above.

    One pass over the rows in place of a second selection.
    """
    known = to_ordered_integers(value)
    highest = jnp.iinfo(known.dtype).max

    def visit(row: Array) -> list[Array]:
        integers = to_ordered_integers(row)
        greater = integers > known
        return [~greater, jnp.where(greater, integers, highest)]

    start = (jnp.zeros(known.shape, jnp.int32), jnp.full_like(known, highest))
    at_most, above = reduce_rows(visit, [x], start, ("sum", "min"), unroll=_UNROLLED_ROWS)
    return from_ordered_integers(jnp.where(at_most > rank + 1, known, above), value.dtype)
