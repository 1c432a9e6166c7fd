"""Coordinate-wise rules: a function of the n numbers at each coordinate."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from medjax._engine import checks
from medjax._engine.kernels import order_statistics
from medjax._engine.kernels.columns import NETWORK_MAX_ROWS
from medjax._engine.kernels.nearest import mean_nearest
from medjax._engine.lazy import as_lazy
from medjax._engine.mesh import Axes, from_columns, to_columns
from medjax._engine.precision import at_least_float32
from medjax._engine.random import Seed
from medjax._engine.stacked import Stacked, Updates


@dataclass(frozen=True)
class CoordinateWise:
    """The family of rules that apply one function to each coordinate separately.

    Attributes:
        name: the rule with its settings.
        reduce: an (n, d) matrix of float32 or float64 to one number for each column. Checks n
            where the rule restricts it.
    """

    name: str
    reduce: Callable[[Float[Array, "n d"]], Float[Array, " d"]]

    @property
    def needs_key(self) -> bool:
        """False: draws would depend on how the coordinates are split into blocks."""
        return False

    def __call__(self, updates: Stacked, key: Seed | None = None) -> Updates:
        """Aggregate the stacked updates; `key` isn't used.

        Raises:
            ValueError, TypeError: if the updates aren't stacked floating-point arrays, or if the
                rule doesn't allow this number of workers.
        """
        del key
        lazy = as_lazy(updates)

        def reduce_leaves(leaves: list[Array], names: Axes) -> list[Array]:
            def reduce(groups: list[list[int]], leaves: list[Array]) -> list[Array]:
                aggregate: list[Array] = list(leaves)
                for group in groups:
                    columns = [leaves[i].astype(_working_dtype(leaves[i])) for i in group]
                    ends = np.cumsum([x.shape[1] for x in columns])
                    matrix = to_columns(jnp.concatenate(columns, axis=1), lazy.num_workers, names)
                    reduced = from_columns(self.reduce(matrix), int(ends[-1]), names)
                    for i, part in zip(group, jnp.split(reduced, ends[:-1]), strict=True):
                        aggregate[i] = part
                return aggregate

            apart = partial(reduce, _groups(leaves, largest_alone=True))
            together = partial(reduce, _groups(leaves, largest_alone=False))
            in_network = lazy.num_workers <= NETWORK_MAX_ROWS
            return lax.platform_dependent(
                leaves, cpu=apart, cuda=apart if in_network else together, default=together
            )

        return lazy.unflatten(lazy.map(reduce_leaves, "all"))


def _groups(leaves: list[Float[Array, "n _"]], *, largest_alone: bool) -> list[list[int]]:
    """Return the groups of leaves, by index, that are each reduced as one matrix.

    Every group compiles a large program, so all leaves of one precision are in one group.

    Args:
        leaves: the leaves.
        largest_alone: whether a leaf with more than half of the coordinates is a group by itself.
            Copying it into a matrix costs a CPU more than a second program, and a GPU as much as a
            whole network in registers; but little beside many passes over it, each several kernels.
    """
    groups: dict[object, list[int]] = {}
    for i, leaf in enumerate(leaves):
        is_alone = largest_alone and 2 * leaf.shape[1] > sum(x.shape[1] for x in leaves)
        groups.setdefault("alone" if is_alone else _working_dtype(leaf), []).append(i)
    return list(groups.values())


def _working_dtype(x: Array) -> jnp.dtype:
    """Return the dtype to compute in, float32 at least; half precision is widened exactly."""
    return at_least_float32(x.dtype)


def median() -> CoordinateWise:
    """The coordinate-wise median; the midpoint of the middle two for even n (Yin et al., 2018).

        x_((n+1)/2) for odd n, else (x_(n/2) + x_(n/2+1))/2, where x_(1) ≤ ... ≤ x_(n).

    NaN counts as +∞, so the result is finite and within the range of the finite rows while fewer
    than half of the rows are non-finite.

    >>> print(median()(jnp.array([[1.0], [2.0], [10.0]])))
    [2.]
    """
    return CoordinateWise("median", order_statistics.median)


def trimmed_mean(num_byzantine: int) -> CoordinateWise:
    """The mean per coordinate without the f smallest and f largest values (Yin et al., 2018).

        (x_(f+1) + ... + x_(n-f))/(n - 2f), where x_(1) ≤ ... ≤ x_(n).

    NaN counts as +∞, so the result is finite and within the range of the finite rows while at most
    f rows are non-finite.

    Args:
        num_byzantine: f, with 2f < n.

    Raises:
        TypeError: if f isn't a static integer.
        ValueError: if f is negative; when called, if 2f >= n.

    >>> print(trimmed_mean(1)(jnp.array([[1.0], [2.0], [3.0], [100.0]])))
    [2.5]
    """
    f = checks.integer("num_byzantine", num_byzantine, minimum=0)
    name = f"trimmed_mean(num_byzantine={f})"

    def reduce(x: Array) -> Array:
        checks.honest_majority(name, f, len(x))
        return order_statistics.trimmed_mean(x, f)

    return CoordinateWise(name, reduce)


def meamed(num_byzantine: int) -> CoordinateWise:
    """Mean around median: per coordinate, the mean of the n - f values nearest the median.

        (1/(n - f)) Σ_{i ∈ S} x_i, S = the indices of the n - f smallest |x_i - median_j x_j|.

    The rule is from Xie et al. (2018), "Generalized Byzantine-tolerant SGD". If values on both
    sides of the median are equally near and not all can be kept, the result is midway between
    keeping as many of the lower ones as possible and as many of the upper ones. NaN and ±∞ are
    infinitely far: while at most f rows are non-finite, the result is finite and no farther from
    the median than the farthest finite row.

    Args:
        num_byzantine: f, with 2f < n.

    Raises:
        TypeError: if f isn't a static integer.
        ValueError: if f is negative; when called, if 2f >= n.

    >>> print(meamed(1)(jnp.array([[1.0], [3.0], [4.0], [5.0], [100.0]])))
    [3.25]
    """
    f = checks.integer("num_byzantine", num_byzantine, minimum=0)
    return _mean_around(f"meamed(num_byzantine={f})", f, order_statistics.median)


def phocas(num_byzantine: int) -> CoordinateWise:
    """The mean per coordinate of the n - f values nearest the trimmed mean (Xie et al., 2018).

        (1/(n - f)) Σ_{i ∈ S} x_i, S = the indices of the n - f smallest |x_i - trimmed_mean_j x_j|.

    Ties, NaN and ±∞ are treated as in `meamed`.

    Args:
        num_byzantine: f, with 2f < n.

    Raises:
        TypeError: if f isn't a static integer.
        ValueError: if f is negative; when called, if 2f >= n.

    >>> print(phocas(1)(jnp.array([[1.0], [3.0], [4.0], [5.0], [100.0]])))
    [3.25]
    """
    f = checks.integer("num_byzantine", num_byzantine, minimum=0)
    return _mean_around(
        f"phocas(num_byzantine={f})", f, lambda x: order_statistics.trimmed_mean(x, f)
    )


def _mean_around(
    name: str, f: int, center: Callable[[Float[Array, "n d"]], Float[Array, " d"]]
) -> CoordinateWise:
    """Build the rule that averages the n - f values nearest the centre."""

    def reduce(x: Array) -> Array:
        checks.honest_majority(name, f, len(x))
        return mean_nearest(x, center(x), len(x) - f)

    return CoordinateWise(name, reduce)
