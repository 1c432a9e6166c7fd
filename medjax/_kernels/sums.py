"""Sums over the worker axis that avoid XLA's slow leading-axis reduction on the CPU."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import jax
from jaxtyping import Array, Float, Int

from medjax._kernels.rows import fold_rows

# Rows added in one pass over the total: it is then read and written once for all of them. More
# gains little, and takes longer to compile where a row is drawn.
_ROWS_AT_ONCE = (10, 4, 2, 1)

Row: TypeAlias = list[Float[Array, " _"]]
"""One worker's vector, in parts."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Worker:
    """Which worker: `even` + `offset`, the first of them even.

    In two parts, so that whether it is the first or the second of its pair can be known when the
    program is compiled: what both of a pair need is then computed once.
    """

    even: Int[Array, "..."]
    offset: int | Int[Array, "..."]

    @classmethod
    def of(cls, index: Int[Array, " n"]) -> "Worker":
        """The workers of these indices, to be vmapped over."""
        return cls(index - index % 2, index % 2)

    @property
    def index(self) -> Int[Array, "..."]:
        """0, ..., n - 1."""
        return self.even + self.offset

    @property
    def pair(self) -> Int[Array, "..."]:
        """The worker's pair, index // 2."""
        return self.even // 2 + self.offset // 2

    @property
    def second(self) -> bool | Array:
        """Whether it is the second of its pair, index % 2."""
        return self.offset % 2 == 1


def sum_over_workers(
    encode: Callable[[Row, Worker], Row],
    rows: list[Float[Array, "c _"]],
    first: int | Int[Array, ""],
    total: Row,
    *,
    paired: bool,
) -> Row:
    """total + Σ_i encode(rows[i], first + i), in order, without writing the encoded rows.

    The total stays in cache, and `encode` is fused into the pass over the rows.

    Args:
        encode: one worker's leaves to what it contributes to each total, elementwise.
        rows: each leaf's rows of c workers.
        first: the index of the worker of row 0.
        total: what to add to.
        paired: whether `first` is known to be even.
    """
    # At least two turns: XLA drops a loop of one, and what draws the rows is left scalar again.
    count = rows[0].shape[0]
    at_once = next(k for k in _ROWS_AT_ONCE if k == 1 or 2 * k <= count)

    def add(total: Row, row: Row, start: Array, offset: int) -> Row:
        worker = Worker(first + start, offset)
        if not paired or at_once == 1:
            worker = Worker(worker.index - worker.index % 2, worker.index % 2)
        return [t + x for t, x in zip(total, encode(row, worker), strict=True)]

    return fold_rows(add, rows, total, unroll=at_once)
