"""What every rule is, whatever its family."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from medjax._random import Seed
from medjax._stacked import Stacked, Updates


@runtime_checkable
class Rule(Protocol):
    """A pure function of the stacked updates, made by a factory of `medjax.rules`."""

    @property
    def name(self) -> str:
        """The rule with its settings, as in 'trimmed_mean(num_byzantine=2)'."""
        ...

    @property
    def needs_key(self) -> bool:
        """Whether the rule draws random numbers, and so must be given a key."""
        ...

    def __call__(self, updates: Stacked, key: Seed | None = None) -> Updates:
        """The aggregate, without the leading axis; each leaf keeps its dtype."""
        ...


@dataclass(frozen=True)
class StatefulRule:
    """A rule that remembers: `medjax.aggregate` keeps its state in the chain's.

    Attributes:
        name: the rule with its settings.
        init: the parameters, or a pytree of their shapes, to the state before the first step.
        update: (stacked updates, state, parameters) to the aggregate and the next state.
        knows_workers: whether the state is of each worker, so that they must be the same at every
            step: no cohorts, and no mixing before it.
    """

    name: str
    init: Callable[[Updates], Any]
    update: Callable[[Stacked, Any, Updates | None], tuple[Updates, Any]]
    knows_workers: bool = False


def check_rule(rule: object) -> None:
    """Check that it is a rule without memory.

    Raises:
        TypeError: if not.
    """
    if isinstance(rule, StatefulRule):
        raise TypeError(f"rule must be one without memory, got {rule.name}")
    if not isinstance(rule, Rule):
        raise TypeError(f"rule must be built, such as medjax.rules.median(); got {rule!r}")


def zero_state(params: Updates, *leading: int) -> Updates:
    """0 in the shapes of the parameters, perhaps with leading axes, in float32 at least.

    What a state starts from that holds sums: in half precision they would stop growing.
    """

    def zeros(p: Any) -> Array:
        dtype = jnp.promote_types(jnp.result_type(p), jnp.float32)
        return jnp.zeros((*leading, *p.shape), dtype)

    return jax.tree.map(zeros, params)
