"""The server's aggregation: the stage of a chain that drops the worker axis."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key
from optax.experimental import aggregating

from medjax._engine.random import Seed, stage_key
from medjax._engine.stacked import Stacked, Updates
from medjax.rules._additive import Additive
from medjax.rules._rule import PlainRule, Rule, StatefulRule, as_rule


class AggregateState(NamedTuple):
    """The step and the key of a stage that draws random numbers."""

    step: Int[Array, ""]
    key: Key[Array, ""]


def aggregate(
    rule: Rule | StatefulRule | PlainRule, key: Seed | None = None
) -> optax.GradientTransformationExtraArgs:
    """Apply a rule: stacked updates, leaves (n, *shape), to one update, leaves (*shape).

    In an `optax.chain`, stages before it see the workers' vectors, and stages after it see the
    server's update: any optax optimizer.

    Args:
        rule: a rule of `medjax.rules`, such as `rules.median()`; or any function of the workers'
            vectors (n, d) to their aggregate (d,), as `rules.FromFunction` takes it. The memory of
            a `StatefulRule` is kept in the chain's state.
        key: a JAX key or an integer seed, for a rule that draws random numbers.

    Returns:
        An optax `Aggregator`.

    Raises:
        ValueError: if the rule draws random numbers and no key is given.
        TypeError: if `rule` isn't a rule (`rules.median()`, not `rules.median`).

    >>> tx = aggregate(lambda vectors: jnp.median(vectors, axis=0))
    >>> print(tx.update(jnp.array([[1.0], [2.0], [9.0]]), tx.init(jnp.zeros(1)))[0])
    [2.]
    """
    built = as_rule(rule)

    def named(rule: Any, *args: Any) -> Any:
        with jax.named_scope(built.name):  # for profiles, and for errors about streaming
            return rule(*args)

    if isinstance(built, StatefulRule):
        return aggregating.Aggregator(
            init=lambda params: built.init(params),
            update=lambda updates, state, params=None, **extra_args: named(
                built.update, updates, state, params
            ),
        )
    if not built.needs_key:
        return aggregating.Aggregator(
            init=lambda params: optax.EmptyState(),
            update=lambda updates, state, params=None, **extra_args: (
                named(restricted(built, **extra_args), updates),
                state,
            ),
        )
    if key is None:
        raise ValueError(f"{built.name} draws random numbers: give aggregate a key")

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
        aggregated = named(built, updates, jax.random.fold_in(state.key, state.step))
        return aggregated, AggregateState(state.step + 1, state.key)

    return aggregating.Aggregator(init=init, update=update)


def restricted(
    rule: Callable[..., Any],
    *,
    workers: Int[Array, " m"] | None = None,
    num_workers: int | None = None,
    **extra_args: Any,
) -> Callable[..., Any]:
    """Return the rule for those who take part, of one that knows all workers if only some do."""
    del extra_args
    if not isinstance(rule, Additive) or workers is None or num_workers is None:
        return rule
    return rule if rule.restrict is None else rule.restrict(workers, num_workers)
