"""A rule of mixed vectors."""

from dataclasses import dataclass

import jax
from jaxtyping import Array, Float

from medjax._products import dot
from medjax._promised import Promised, promise
from medjax._random import Seed, stage_key
from medjax._stacked import Stacked, Updates
from medjax._vectors import Vectors, vectors_of
from medjax.mixing import Mixing
from medjax.rules._geometric import Geometric
from medjax.rules._rule import Rule, check_rule


@dataclass(frozen=True)
class Premixed:
    """A rule whose vectors are mixed before. See `premixed`.

    Attributes:
        rule: the rule.
        mixings: what stands before it, the first first.
    """

    rule: Rule
    mixings: tuple[Mixing, ...]

    @property
    def name(self) -> str:
        """The mixings and the rule, in their order."""
        return ", ".join(x.name for x in (*self.mixings, self.rule))

    @property
    def needs_key(self) -> bool:
        """Whether a mixing or the rule draws."""
        return any(x.needs_key for x in (*self.mixings, self.rule))

    def __call__(self, updates: Promised | Stacked, key: Seed | None = None) -> Updates:
        """The aggregate of the mixed updates.

        Raises:
            ValueError, TypeError: as the mixings and the rule.
        """
        promised = promise(updates)
        given = vectors_of(promised)
        mixed, matrix = mix_vectors(given, self.mixings, key)
        if isinstance(self.rule, Geometric):
            # The mixed vectors are never written: their Gram matrix is all that is looked at.
            return promised.unflatten(given.weighted_sum(dot(self.rule.weigh(mixed, key), matrix)))
        rows = given.mixed(matrix).rows
        return self.rule(promised.unflatten(rows, matrix.shape[0]), key)


def premixed(rule: Rule, *mixings: Mixing) -> Rule:
    """The rule of the mixed vectors, as in `premixed(median(), nnm(1))`.

    Args:
        rule: any rule without a memory; before one with it, `medjax.mix` stands in the chain.
        mixings: stages of `medjax.mixing`, the first first; without any it is the rule itself.

    Raises:
        TypeError: if one isn't a rule without memory, or a mixing.
    """
    check_rule(rule)
    for mixing in mixings:
        if not isinstance(mixing, Mixing):
            raise TypeError(f"a mixing must be built, such as medjax.mixing.nnm(1); got {mixing!r}")
    return Premixed(rule, mixings) if mixings else rule


def mix_vectors(
    vectors: Vectors, mixings: tuple[Mixing, ...], key: Seed | None
) -> tuple[Vectors, Float[Array, "m n"]]:
    """The vectors after all mixings, and the matrix of all."""
    matrix: Array | None = None
    for i, mixing in enumerate(mixings):
        if mixing.needs_key and key is None:
            raise ValueError(f"{mixing.name} draws random numbers: give it a key")
        draw = None
        if mixing.needs_key and key is not None:
            draw = jax.random.fold_in(stage_key(key, "mixing"), i)
        step = mixing.matrix(vectors, draw)
        vectors = vectors.mixed(step)
        matrix = step if matrix is None else dot(step, matrix)
    assert matrix is not None
    return vectors, matrix
