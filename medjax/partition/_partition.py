"""The type of a partition, and the steps that all partitions share."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Shaped

from medjax._engine import checks

Labels = Shaped[np.ndarray, " N"] | Sequence[int] | Sequence[str]
"""The class or the client of each of the N examples: integers (perhaps as floats), or names."""

Parts = list[Int[np.ndarray, " _"]]
"""The sorted indices of each worker's examples."""


@runtime_checkable
class Partition(Protocol):
    """Splits the examples among the workers."""

    def __call__(self, labels: Labels, num_workers: int, seed: int) -> Parts:
        """Return the sorted indices of each worker's examples.

        Raises:
            ValueError: if such a split doesn't exist; the message says why. Also if the labels
                aren't one list, or one of them isn't a whole number.
            TypeError: if the labels are neither numbers nor names.
        """
        ...


def prepare(
    labels: Labels, num_workers: int, seed: int
) -> tuple[Shaped[np.ndarray, " N"], np.random.Generator]:
    """Check a partition's arguments; return the labels as an array, and a generator."""
    n = checks.integer("num_workers", num_workers, minimum=1)
    array = np.asarray(labels)
    if array.ndim != 1:
        raise ValueError(f"labels must be a list, got shape {array.shape}")
    array = _exact(array)
    if len(array) < n:
        raise ValueError(f"{n} workers need at least {n} examples, there are {len(array)}")
    return array, np.random.default_rng(checks.integer("seed", seed, minimum=0))


def in_order(parts: list[np.ndarray]) -> Parts:
    """Sort each part."""
    return [np.sort(part) for part in parts]


def _exact(labels: np.ndarray) -> Shaped[np.ndarray, " N"]:
    """Return integers and names as they are, and whole floats as integers."""
    # JAX's issubdtype knows bfloat16.
    if jnp.issubdtype(labels.dtype, jnp.integer) or labels.dtype.kind in "US":
        return labels
    if labels.dtype == bool:
        return labels.astype(np.int64)
    if not jnp.issubdtype(labels.dtype, jnp.floating):
        raise TypeError(f"labels must be integers or names, got dtype {labels.dtype}")
    numbers = labels.astype(np.float64)
    # Beyond 2^63 they are whole, but no int64. Comparisons with NaN are false.
    valid = (numbers == np.floor(numbers)) & (np.abs(numbers) < 2.0**63)
    if not np.all(valid):
        index = int(np.argmin(valid))
        raise ValueError(f"labels must be integers, got {labels[index]!s} at index {index}")
    return numbers.astype(np.int64)
