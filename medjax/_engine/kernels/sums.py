"""Sums over the worker axis."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from medjax._engine.kernels.rows import fold_rows

# Rows added in one pass over the total, which is then read and written once for all of them. More
# rows gain little and take longer to compile where each row draws noise.
_UNROLLED_ROWS = (10, 4, 2, 1)

Row: TypeAlias = list[Float[Array, " _"]]
"""One worker's vector, in parts."""

Rows: TypeAlias = list[Float[Array, "c _"]]
"""The vectors of c workers, in parts."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Worker:
    """A worker's index, 2 · pair + second.

    In two parts because both workers of a pair draw from the same block of random words. Where
    `second` is a constant of the program, XLA drops the other worker's half and computes the block
    once for both.
    """

    pair: Int[Array, "..."]
    second: np.bool_ | Bool[Array, "..."]

    @classmethod
    def of(cls, index: Int[Array, "..."]) -> "Worker":
        """Split an index, or an array of them to be vmapped over."""
        return cls(index >> 1, (index & 1) == 1)

    @property
    def index(self) -> Int[Array, "..."]:
        """The worker's index, 0 to n - 1."""
        return 2 * self.pair + self.second.astype(self.pair.dtype)


def sum_over_workers(
    encode: Callable[[Row, Worker], Row],
    rows: Rows,
    first: int | Int[Array, ""],
    total: Row,
    *,
    paired: bool,
) -> Row:
    """Return total + Σ_i encode(rows[i], first + i), without writing the encoded rows.

    On the CPU the workers are added in order; elsewhere in the order of the device's reduction.

    Args:
        encode: one worker's leaves to its contribution to each total, elementwise.
        rows: each leaf's rows of c workers.
        first: the index of the worker of row 0.
        total: the value to add to.
        paired: whether `first` is known to be even.
    """

    def fold(rows: Rows, first: Array, total: Row) -> Row:
        return _fold(encode, rows, first, total, paired=paired)

    def by_pairs(rows: Rows, first: Array, total: Row) -> Row:
        if not paired:
            return singly(rows, first, total)
        even = rows[0].shape[0] // 2 * 2
        total = _reduce(encode, [x[:even] for x in rows], first, total, together=2)
        return singly([x[even:] for x in rows], first + even, total)

    def singly(rows: Rows, first: Array, total: Row) -> Row:
        return _reduce(encode, rows, first, total, together=1)

    # A TPU takes longer to part the rows of a pair than to draw its words twice.
    return lax.platform_dependent(
        rows, jnp.int32(first), total, cpu=fold, tpu=singly, default=by_pairs
    )


def _fold(
    encode: Callable[[Row, Worker], Row], rows: Rows, first: Array, total: Row, *, paired: bool
) -> Row:
    """Add one row after the other to the total, which stays in a CPU's cache.

    `encode` is fused into the pass over the rows.
    """
    # At least two turns: XLA drops a loop of one turn, and leaves the code that draws rows scalar.
    count = rows[0].shape[0]
    unroll = next(k for k in _UNROLLED_ROWS if k == 1 or 2 * k <= count)

    def add(total: Row, row: Row, start: Array, offset: int) -> Row:
        if paired and unroll > 1:
            worker = Worker(((first + start) >> 1) + offset // 2, np.bool_(offset % 2))
        else:
            worker = Worker.of(first + start + offset)
        return [t + x for t, x in zip(total, encode(row, worker), strict=True)]

    return fold_rows(add, rows, total, unroll=unroll)


def _reduce(
    encode: Callable[[Row, Worker], Row], rows: Rows, first: Array, total: Row, *, together: int
) -> Row:
    """Sum over all rows at once: XLA for GPUs fuses `encode` into the reduction.

    Args:
        encode: see `sum_over_workers`.
        rows: as there.
        first: as there.
        total: as there.
        together: 1, or 2 to encode both workers of a pair together, so that XLA draws the random
            words that they share once.
    """
    count = rows[0].shape[0] // together
    if count == 0:
        return total

    def encode_some(rows: Rows, start: Array) -> Row:
        if together == 2:
            workers = [Worker(start >> 1, np.bool_(second)) for second in (False, True)]
        else:
            workers = [Worker.of(start)]
        parts = [encode([x[k] for x in rows], worker) for k, worker in enumerate(workers)]
        return [functools.reduce(jnp.add, terms) for terms in zip(*parts, strict=True)]

    grouped = [x.reshape(count, together, x.shape[1]) for x in rows]
    starts = first + together * jnp.arange(count, dtype=jnp.int32)
    encoded = jax.vmap(encode_some)(grouped, starts)
    return [t + jnp.sum(x, axis=0, dtype=t.dtype) for t, x in zip(total, encoded, strict=True)]
