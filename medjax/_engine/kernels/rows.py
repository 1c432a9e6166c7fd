"""Passes over the rows of a matrix (the workers) that XLA vectorises on the CPU."""

from collections.abc import Callable
from typing import TypeVar

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, PyTree, Shaped

Carry = TypeVar("Carry", bound=PyTree)


def fold_rows(
    f: Callable[[Carry, list[Array], Int[Array, ""], int], Carry],
    rows: list[Shaped[Array, "n _"]],
    init: Carry,
    *,
    unroll: int,
) -> Carry:
    """Return f(... f(f(init, row 0), row 1) ..., row n - 1), for elementwise f.

    On the CPU, XLA fuses and vectorises f where the loop slices single rows. A reduction over the
    leading axis is slow there, and so is a loop that slices several rows together and then splits
    them, because XLA leaves the code after the split scalar.

    Args:
        f: maps (carry, row, start, offset) to the next carry. The row's index is start + offset,
            where start is a multiple of `unroll` and the offset is static.
        rows: matrices of n rows each; f gets one row of each.
        init: the carry before the first row.
        unroll: rows in each turn of the loop, which reads and writes the carry once.
    """
    n = rows[0].shape[0]

    def step(start: Array, offset: int, carry: Carry) -> Carry:
        row = [lax.dynamic_index_in_dim(x, start + offset, keepdims=False) for x in rows]
        return f(carry, row, start, offset)

    def turn(k: Array, carry: Carry) -> Carry:
        # From JAX 0.12 on, XLA on the CPU compiles a loop of nothing but elementwise work into one
        # function, which runs on a single thread. Sorting the counter with itself prevents that.
        k = lax.sort(jnp.stack([k, k]))[0]
        for offset in range(unroll):
            carry = step(k * unroll, offset, carry)
        return carry

    # On GPUs one reduction would be better. On an H100 (JAX 0.11.2), a step with a vote of 100
    # workers takes 102 kernels with this loop, and twice as long as with `jnp.sign(x).sum(0)`.
    turns, rest = divmod(n, unroll)
    carry = lax.fori_loop(0, turns, turn, init) if turns else init
    for offset in range(rest):
        carry = step(jnp.int32(turns * unroll), offset, carry)
    return carry
