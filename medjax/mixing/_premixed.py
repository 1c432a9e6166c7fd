"""Rules of mixed vectors."""

from dataclasses import dataclass

import jax
from jaxtyping import Array, Float

from medjax._engine.gram import dot
from medjax._engine.lazy import as_lazy
from medjax._engine.random import Seed, stage_key
from medjax._engine.stacked import Stacked, Updates
from medjax._engine.vectors import Vectors, vectors_of
from medjax.mixing._mixings import Mixing, PlainMixing, as_mixing
from medjax.rules import Geometric, PlainRule, Rule
from medjax.rules._rule import as_rule_without_memory


@dataclass(frozen=True)
class Premixed:
    """A rule with mixing stages before it. See `premixed`.

    Attributes:
        rule: the rule.
        mixings: the stages, in the order in which they apply.
    """

    rule: Rule
    mixings: tuple[Mixing, ...]

    @property
    def name(self) -> str:
        """The mixings and the rule, in their order."""
        return ", ".join(x.name for x in (*self.mixings, self.rule))

    @property
    def needs_key(self) -> bool:
        """True if a mixing or the rule draws random numbers."""
        return any(x.needs_key for x in (*self.mixings, self.rule))

    def __call__(self, updates: Stacked, key: Seed | None = None) -> Updates:
        """Aggregate the mixed updates.

        Raises:
            ValueError, TypeError: as the mixings and the rule.
        """
        lazy = as_lazy(updates)
        given = vectors_of(lazy)
        mixed, matrix = mix_vectors(given, self.mixings, key)
        if isinstance(self.rule, Geometric):
            # The mixed vectors are never written: the rule looks at their Gram matrix alone.
            return lazy.unflatten(given.weighted_sum(dot(self.rule.weigh(mixed, key), matrix)))
        # By the product of the matrices: one pass over the vectors, however many mixings.
        return self.rule(lazy.unflatten(given.mixed(matrix).rows, matrix.shape[0]), key)


def premixed(rule: Rule | PlainRule, *mixings: Mixing | PlainMixing) -> Rule:
    """Put mixing stages before a rule, as in `premixed(rules.median(), nnm(1))`.

    The same as `medjax.mix` and `medjax.aggregate` in a chain, up to rounding, and faster before a
    geometric rule. There a vector whose square overflows (from a length of 10^16 to 10^18 on in
    float32, by n) counts as infinitely far, even if a mixing clips it.

    Args:
        rule: any rule without a memory; before one with it, `medjax.mix` stands in the chain.
        mixings: stages of `medjax.mixing`, in the order in which they apply; none gives the rule
            itself.

    Raises:
        TypeError: if one isn't a rule without memory, or a mixing.
    """
    built = as_rule_without_memory(rule)
    stages = tuple(map(as_mixing, mixings))
    return Premixed(built, stages) if stages else built


def mix_vectors(
    vectors: Vectors, mixings: tuple[Mixing, ...], key: Seed | None
) -> tuple[Vectors, Float[Array, "m n"]]:
    """Apply all mixings, and return the mixed vectors and the product of the matrices."""
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
