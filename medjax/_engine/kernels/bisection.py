"""Select the k-th smallest integer of each column on the CPU, for many rows.

Bisection finds the integer 16 bits at a time, from the top. Each of 16 passes counts the entries at
or below the middle of the bounds. All 32 bits at once would take as many passes, but 16-bit numbers
fill a vector register with twice as many entries and take half the memory traffic.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, Int16

from medjax._engine.kernels.rows import fold_rows

_UNROLLED_ROWS = 64  # counting a row is little work beside reading and writing the counters
_LOWEST, _HIGHEST = -(2**15), 2**15 - 1


def select(x: Int[Array, "n d"], rank: int) -> Int[Array, " d"]:
    """Return the value of the given rank (0 is the smallest) of each column.

    Args:
        x: int32 or int64. Pass an elementwise expression of an array rather than a stored array:
            XLA fuses it into the computation of the 16-bit digits.
        rank: static, in [0, n).
    """
    bits = jnp.iinfo(x.dtype).bits
    found = _select_16_bits((x >> (bits - 16)).astype(jnp.int16), rank).astype(x.dtype)
    for shift in range(bits - 32, -1, -16):
        # Compare the next 16 bits of the numbers whose upper bits are those found so far. Smaller
        # numbers become the lowest digit and greater ones the highest, so that ranks don't change.
        digits = ((x >> shift) & 0xFFFF) + _LOWEST
        upper, so_far = x >> (shift + 16), found[None]
        digits = jnp.where(upper == so_far, digits, jnp.where(upper < so_far, _LOWEST, _HIGHEST))
        digit = _select_16_bits(digits.astype(jnp.int16), rank).astype(x.dtype)
        found = (found << 16) | (digit - _LOWEST)
    return found


def _select_16_bits(x: Int16[Array, "n d"], rank: int) -> Int16[Array, " d"]:
    """Return the order statistic: the smallest integer with more than `rank` entries up to it."""
    # A 16-bit counter fills a vector register with as many numbers as the entries do.
    counter = jnp.int16 if x.shape[0] <= _HIGHEST else jnp.int32

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low & high) + ((low ^ high) >> 1)  # the floor of the mean, without overflow

        def count(total: Array, row: list[Array], *_: object) -> Array:
            return total + (row[0] <= middle).astype(counter)

        at_most = fold_rows(count, [x], jnp.zeros(low.shape, counter), unroll=_UNROLLED_ROWS)
        enough = at_most > rank
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    lowest = jnp.full(x.shape[1:], _LOWEST, jnp.int16)
    highest = jnp.full(x.shape[1:], _HIGHEST, jnp.int16)
    return lax.fori_loop(0, 16, halve, (lowest, highest))[0]
