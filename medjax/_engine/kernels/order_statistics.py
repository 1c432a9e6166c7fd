"""Order statistics down the columns of an (n, d) matrix, far faster than sorting each column.

Floats are mapped to integers of the same order, NaN on top, so that a comparison is one integer
instruction, ties are exact, and a result doesn't depend on the order of the rows. They are then
selected by

* a sorting network (Batcher's odd-even merge sort, 1968) for up to `NETWORK_MAX_ROWS` rows, pruned
  to the comparators that the wanted ranks depend on, and unrolled as min/max over whole rows;
* bisection for more rows, see `bisection`: the network would take too long to compile and to run.
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

# XLA on the CPU fuses a median's whole network into one loop, which takes 2 s to compile for 128
# rows. From 176 rows on that loop becomes slow: for 20,000 columns it runs for 3 ms with 160 rows,
# 50 ms with 176 and 4 s with 200 (two cores, JAX 0.10.2).
NETWORK_MAX_ROWS = 128
_UNROLLED_ROWS = 16
_VECTOR_COLUMNS = 64  # two AVX-512 registers of 16-bit numbers
# The elements in a block of columns for bisection. Sixteen passes over a block read the same 8 MiB
# of 16-bit numbers, which are small enough for a cache.
_BLOCK_ELEMENTS = 1 << 22


def order_statistics(
    x: Float[Array, "n d"], ranks: tuple[int, ...]
) -> tuple[Float[Array, " d"], ...]:
    """Return the values of the given ranks (0 is the smallest) of each column; NaN counts as +∞.

    Reduce the values elementwise to one array rather than stacking them. A concatenation at the end
    of the network makes XLA compute each of its inputs separately, at a cost exponential in the
    depth of the network.

    Args:
        x: float32 or float64.
        ranks: static, each in [0, n).
    """
    if x.shape[0] <= NETWORK_MAX_ROWS:
        # Converted row by row, the integers fuse with the network. Converted as a matrix, they
        # would be written to memory first.
        selected = _select_by_network([_to_ordered_integers(row) for row in x], ranks)
    else:
        selected = _blockwise(lambda block: _select_by_bisection(block, ranks), x)
    return tuple(_from_ordered_integers(values, x.dtype) for values in selected)


def median(x: Float[Array, "n d"]) -> Float[Array, " d"]:
    """Return the middle order statistic of each column, or the midpoint of the middle two.

    NaN counts as +∞.
    """
    n = x.shape[0]
    if n % 2:
        return order_statistics(x, (n // 2,))[0]
    low, high = order_statistics(x, (n // 2 - 1, n // 2))
    total = low + high
    overflows = jnp.isinf(total) & jnp.isfinite(low) & jnp.isfinite(high)
    # 0.5·low + 0.5·high wouldn't help: XLA factors out 0.5, and the sum overflows again.
    return _clip(jnp.where(overflows, low + 0.5 * (high - low), 0.5 * total), low, high)


def trimmed_mean(x: Float[Array, "n d"], trim: int) -> Float[Array, " d"]:
    """Return the mean of the order statistics of ranks trim, ..., n - trim - 1.

    NaN counts as +∞. Only the kept values are summed: subtracting the trimmed ones from the sum of
    all values would lose everything to rounding when an outlier is large.
    """
    kept = range(trim, x.shape[0] - trim)
    if x.shape[0] <= NETWORK_MAX_ROWS:
        values = order_statistics(x, tuple(kept))
        return _clip(functools.reduce(jnp.add, values) / len(kept), values[0], values[-1])
    return _blockwise(lambda block: [_trimmed_mean_of_block(block, kept)], x)[0]


def _trimmed_mean_of_block(x: Float[Array, "n k"], kept: range) -> Float[Array, " k"]:
    """Return the mean of the kept ranks: of the values at both ends and all values between them.

    Only two ranks have to be selected. The others are summed in one pass over the rows.
    """
    ends = _select_by_bisection(x, (kept[0], kept[-1]))
    low, high = (_from_ordered_integers(end, x.dtype) for end in ends)

    def visit(carry: tuple[Array, Array, Array], row: list[Array], *_: object) -> Any:
        total, at_most_low, below_high = carry
        value = jnp.where(jnp.isnan(row[0]), jnp.inf, row[0])
        inside = jnp.where((value > low) & (value < high), value, 0)
        return total + inside, at_most_low + (value <= low), below_high + (value < high)

    none = jnp.zeros(low.shape, jnp.int32)
    total, at_most_low, below_high = fold_rows(
        visit, [x], (jnp.zeros_like(low), none, none), unroll=_UNROLLED_ROWS
    )
    # Values tied with an end count as often as they are among the kept ranks.
    total += (jnp.minimum(at_most_low, kept.stop) - kept.start) * low
    copies_of_high = kept.stop - jnp.maximum(below_high, kept.start)
    total = jnp.where(high > low, total + copies_of_high * high, total)
    return _clip(total / len(kept), low, high)


def _clip(x: Float[Array, " d"], low: Float[Array, " d"], high: Float[Array, " d"]) -> Array:
    """Move a mean of numbers from low to high back into that range, if rounding pushed it out.

    The comparison is one of integers, because XLA's float arithmetic and comparisons on the CPU
    treat subnormal numbers as 0.
    """
    bounds = _to_ordered_integers(low), _to_ordered_integers(high)
    return _from_ordered_integers(jnp.clip(_to_ordered_integers(x), *bounds), x.dtype)


def _to_ordered_integers(x: Float[Array, "..."]) -> Int[Array, "..."]:
    """Return signed integers in the order of the floats: -∞ < ... < -0 < +0 < ... < +∞ = NaN."""
    integer = jnp.int64 if x.dtype == jnp.float64 else jnp.int32
    bits = lax.bitcast_convert_type(jnp.where(jnp.isnan(x), jnp.inf, x), integer)
    # The bits of negative floats are ordered by magnitude: all but the sign bit are flipped.
    return jnp.where(bits < 0, bits ^ jnp.iinfo(integer).max, bits)


def _from_ordered_integers(bits: Int[Array, "..."], dtype: jnp.dtype) -> Float[Array, "..."]:
    """Invert `_to_ordered_integers`."""
    return lax.bitcast_convert_type(
        jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits), dtype
    )


@functools.cache
def selection_network(n: int, ranks: tuple[int, ...]) -> tuple[tuple[int, int, bool, bool], ...]:
    """Return comparators (i, j, min needed, max needed) that put the given ranks in place."""
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
    # From the end, keep the comparators whose outputs are needed, and need their inputs in turn.
    needed, pruned = set(ranks), []
    for i, j in reversed(comparators):
        if i in needed or j in needed:
            pruned.append((i, j, i in needed, j in needed))
            needed |= {i, j}
    return tuple(reversed(pruned))


def _select_by_network(rows: list[Int[Array, " d"]], ranks: tuple[int, ...]) -> list[Array]:
    # On GPUs XLA doesn't fuse the network into one kernel. On an H100 (JAX 0.11.2, n = 100) a
    # median's takes 40 kernels, which move 880 MB through memory, and 30 s to compile.
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
    """Apply a column-wise f to blocks of columns.

    All blocks have the same width, so that f is compiled once. The last one may overlap the one
    before it.
    """
    n, d = x.shape
    num_blocks = max(1, -(-n * d // _BLOCK_ELEMENTS))
    # A block is a whole number of vector registers wide. XLA on the CPU doesn't vectorise a loop of
    # another length, which is 6 times as slow.
    multiple = min(d, _VECTOR_COLUMNS) or 1
    width = -(-d // (num_blocks * multiple)) * multiple
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
