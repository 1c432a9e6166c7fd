"""Stacked updates: pytrees whose every leaf has the workers along axis 0."""

from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

if TYPE_CHECKING:
    # jaxtyping's PyTree is an unknown type to type checkers, and strict ones report its every use.
    PyTree: TypeAlias = Any
    Stacked: TypeAlias = Any
    Updates: TypeAlias = Any
    Examples: TypeAlias = Any
else:
    from jaxtyping import PyTree as PyTree

    # Looser than it could be, so that `count_workers` reports mistakes in words.
    Stacked = PyTree[Shaped[Array | np.ndarray, "..."]]
    """The n workers' vectors: leaves (n, *shape) of floating-point numbers."""

    Updates = PyTree[Float[Array, "..."]]
    """One vector: leaves of the parameters' shapes."""

    Examples = PyTree[Shaped[Array | np.ndarray, "..."]]
    """Examples of one kind: arrays that share their leading axes."""


def count_workers(updates: Stacked, expected: int | None = None) -> int:
    """Return n, the common length of the leading axis of all leaves.

    Raises:
        ValueError: if there are no leaves or no workers, if leaves disagree on the number of
            workers, or if it isn't the expected one.
        TypeError: if a leaf doesn't hold real floating-point numbers.
    """
    leaves = jax.tree_util.tree_leaves_with_path(updates)
    if not leaves:
        raise ValueError("stacked updates need at least one array, got an empty pytree")
    for path, leaf in leaves:
        where = f"leaf {jax.tree_util.keystr(path)}" if path else "the array"
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"stacked updates must be floating point, {where} is {jnp.result_type(leaf)}"
            )
        if jnp.ndim(leaf) == 0:
            raise ValueError(f"stacked updates have the workers along axis 0, {where} is a scalar")
    sizes = {jnp.shape(leaf)[0] for _, leaf in leaves}
    if len(sizes) > 1:
        raise ValueError(f"leaves disagree on the number of workers: {sorted(sizes)}")
    (n,) = sizes
    if n == 0:
        raise ValueError("an aggregate needs at least 1 worker, got 0")
    if expected is not None and n != expected:
        raise ValueError(f"built for {expected} workers, got updates stacked from {n}")
    return n


def flatten(updates: Stacked) -> tuple[int, list[Array], Any]:
    """Return the number of workers, the leaves as JAX arrays, and the tree structure.

    Raises:
        ValueError, TypeError: as `count_workers`.
    """
    n = count_workers(updates)
    leaves, treedef = jax.tree.flatten(updates)
    return n, [jnp.asarray(leaf) for leaf in leaves], treedef


def nonfinite_rows(updates: Stacked) -> Bool[Array, " n"]:
    """Mark the workers whose vector has a NaN or ±∞."""
    n, leaves, _ = flatten(updates)
    return ~jnp.stack([jnp.isfinite(x).reshape(n, -1).all(axis=1) for x in leaves]).all(axis=0)
