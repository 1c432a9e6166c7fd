"""Select order statistics by a sorting network: Batcher's odd-even merge sort (1968), pruned.

Only the comparators remain that the wanted ranks depend on. They are unrolled as minima and maxima
of whole rows: XLA on the CPU fuses them into one loop, and a Hopper kernel keeps the column of a
thread in its registers. Left to XLA, a network is many kernels on an accelerator, with memory
between them: on an H100 (JAX 0.11.2, n = 100) 40 for a median, 880 MB and 30 s to compile.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from medjax._engine.kernels.ordered import from_ordered_integers, to_ordered_integers


def select(rows: Sequence[Float[Array, " d"]], ranks: Sequence[int]) -> list[Float[Array, " d"]]:
    """Return the values of the given ranks (0 is the smallest) at each column; NaN counts as +∞.

    Reduce the values elementwise to one array rather than stacking them. A concatenation at the end
    of the network makes XLA compute each of its inputs separately, at a cost exponential in the
    depth of the network.

    Args:
        rows: n vectors. Taken apart before, because a matrix of integers would be written to
            memory first.
        ranks: static, each in [0, n).
    """
    integers: list[Int[Array, " d"]] = [to_ordered_integers(row) for row in rows]
    for i, j, min_needed, max_needed in comparators(len(rows), tuple(ranks)):
        a, b = integers[i], integers[j]
        if min_needed:
            integers[i] = jnp.minimum(a, b)
        if max_needed:
            integers[j] = jnp.maximum(a, b)
    return [from_ordered_integers(integers[rank], rows[0].dtype) for rank in ranks]


@functools.cache
def comparators(n: int, ranks: tuple[int, ...]) -> tuple[tuple[int, int, bool, bool], ...]:
    """Return comparators (i, j, min needed, max needed) that put the given ranks in place."""
    pairs = []
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                for i in range(min(k, n - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        pairs.append((i + j, i + j + k))
            k //= 2
        p *= 2
    # From the end, keep the comparators whose outputs are needed, and need their inputs in turn.
    needed, pruned = set(ranks), []
    for i, j in reversed(pairs):
        if i in needed or j in needed:
            pruned.append((i, j, i in needed, j in needed))
            needed |= {i, j}
    return tuple(reversed(pruned))
