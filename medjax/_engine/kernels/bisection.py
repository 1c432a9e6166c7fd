"""The k-th smallest integer of each column, for more rows than a sorting network can have.

Sixteen bits at a time, from the top, by bisection: 16 passes that count what is at or below the
middle. Half the width is twice the numbers in a vector register, and half the memory to read.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, Int16, Shaped

from medjax._engine.kernels.rows import fold_rows

_ROWS_AT_ONCE = 64
_LOWEST, _HIGHEST = -(2**15), 2**15 - 1


def select(x: Int[Array, "n d"], rank: int) -> Int[Array, " d"]:
    """The value of the given rank (0 is the smallest) of each column.

    Args:
        x: int32 or int64, better not an array yet but an elementwise expression of one: it is
            fused into what is made of it.
        rank: static, in [0, n).
    """
    bits = jnp.iinfo(x.dtype).bits
    found = _select_16_bits((x >> (bits - 16)).astype(jnp.int16), rank).astype(x.dtype)
    for shift in range(bits - 32, -1, -16):
        # Of the columns' numbers that begin with what has been found, the next 16 bits, in order;
        # the smaller and the greater ones stay so.
        digits = ((x >> shift) & 0xFFFF) + _LOWEST
        upper = x >> (shift + 16)
        digits = jnp.where(upper == found, digits, jnp.where(upper < found, _LOWEST, _HIGHEST))
        digit = _select_16_bits(digits.astype(jnp.int16), rank).astype(x.dtype)
        found = (found << 16) | (digit - _LOWEST)
    return found


def successor(
    x: Shaped[Array, "n d"],
    ordered: Callable[[Array], Int[Array, " d"]],
    value: Int[Array, " d"],
    rank: int,
) -> Int[Array, " d"]:
    """The value of rank + 1, from that of the rank: the same if it is tied, else the next above.

    Args:
        x: a matrix.
        ordered: a row of it to the integers that are compared.
        value: the integer of the given rank.
        rank: which rank that is.
    """

    def look(carry: tuple[Array, Array], row: list[Array], *_: object) -> tuple[Array, Array]:
        at_most, above = carry
        integers = ordered(row[0])
        greater = integers > value
        return at_most + ~greater, jnp.where(greater, jnp.minimum(above, integers), above)

    start = (jnp.zeros(value.shape, jnp.int32), jnp.full_like(value, jnp.iinfo(value.dtype).max))
    at_most, above = fold_rows(look, [x], start, unroll=_ROWS_AT_ONCE)
    return jnp.where(at_most > rank + 1, value, above)


def _select_16_bits(x: Int16[Array, "n d"], rank: int) -> Int16[Array, " d"]:
    """The smallest integer with more than `rank` entries at or below it is the order statistic."""
    counter = jnp.int16 if x.shape[0] <= _HIGHEST else jnp.int32

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low & high) + ((low ^ high) >> 1)  # the floor of the mean, without overflow

        def count(total: Array, row: list[Array], *_: object) -> Array:
            return total + (row[0] <= middle).astype(counter)

        at_most = fold_rows(count, [x], jnp.zeros(low.shape, counter), unroll=_ROWS_AT_ONCE)
        enough = at_most > rank
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    lowest = jnp.full(x.shape[1:], _LOWEST, jnp.int16)
    highest = jnp.full(x.shape[1:], _HIGHEST, jnp.int16)
    return lax.fori_loop(0, 16, halve, (lowest, highest))[0]
