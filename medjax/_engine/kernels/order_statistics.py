"""Order statistics down the columns of an (n, d) matrix, far faster than sorting each column.

Floats are mapped to integers of the same order, NaN on top, so that a comparison is one integer
instruction, ties are exact, and a result doesn't depend on the order of the rows. Then

* up to `NETWORK_MAX_ROWS` rows: a sorting network (Batcher's odd-even merge sort, 1968), pruned to
  the comparators that the wanted ranks depend on, unrolled as min/max over whole rows;
* beyond that the network would take too long to compile: bisection, see `bisection`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from medjax._engine.kernels.bisection import select, successor
from medjax._engine.kernels.rows import fold_rows

NETWORK_MAX_ROWS = 128
_COLUMNS = 64
_ROWS_AT_ONCE = 16
_BLOCK_ELEMENTS = 1 << 22  # a block of columns for bisection, small enough for a cache


def order_statistics(
    x: Float[Array, "n d"], ranks: tuple[int, ...]
) -> tuple[Float[Array, " d"], ...]:
    """The values of the given ranks (0 is the smallest) of each column; NaN counts as +∞.

    Reduce the values elementwise to one array rather than stacking them: a concatenation at the
    end of the network makes XLA compute its inputs apart, at a cost exponential in the depth.

    Args:
        x: float32 or float64.
        ranks: static, each in [0, n).
    """
    if x.shape[0] <= NETWORK_MAX_ROWS:
        # Converting row by row fuses with the network; converting the matrix writes it out first.
        selected = _select_by_network([_to_ordered_integers(row) for row in x], ranks)
    else:
        selected = _blockwise(lambda block: _select_by_bisection(block, ranks), x)
    return tuple(_from_ordered_integers(values, x.dtype) for values in selected)


def median(x: Float[Array, "n d"]) -> Float[Array, " d"]:
    """The middle order statistic of each column, or the midpoint of the two; NaN counts as +∞."""
    n = x.shape[0]
    if n % 2:
        return order_statistics(x, (n // 2,))[0]
    low, high = order_statistics(x, (n // 2 - 1, n // 2))
    total = low + high
    overflows = jnp.isinf(total) & jnp.isfinite(low) & jnp.isfinite(high)
    # Not 0.5·low + 0.5·high: XLA factors that, and the sum overflows again.
    return _clip(jnp.where(overflows, low + 0.5 * (high - low), 0.5 * total), low, high)


def trimmed_mean(x: Float[Array, "n d"], trim: int) -> Float[Array, " d"]:
    """Mean of the order statistics of ranks trim, ..., n - trim - 1; NaN counts as +∞.

    The kept values are summed themselves: taking the sum of all and subtracting the trimmed ones
    would lose everything to rounding when an outlier is large.
    """
    kept = range(trim, x.shape[0] - trim)
    if x.shape[0] <= NETWORK_MAX_ROWS:
        values = order_statistics(x, tuple(kept))
        return _clip(functools.reduce(jnp.add, values) / len(kept), values[0], values[-1])
    return _blockwise(lambda block: [_trimmed_mean_of_block(block, kept)], x)[0]


def _trimmed_mean_of_block(x: Float[Array, "n k"], kept: range) -> Float[Array, " k"]:
    """The mean of the kept ranks, from the values at both ends of them and what is between."""
    ends = _select_by_bisection(x, (kept[0], kept[-1]))
    low, high = (_from_ordered_integers(end, x.dtype) for end in ends)

    def look(carry: tuple[Array, Array, Array], row: list[Array], *_: object) -> Any:
        total, at_most_low, below_high = carry
        value = jnp.where(jnp.isnan(row[0]), jnp.inf, row[0])
        inside = jnp.where((value > low) & (value < high), value, 0)
        return total + inside, at_most_low + (value <= low), below_high + (value < high)

    none = jnp.zeros(low.shape, jnp.int32)
    total, at_most_low, below_high = fold_rows(
        look, [x], (jnp.zeros_like(low), none, none), unroll=_ROWS_AT_ONCE
    )
    total += (jnp.minimum(at_most_low, kept.stop) - kept.start) * low
    copies_of_high = kept.stop - jnp.maximum(below_high, kept.start)
    total = jnp.where(high > low, total + copies_of_high * high, total)
    return _clip(total / len(kept), low, high)


def _clip(x: Float[Array, " d"], low: Float[Array, " d"], high: Float[Array, " d"]) -> Array:
    """A mean of numbers from low to high, put back where rounding pushed it out of that range.

    As integers: XLA's arithmetic and comparisons on the CPU take subnormal floats for 0.
    """
    bounds = _to_ordered_integers(low), _to_ordered_integers(high)
    return _from_ordered_integers(jnp.clip(_to_ordered_integers(x), *bounds), x.dtype)


def _to_ordered_integers(x: Float[Array, "..."]) -> Int[Array, "..."]:
    """Signed integers in the order of the floats: -∞ < ... < -0 < +0 < ... < +∞ = NaN."""
    integer = jnp.int64 if x.dtype == jnp.float64 else jnp.int32
    bits = lax.bitcast_convert_type(jnp.where(jnp.isnan(x), jnp.inf, x), integer)
    return jnp.where(bits < 0, bits ^ jnp.iinfo(integer).max, bits)


def _from_ordered_integers(bits: Int[Array, "..."], dtype: jnp.dtype) -> Float[Array, "..."]:
    return lax.bitcast_convert_type(
        jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits), dtype
    )


@functools.cache
def selection_network(n: int, ranks: tuple[int, ...]) -> tuple[tuple[int, int, bool, bool], ...]:
    """Comparators (i, j, min needed, max needed) that bring the given ranks to their places."""
    comparators = []
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                for i in range(min(k, n - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        comparators.append((i + j, i + j + k))
            k //= 2
        p *= 2
    needed, pruned = set(ranks), []
    for i, j in reversed(comparators):
        if i in needed or j in needed:
            pruned.append((i, j, i in needed, j in needed))
            needed |= {i, j}
    return tuple(reversed(pruned))


def _select_by_network(rows: list[Int[Array, " d"]], ranks: tuple[int, ...]) -> list[Array]:
    for i, j, min_needed, max_needed in selection_network(len(rows), ranks):
        a, b = rows[i], rows[j]
        if min_needed:
            rows[i] = jnp.minimum(a, b)
        if max_needed:
            rows[j] = jnp.maximum(a, b)
    return [rows[rank] for rank in ranks]


def _select_by_bisection(x: Float[Array, "n d"], ranks: tuple[int, ...]) -> list[Array]:
    selected: list[Array] = []
    for i, rank in enumerate(ranks):
        if i and rank == ranks[i - 1] + 1:
            selected.append(successor(x, _to_ordered_integers, selected[-1], ranks[i - 1]))
        else:
            selected.append(select(_to_ordered_integers(x), rank))
    return selected


def _blockwise(f: Callable[[Array], list[Array]], x: Float[Array, "n d"]) -> list[Array]:
    """Apply a column-wise f to blocks of columns; the last block may overlap the one before it."""
    n, d = x.shape
    num_blocks = max(1, -(-n * d // _BLOCK_ELEMENTS))
    # A multiple of the vector's length: XLA leaves a loop of another length scalar, 6 times slower.
    columns = min(d, _COLUMNS) or 1
    width = -(-d // (num_blocks * columns)) * columns
    padded = max(d, width)
    x = jnp.pad(x, ((0, 0), (0, padded - d)))

    def step(k: Array, outs: list[Array]) -> list[Array]:
        start = jnp.minimum(k * width, padded - width)
        blocks = f(lax.dynamic_slice_in_dim(x, start, width, axis=1))
        return [
            lax.dynamic_update_slice_in_dim(out, block, start, axis=0)
            for out, block in zip(outs, blocks, strict=True)
        ]

    outs = [jnp.zeros(out.shape, out.dtype) for out in jax.eval_shape(f, x)]
    return [out[:d] for out in lax.fori_loop(0, num_blocks, step, outs)] if d else outs
