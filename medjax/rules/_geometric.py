"""Geometric rules: a weighted sum of the vectors, with weights from their Gram matrix."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Array, Float

from medjax._engine.lazy import as_lazy
from medjax._engine.random import MaybeKey, Seed, stage_key
from medjax._engine.stacked import Stacked, Updates
from medjax._engine.vectors import Vectors, vectors_of


@dataclass(frozen=True)
class Geometric:
    """The family of rules Σ_i w_i x_i, with weights from the Gram matrix of the vectors.

    Lengths and distances whose squares underflow, below about 10^-19 in float32, count as 0.

    Attributes:
        name: the rule with its settings.
        weights: (vectors, key) to the weights (n,). Checks n where the rule restricts it. The key
            is None unless `needs_key`.
        needs_key: whether the weights depend on random numbers.
    """

    name: str
    weights: Callable[[Vectors, MaybeKey], Float[Array, " n"]]
    needs_key: bool = False

    def __call__(self, updates: Stacked, key: Seed | None = None) -> Updates:
        """Aggregate the stacked updates.

        Raises:
            ValueError, TypeError: if the updates aren't stacked floating-point arrays, if the rule
                doesn't allow this number of workers, or if it draws and no key is given.
        """
        lazy = as_lazy(updates)
        vectors = vectors_of(lazy)
        return lazy.unflatten(vectors.weighted_sum(self.weigh(vectors, key)))

    def weigh(self, vectors: Vectors, key: Seed | None) -> Float[Array, " n"]:
        """Return the weights of the vectors.

        Raises:
            ValueError: if the rule doesn't allow this number of workers, or if it draws and no key
                is given.
        """
        if not self.needs_key:
            return self.weights(vectors, None)
        if key is None:
            raise ValueError(f"{self.name} draws random numbers: give it a key")
        return self.weights(vectors, stage_key(key, "rule"))
