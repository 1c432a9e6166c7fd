"""Sums over the worker axis that avoid XLA's slow leading-axis reduction on the CPU."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PyTree

Rows = TypeVar("Rows", bound=PyTree)


def sum_over_rows(encode: Callable[[Rows], Array], rows: Rows) -> Array:
    """Σ_i encode(rows[i]), row by row in order, without writing the encoded rows.

    The accumulator stays in cache, and `encode` is fused into the pass over the rows.

    Args:
        encode: maps one row (a pytree without the leading axis) to an array of fixed shape.
        rows: a pytree whose leaves share a leading axis of length n >= 1.
    """
    first = jax.tree.map(lambda leaf: leaf[0], rows)
    shape = jax.eval_shape(encode, first)

    def add(total: Array, row: Rows) -> tuple[Array, None]:
        return total + encode(row), None

    return lax.scan(add, jnp.zeros(shape.shape, shape.dtype), rows)[0]
