"""The workers' data, of unequal sizes, in one array."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from medjax._engine.stacked import Examples


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WorkerData:
    """All workers' examples in one array.

    Workers may have different numbers of examples. Each is given as many rows as the largest has; a
    smaller worker's rows beyond its own repeat them in order. These rows are padding: `simulate`
    never draws them into a mini-batch and gives them weight 0 in a full batch. So f_i is the
    average over worker i's examples, whatever their number, and f = (1/n) Σ_i f_i weighs all
    workers alike, as in the paper.

    Attributes:
        examples: a pytree of arrays (n, m, ...), m the largest worker's number of examples.
        sizes: (n,), how many of its m rows are worker i's own.
        padding: the number of workers without examples that follow the n workers, so that the
            devices of a mesh divide them all; see `sharding.place_workers`. Static.
        num_byzantine: the number of last workers whose examples an attack has changed; metrics
            leave them out. Static.
    """

    examples: Examples
    sizes: Int[Array, " n"]
    padding: int = field(default=0, metadata={"static": True})
    num_byzantine: int = field(default=0, metadata={"static": True})

    @property
    def num_workers(self) -> int:
        """The number of workers, n, without the padding."""
        return len(self.sizes) - self.padding


def stack_workers(
    examples: Examples,
    parts: Sequence[Int[np.ndarray, " _"] | Sequence[int]],
) -> WorkerData:
    """Give each worker its part of the examples.

    Args:
        examples: a pytree of arrays that share their first axis, such as (images, labels).
        parts: the indices of each worker's examples, as `medjax.partition` makes them.

    Raises:
        ValueError: if there are no parts, if a part is empty, if an index is out of range, or if
            the arrays have different numbers of examples.
        TypeError: if an index isn't an integer.

    >>> data = stack_workers(np.array([10, 20, 30]), [np.array([2]), np.array([0, 1])])
    >>> data.examples.tolist(), data.sizes.tolist()
    ([[30, 30], [10, 20]], [1, 2])
    """
    sizes = np.array([len(part) for part in parts], dtype=np.int32)
    if sizes.size == 0 or sizes.min() == 0:
        raise ValueError(f"every worker needs at least 1 example, got sizes {sizes.tolist()}")
    rows = np.stack([np.resize(part, sizes.max()) for part in parts])
    if not np.issubdtype(rows.dtype, np.integer):
        raise TypeError(f"the parts must be integer indices, got {rows.dtype}")

    lengths = sorted({len(array) for array in jax.tree.leaves(examples)})
    if len(lengths) != 1:
        raise ValueError(f"the arrays must have the same number of examples, got {lengths}")
    if rows.min() < 0 or rows.max() >= lengths[0]:
        raise ValueError(f"the parts name examples outside 0, ..., {lengths[0] - 1}")
    stacked = jax.tree.map(lambda array: jnp.asarray(np.asarray(array)[rows]), examples)
    return WorkerData(stacked, jnp.asarray(sizes))
