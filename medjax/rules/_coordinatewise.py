"""Coordinate-wise rules: a function of the n numbers at each coordinate."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax import _checks
from medjax._kernels import order_statistics
from medjax._random import Seed
from medjax._stacked import Stacked, Updates, flatten


@dataclass(frozen=True)
class CoordinateWise:
    """The family of rules that treat every coordinate alike and apart.

    Attributes:
        name: the rule with its settings.
        reduce: one number for each column of an (n, d) matrix of float32 or float64. Checks n
            where the rule restricts it.
    """

    name: str
    reduce: Callable[[Float[Array, "n d"]], Float[Array, " d"]]

    @property
    def needs_key(self) -> bool:
        """False: a rule that drew couldn't be cut into blocks of coordinates unnoticed."""
        return False

    def __call__(self, updates: Stacked, key: Seed | None = None) -> Updates:
        """The aggregate of the stacked updates; `key` isn't used.

        Raises:
            ValueError, TypeError: if the updates aren't stacked floating-point arrays, or if the
                rule can't take so many workers.
        """
        del key
        n, leaves, treedef = flatten(updates)
        # A large program is compiled for each matrix that is reduced, so all leaves of one
        # precision are reduced as one matrix. Half precision is widened, which is exact.
        widened = [jnp.promote_types(leaf.dtype, jnp.float32) for leaf in leaves]
        aggregates: list[Array | None] = [None] * len(leaves)
        for dtype in dict.fromkeys(widened):
            members = [i for i, d in enumerate(widened) if d == dtype]
            columns = [leaves[i].reshape(n, -1).astype(dtype) for i in members]
            reduced = self.reduce(jnp.concatenate(columns, axis=1))
            start = 0
            for i, column in zip(members, columns, strict=True):
                part = reduced[start : start + column.shape[1]]
                aggregates[i] = part.reshape(leaves[i].shape[1:]).astype(leaves[i].dtype)
                start += column.shape[1]
        return jax.tree.unflatten(treedef, aggregates)


def median() -> CoordinateWise:
    """The coordinate-wise median; the midpoint of the middle two for even n (Yin et al., 2018).

    NaN counts as +∞, so the result is finite and within the range of the finite rows while fewer
    than half of the rows are non-finite.

    >>> print(median()(jnp.array([[1.0], [2.0], [10.0]])))
    [2.]
    """
    return CoordinateWise("median", order_statistics.median)


def trimmed_mean(num_byzantine: int) -> CoordinateWise:
    """Per coordinate, drop the f smallest and f largest, average the others (Yin et al., 2018).

    NaN counts as +∞, so the result is finite and within the range of the finite rows while at
    most f rows are non-finite.

    Args:
        num_byzantine: f, with 2f < n.

    Raises:
        TypeError: if f isn't a static integer.
        ValueError: if f is negative, or, when traced, if 2f >= n.

    >>> print(trimmed_mean(1)(jnp.array([[1.0], [2.0], [3.0], [100.0]])))
    [2.5]
    """
    f = _checks.integer("num_byzantine", num_byzantine, minimum=0)
    name = f"trimmed_mean(num_byzantine={f})"

    def reduce(x: Array) -> Array:
        n = x.shape[0]
        if 2 * f >= n:
            raise ValueError(f"{name} needs 2f < n, got f = {f} and n = {n} workers")
        return order_statistics.trimmed_mean(x, f)

    return CoordinateWise(name, reduce)
