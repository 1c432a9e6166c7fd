"""What several rules choose by: the lowest of some numbers, the middle of some, random columns."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from medjax._engine.vectors import Rows


def mean_of_lowest(scores: Float[Array, " n"], count: int) -> Float[Array, " n"]:
    """The weights of the mean of those with the lowest scores; of equal ones the lowest index."""
    chosen = lax.top_k(-scores, count)[1]
    return jnp.zeros(len(scores), scores.dtype).at[chosen].set(1 / count)


def mean_of(chosen: Array, dtype: jnp.dtype) -> Float[Array, " n"]:
    """The weights of the mean of those that are chosen, or 0 for all if none is."""
    return chosen.astype(dtype) / jnp.maximum(chosen.sum(), 1).astype(dtype)


def middle(values: Float[Array, " n"]) -> Float[Array, ""]:
    """The median, the midpoint of two for even n; NaN counts as +∞.

    A sort: for a single column it is the fastest to compile.
    """
    n = len(values)
    ordered = jnp.sort(values)
    low, high = ordered[(n - 1) // 2], ordered[n // 2]
    return low + (high - low) / 2 if n % 2 == 0 else low


def sample_columns(rows: Rows, key: Key[Array, ""], count: int) -> Float[Array, "n _"]:
    """The vectors at random coordinates, of all leaves together, drawn with replacement.

    All coordinates, in order, if there are no more than `count`. With replacement, because to draw
    distinct ones is to sort as many numbers as there are coordinates.
    """
    size = sum(x.shape[1] for x in rows)
    if size <= count:
        return jnp.concatenate(rows, axis=1)
    drawn = jax.random.randint(key, (count,), 0, size)
    sample = jnp.zeros((rows[0].shape[0], count), jnp.result_type(*rows))
    start = 0
    for x in rows:
        end = start + x.shape[1]
        if end > start:
            inside = (start <= drawn) & (drawn < end)
            sample = jnp.where(inside, jnp.take(x, drawn - start, axis=1, mode="clip"), sample)
        start = end
    return sample
