"""Helpers for rules: the weights of a mean, the median of a few numbers, random coordinates."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Key

from medjax._engine.precision import common_dtype
from medjax._engine.vectors import Rows


def mean_of_lowest(scores: Float[Array, " n"], count: int) -> Float[Array, " n"]:
    """Return the weights of the mean of the `count` vectors with the lowest scores.

    Args:
        scores: one floating-point number for each of the n vectors, none of them NaN. Ties go to
            the lowest index.
        count: the number of vectors to average, static, from 1 to n.

    Returns:
        The weights (n,), in the dtype of the scores: 1/count for the chosen vectors, else 0.

    >>> print(mean_of_lowest(jnp.array([3.0, 1.0, 2.0, 1.0]), count=2))
    [0.  0.5 0.  0.5]
    """
    chosen = lax.top_k(-scores, count)[1]
    return jnp.zeros(len(scores), scores.dtype).at[chosen].set(1 / count)


def mean_of(chosen: Bool[Array, " n"], dtype: jnp.dtype) -> Float[Array, " n"]:
    """Return the weights of the mean of the chosen vectors, or 0 for all if none is chosen.

    Args:
        chosen: the mask (n,) of the chosen vectors.
        dtype: the dtype of the weights, such as `Vectors.dtype`.

    Returns:
        The weights (n,): 1/k for the k chosen vectors, else 0.

    >>> print(mean_of(jnp.array([True, False, True]), jnp.float32))
    [0.5 0.  0.5]
    """
    return chosen.astype(dtype) / jnp.maximum(chosen.sum(), 1).astype(dtype)


def middle(values: Float[Array, " n"]) -> Float[Array, ""]:
    """Return the median of n numbers, for even n the midpoint of the middle two.

    Args:
        values: the numbers (n,); NaN is sorted to the end, like +∞.

    Returns:
        The median, a scalar; finite if fewer than half of the numbers are non-finite.

    >>> print(middle(jnp.array([4.0, jnp.nan, 1.0])))
    4.0
    """
    # For a single column, a sort compiles faster than `order_statistics`.
    n = len(values)
    ordered = jnp.sort(values)
    low, high = ordered[(n - 1) // 2], ordered[n // 2]
    return low + (high - low) / 2 if n % 2 == 0 else low


def sample_columns(rows: Rows, key: Key[Array, ""], count: int) -> Float[Array, "n _"]:
    """Return the vectors at random coordinates, drawn with replacement from all leaves together.

    Args:
        rows: the n vectors, a matrix (n, _) for each leaf, such as `Vectors.rows`.
        key: a JAX key.
        count: the number of coordinates to draw, static.

    Returns:
        A matrix (n, count), in the widest dtype of the leaves. If there are no more than `count`
        coordinates, nothing is drawn: the matrix has each of them once, in order.
    """
    size, dtype = sum(x.shape[1] for x in rows), common_dtype(*rows)
    rows = [x.astype(dtype) for x in rows]
    if size <= count:
        return jnp.concatenate(rows, axis=1)
    # With replacement: drawing distinct coordinates would sort as many numbers as there are.
    drawn = jax.random.randint(key, (count,), 0, size)
    sample = jnp.zeros((rows[0].shape[0], count), dtype)
    start = 0
    for x in rows:
        end = start + x.shape[1]
        if end > start:
            inside = (start <= drawn) & (drawn < end)
            sample = jnp.where(inside, jnp.take(x, drawn - start, axis=1, mode="clip"), sample)
        start = end
    return sample
