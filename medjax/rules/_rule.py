"""The kind of rules: pure functions of the stacked updates, built or plain."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax._engine.lazy import as_lazy
from medjax._engine.plain import accepts_key, check_function, joined, name_of, parted, takes
from medjax._engine.precision import at_least_float32
from medjax._engine.random import Seed, stage_key
from medjax._engine.stacked import Stacked, Updates


@runtime_checkable
class Rule(Protocol):
    """A pure function of the stacked updates, made by a factory of `medjax.rules`."""

    @property
    def name(self) -> str:
        """The rule with its settings, as in 'trimmed_mean(num_byzantine=2)'."""
        ...

    @property
    def needs_key(self) -> bool:
        """True if the rule draws random numbers and so must be given a key."""
        ...

    def __call__(self, updates: Stacked, key: Seed | None = None) -> Updates:
        """Return the aggregate, without the leading axis; each leaf keeps its dtype."""
        ...


PlainRule: TypeAlias = Callable[..., Float[Array, " d"]]
"""(vectors (n, d)), or (vectors (n, d), key), to their aggregate (d,)."""


@dataclass(frozen=True)
class StatefulRule:
    """A rule with a memory, which `medjax.aggregate` keeps in the chain's state.

    Or one that looks at the parameters, as `fltrust` does, and remembers nothing.

    Attributes:
        name: the rule with its settings.
        init: the parameters, or a pytree of their shapes, to the state before the first step.
        update: (stacked updates, state, parameters) to the aggregate and the next state.
        knows_workers: whether the state belongs to single workers, who must then be the same at
            every step: no cohorts, and no mixing before the rule.
    """

    name: str
    init: Callable[[Updates], Any]
    update: Callable[[Stacked, Any, Updates | None], tuple[Updates, Any]]
    knows_workers: bool = False


@dataclass(frozen=True)
class FromFunction:
    """A rule made of a plain function.

    Such a rule needs all n vectors at once, on every device. A member of a family (`Additive`,
    `CoordinateWise`, `Geometric`) also streams or shards.

    Attributes:
        function: (vectors (n, d)) to their aggregate (d,); or (vectors, key), if it has an argument
            called `key`. The leaves of an update are joined to one vector of d numbers, in float32
            at least.
        flat: False for a function of the stacked updates as they are, leaves (n, *shape), to an
            update, leaves (*shape).

    >>> print(FromFunction(lambda x: jnp.median(x, axis=0))(jnp.array([[1.0], [2.0], [9.0]])))
    [2.]
    """

    function: PlainRule
    flat: bool = True

    @property
    def name(self) -> str:
        """The name of the function."""
        return name_of(self.function)

    @property
    def needs_key(self) -> bool:
        """True if the function has an argument called `key`."""
        return accepts_key(self.function)

    def __call__(self, updates: Stacked, key: Seed | None = None) -> Updates:
        """Aggregate the stacked updates.

        Raises:
            ValueError, TypeError: if the updates aren't stacked floating-point arrays, if the
                function returns another shape, or if it takes a key and none is given.
        """
        lazy = as_lazy(updates)
        draw = {}
        if self.needs_key:
            if key is None:
                raise ValueError(f"{self.name} draws random numbers: give it a key")
            draw = {"key": stage_key(key, "rule")}
        given: Any = lazy.stacked()
        if self.flat:
            given = joined(lazy.rows())
            given = given.astype(at_least_float32(given.dtype))
        aggregate = jax.tree.map(jnp.asarray, self.function(given, **draw))
        found = jax.tree.map(jnp.shape, aggregate)
        wanted = jax.tree.map(lambda x: x.shape[1:], given)
        # Equal dictionaries may still differ in the order of their leaves.
        if found != wanted or jax.tree.structure(aggregate) != jax.tree.structure(given):
            raise ValueError(
                f"rule {self.name} must drop the worker axis and return shape {wanted}, got {found}"
            )
        leaves = parted(aggregate, lazy.like) if self.flat else jax.tree.leaves(aggregate)
        return lazy.unflatten(leaves)


def as_rule(rule: object) -> Rule | StatefulRule:
    """Return a built rule as it is, and a plain function as a rule.

    Raises:
        TypeError: if it is neither (`rules.median` in place of `rules.median()`).
    """
    if isinstance(rule, StatefulRule):
        return rule
    # The class `FromFunction` has all the attributes of a rule, and so has an attack.
    if isinstance(rule, Rule) and not isinstance(rule, type) and takes(rule, 1):
        return rule
    check_function("rule", rule, 1, "medjax.rules.median()")
    return FromFunction(rule)  # pyright: ignore[reportArgumentType]


def as_rule_without_memory(rule: object) -> Rule:
    """Return a rule as `as_rule` does, unless it has a memory.

    Raises:
        TypeError: if it has, or as `as_rule`.
    """
    rule = as_rule(rule)
    if isinstance(rule, StatefulRule):
        raise TypeError(f"rule must be one without memory, got {rule.name}")
    return rule


def zero_state(params: Updates, *leading: int) -> Updates:
    """Return 0 in the shapes of the parameters, perhaps with leading axes, in float32 at least.

    States that hold sums start from it: in half precision these would stop growing.
    """

    def zeros(p: Any) -> Array:
        dtype = at_least_float32(jnp.result_type(p))
        return jnp.zeros((*leading, *p.shape), dtype)

    return jax.tree.map(zeros, params)
