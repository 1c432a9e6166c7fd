"""Coordinate-wise statistics of the honest vectors, each from one pass over them."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax._engine.kernels.rows import reduce_rows
from medjax._engine.kernels.sums import Row
from medjax._engine.lazy import as_lazy
from medjax.attacks._attack import Honest

# The loop over rows reads and writes its three totals once per turn, not once per row.
_UNROLLED_ROWS = 8


def mean(honest: Honest) -> Row:
    """Return μ = (1/h) Σ_i x_i."""
    sums = _sum(lambda row: row, honest)
    return [t / x.shape[0] for t, x in zip(sums, honest, strict=True)]


def mean_and_std(name: str, honest: Honest) -> tuple[Row, Row]:
    """Return μ and σ = √(Σ_i (x_i - μ)²/(h - 1)), computed from the deviations.

    Raises:
        ValueError: if there is only one honest worker. The message names the attack, `name`.
    """
    h = honest[0].shape[0]
    if h < 2:
        raise ValueError(f"{name} needs at least 2 honest workers for a sample deviation, got {h}")
    center = mean(honest)
    squares = _sum(lambda row: [(x - m) ** 2 for x, m in zip(row, center, strict=True)], honest)
    return center, [jnp.sqrt(s / (h - 1)) for s in squares]


def total_and_range(
    x: Float[Array, "h d"],
) -> tuple[Float[Array, " d"], Float[Array, " d"], Float[Array, " d"]]:
    """Return Σ_i x_i, min_i x_i and max_i x_i, from one pass over the rows."""
    start = [jnp.full(x.shape[1:], value, x.dtype) for value in (0, jnp.inf, -jnp.inf)]
    total, low, high = reduce_rows(
        lambda row: [row] * 3, [x], start, ("sum", "min", "max"), unroll=_UNROLLED_ROWS
    )
    return total, low, high


def _sum(f: Callable[[Row], Row], honest: Honest) -> Row:
    return as_lazy(honest).sum(lambda row, worker: f(row))
