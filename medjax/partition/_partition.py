"""What every partition is, and what all share."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Integer

from medjax._engine import checks

Labels = Integer[np.ndarray, " N"]
"""The class of each of the N examples."""

Parts = list[Int[np.ndarray, " _"]]
"""For each worker the indices of its examples, in order."""


@runtime_checkable
class Partition(Protocol):
    """Splits the examples among the workers."""

    def __call__(self, labels: Labels, num_workers: int, seed: int) -> Parts:
        """The sorted indices of each worker's examples.

        Raises:
            ValueError: if such a split doesn't exist; the message says why.
        """
        ...


def start(labels: Labels, num_workers: int, seed: int) -> np.random.Generator:
    """The generator of a split, once its arguments are checked."""
    n = checks.integer("num_workers", num_workers, minimum=1)
    if np.ndim(labels) != 1:
        raise ValueError(f"labels must be a list, got shape {np.shape(labels)}")
    if len(labels) < n:
        raise ValueError(f"{n} workers need at least {n} examples, there are {len(labels)}")
    return np.random.default_rng(checks.integer("seed", seed, minimum=0))


def in_order(parts: list[np.ndarray]) -> Parts:
    """Each part sorted."""
    return [np.sort(part) for part in parts]
