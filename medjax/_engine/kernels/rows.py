"""Passes over the rows of a matrix, which are the workers, that XLA vectorises on the CPU."""

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
    """f(... f(f(init, row 0), row 1) ..., row n - 1), for elementwise f.

    A reduction over the leading axis is slow on the CPU, and so is a loop that slices several rows
    at once and then splits them: what follows is left scalar. Single rows, sliced in the loop, are
    fused into f and vectorised.

    Args:
        f: (carry, row, start, offset) to the next carry; the row's index is start + offset, where
            start is a multiple of `unroll` and the offset is static.
        rows: matrices of n rows each; f gets one row of each.
        init: the carry before the first row.
        unroll: rows to a turn of the loop: the carry is read and written once a turn.
    """
    n = rows[0].shape[0]

    def step(start: Array, offset: int, carry: Carry) -> Carry:
        row = [lax.dynamic_index_in_dim(x, start + offset, keepdims=False) for x in rows]
        return f(carry, row, start, offset)

    def turn(k: Array, carry: Carry) -> Carry:
        # XLA from JAX 0.12 on compiles a loop of elementwise work alone as one function, which
        # one thread then runs. A sort, of the counter with itself, keeps the loop from that.
        k = lax.sort(jnp.stack([k, k]))[0]
        for offset in range(unroll):
            carry = step(k * unroll, offset, carry)
        return carry

    turns, rest = divmod(n, unroll)
    carry = lax.fori_loop(0, turns, turn, init) if turns else init
    for offset in range(rest):
        carry = step(jnp.int32(turns * unroll), offset, carry)
    return carry
