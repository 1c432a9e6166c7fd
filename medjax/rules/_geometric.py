"""Geometric rules: a weighted sum of the vectors, with weights from how they lie to each other."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Array, Float, Key

from medjax._promised import Promised, promise
from medjax._random import Seed, stage_key
from medjax._stacked import Stacked, Updates
from medjax._vectors import Vectors, vectors_of

Draw = Key[Array, ""] | None


@dataclass(frozen=True)
class Geometric:
    """The family of rules Σ_i w_i x_i, with weights from the Gram matrix of the vectors.

    Attributes:
        name: the rule with its settings.
        weights: (vectors, key) to the weights (n,). Checks n where the rule restricts it. The key
            is None unless `needs_key`.
        needs_key: whether the weights are drawn.
    """

    name: str
    weights: Callable[[Vectors, Draw], Float[Array, " n"]]
    needs_key: bool = False

    def __call__(self, updates: Promised | Stacked, key: Seed | None = None) -> Updates:
        """The aggregate of the stacked updates.

        Raises:
            ValueError, TypeError: if the updates aren't stacked floating-point arrays, if the rule
                can't take so many workers, or if it draws and no key is given.
        """
        promised = promise(updates)
        vectors = vectors_of(promised)
        return promised.unflatten(vectors.weighted_sum(self.weigh(vectors, key)))

    def weigh(self, vectors: Vectors, key: Seed | None) -> Float[Array, " n"]:
        """The weights of the vectors.

        Raises:
            ValueError: if the rule can't take so many workers, or draws and no key is given.
        """
        if not self.needs_key:
            return self.weights(vectors, None)
        if key is None:
            raise ValueError(f"{self.name} draws random numbers: give it a key")
        return self.weights(vectors, stage_key(key, "rule"))
