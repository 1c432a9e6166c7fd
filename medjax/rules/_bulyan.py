"""Bulyan: a coordinate-wise rule applied to the vectors that Krum's scores select."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax._engine import checks
from medjax._engine.kernels import order_statistics
from medjax._engine.kernels.nearest import mean_nearest
from medjax._engine.lazy import as_lazy
from medjax._engine.random import Seed
from medjax._engine.stacked import Stacked, Updates
from medjax._engine.vectors import Vectors, vectors_of
from medjax.rules._coordinatewise import CoordinateWise
from medjax.rules._krum import lowest_scores


@dataclass(frozen=True)
class Selected:
    """A coordinate-wise rule applied to the vectors that a selection keeps.

    Attributes:
        select: vectors to the selection, a matrix (m, n) with a single 1 in each row.
        rule: the rule of the selected vectors, under whose name both go.
    """

    select: Callable[[Vectors], Float[Array, "m n"]]
    rule: CoordinateWise

    @property
    def name(self) -> str:
        """The name of the rule with its settings."""
        return self.rule.name

    @property
    def needs_key(self) -> bool:
        """False: nothing is drawn."""
        return False

    def __call__(self, updates: Stacked, key: Seed | None = None) -> Updates:
        """Aggregate the stacked updates; `key` isn't used.

        Raises:
            ValueError, TypeError: if the updates aren't stacked floating-point arrays, or if the
                rule can't take so many workers.
        """
        del key
        lazy = as_lazy(updates)
        vectors = vectors_of(lazy)
        selection = self.select(vectors)
        return self.rule(lazy.unflatten(vectors.mixed(selection).rows, len(selection)))


def bulyan(num_byzantine: int) -> Selected:
    """Bulyan: select n - 2f vectors, then per coordinate average the n - 4f nearest their median.

        (1/(n - 4f)) Σ_{i ∈ T} x_i, T = the n - 4f indices in S with x_i nearest median_{j ∈ S} x_j.

    S contains the n - 2f vectors with the lowest scores of `krum`. The scores are computed once,
    whereas El Mhamdi et al. (2018) recompute them after each selection. A vector with NaN or ±∞ is
    infinitely far from all others, so none is selected while at most f are non-finite.

    Args:
        num_byzantine: f, with n >= 4f + 3.

    Raises:
        TypeError: if f isn't a static integer.
        ValueError: if f is negative; when called, if n < 4f + 3.

    >>> x = jnp.array([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [99.0]])
    >>> print(bulyan(1)(x))
    [3.]
    """
    f = checks.integer("num_byzantine", num_byzantine, minimum=0)
    name = f"bulyan(num_byzantine={f})"

    def select(vectors: Vectors) -> Array:
        n = vectors.num_workers
        if n < 4 * f + 3:
            raise ValueError(f"{name} needs n >= 4f + 3, got f = {f} and n = {n} workers")
        chosen = lowest_scores(name, vectors, f, None, n - 2 * f)
        return (jnp.arange(n, dtype=chosen.dtype)[None] == chosen[:, None]).astype(vectors.dtype)

    def reduce(x: Array) -> Array:
        return mean_nearest(x, order_statistics.median(x), len(x) - 2 * f)

    return Selected(select, CoordinateWise(name, reduce))
