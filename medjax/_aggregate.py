"""The server's aggregation: the stage of a chain that drops the worker axis."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key
from optax.experimental import aggregating

from medjax._promised import promise
from medjax._random import Seed, stage_key
from medjax._stacked import Stacked, Updates
from medjax.rules import Additive, Rule, StatefulRule
from medjax.rules._rule import check_rule


class AggregateState(NamedTuple):
    """The step and the key of a rule that draws random numbers."""

    step: Int[Array, ""]
    key: Key[Array, ""]


def aggregate(rule: Rule | StatefulRule, key: Seed | None = None) -> aggregating.Aggregator:
    """Apply a rule: stacked updates, leaves `(n, *shape)`, to one update, leaves `(*shape)`.

    Whatever stands before it in an `optax.chain` sees the workers' vectors, whatever stands after
    it sees the server's: any optax optimizer.

    Args:
        rule: a rule of `medjax.rules`, such as `rules.median()`; of one that remembers, the state
            is kept in the chain's.
        key: a JAX key or an integer seed, for a rule that draws random numbers.

    Returns:
        An optax `Aggregator`, which is a `GradientTransformationExtraArgs`.

    Raises:
        ValueError: if the rule draws random numbers and no key is given.
        TypeError: if `rule` isn't a rule (`rules.median()`, not `rules.median`).
    """
    if isinstance(rule, StatefulRule):
        return aggregating.Aggregator(
            init=lambda params: rule.init(params),
            update=lambda updates, state, params=None, **extra_args: rule.update(
                promise(updates).stacked(), state, params
            ),
        )
    check_rule(rule)
    if not rule.needs_key:
        return aggregating.Aggregator(
            init=lambda params: optax.EmptyState(),
            update=lambda updates, state, params=None, **extra_args: (
                _of_those_present(rule, **extra_args)(updates),
                state,
            ),
        )
    if key is None:
        raise ValueError(f"{rule.name} draws random numbers: give aggregate a key")

    def init(params: optax.Params) -> AggregateState:
        del params
        return AggregateState(jnp.zeros([], jnp.int32), stage_key(key, "aggregate"))

    def update(
        updates: Stacked,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[Updates, AggregateState]:
        del params, extra_args
        aggregated = rule(updates, jax.random.fold_in(state.key, state.step))
        return aggregated, AggregateState(state.step + 1, state.key)

    return aggregating.Aggregator(init=init, update=update)


def _of_those_present(
    rule: Rule,
    *,
    workers: Int[Array, " m"] | None = None,
    num_workers: int | None = None,
    **extra_args: Any,
) -> Rule:
    """The rule of these workers, whose vectors it is to be given."""
    del extra_args
    if not isinstance(rule, Additive) or rule.of is None or workers is None or num_workers is None:
        return rule
    return rule.of(workers, num_workers)
