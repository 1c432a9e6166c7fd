"""Servers of algorithms: an aggregate of the messages, and a memory that it changes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from medjax._engine import checks
from medjax._engine.precision import at_least_float32
from medjax._engine.random import Seed, stage_key
from medjax._engine.stacked import PyTree, Updates, count_workers
from medjax.rules import Additive, PlainRule, Rule, StatefulRule, aggregate, mean
from medjax.rules._aggregate import restricted
from medjax.rules._rule import as_rule, zero_state
from medjax.workers import Oracle

AnyRule = Rule | StatefulRule | PlainRule
LearningRate = optax.ScalarOrSchedule


class Message(NamedTuple):
    """A message with more than an update.

    Attributes:
        update: what the rule aggregates.
        other: what is averaged beside it.
    """

    update: PyTree
    other: PyTree


class ServerState(NamedTuple):
    """The state of a server with a memory.

    Attributes:
        rule: that of the rule.
        memory: the server's own.
    """

    rule: optax.OptState
    memory: Any


class Received(NamedTuple):
    """Results of a round, as a server gets them.

    Attributes:
        update: the aggregate of the updates.
        other: the average of what came beside them; None for messages that are updates alone.
        present: m, how many workers took part.
        share: m/n, or the share of all weights that theirs are.
        params: the parameters before the step.
        workers: who took part; None for all.
        weights: what each of those counts in an average; None for equal weights.
    """

    update: PyTree
    other: PyTree
    present: int
    share: float | Array
    params: PyTree
    workers: Int[Array, " m"] | None
    weights: Float[Array, " m"] | None


def averaging(
    rule: AnyRule | None, server_lr: LearningRate = 1.0, key: Seed | None = None
) -> optax.GradientTransformation:
    """Move by the aggregate of the updates: x ← x - η · rule(updates), by default their mean."""
    checks.step_size("server_lr", server_lr)
    return optax.chain(aggregated(rule, key), optax.scale_by_learning_rate(server_lr))


def aggregated(
    rule: AnyRule | None, key: Seed | None = None
) -> optax.GradientTransformationExtraArgs:
    """Aggregate with a rule, by default the mean."""
    return aggregate(mean() if rule is None else rule, key)


def remembering(
    rule: AnyRule | None,
    start: Callable[[PyTree], PyTree],
    step: Callable[[Received, Any], tuple[Updates, Any]],
    key: Seed | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Aggregate messages, and change a memory.

    Args:
        rule: aggregates the updates; None for the mean.
        start: the parameters to the memory at the start.
        step: what came in a round, and the memory, to the direction and the new memory.
        key: for a rule that draws.
    """
    stage, average = aggregated(rule, key), average_of(rule)
    is_weighted = average.restrict is not None

    def init(params: PyTree) -> ServerState:
        return ServerState(stage.init(params), start(params))

    def update(
        updates: Any, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple[Updates, ServerState]:
        plain = not isinstance(updates, Message)
        sent = updates if plain else updates.update
        result, rule_state = stage.update(sent, state.rule, params, **extra_args)
        here: Any = restricted(average, **extra_args)
        other = None if plain else here(updates.other)
        workers, n = extra_args.get("workers"), extra_args.get("num_workers")
        # A stage before, such as bucketing, may have left fewer rows than workers.
        present = count_workers(sent) if workers is None else len(workers)
        share = 1.0 if n is None else present / n
        if is_weighted and n is not None and workers is not None:
            share = _weights(average, n)[workers].sum()
        weights = _weights(here, present) if is_weighted else None
        received = Received(result, other, present, share, params, workers, weights)
        direction, memory = step(received, state.memory)
        return optax.tree.cast_like(direction, result), ServerState(rule_state, memory)

    return optax.GradientTransformationExtraArgs(init, update)


def average_of(rule: AnyRule | None) -> Additive:
    """Return the average of what isn't aggregated: with the rule's weights, if it has any."""
    built = None if rule is None else as_rule(rule)
    if isinstance(built, Additive) and None not in (built.weights, built.restrict):
        return built
    return mean()


def _weights(average: Additive, num_workers: int) -> Float[Array, " n"]:
    assert average.weights is not None
    return average.weights(num_workers)


def moved_by(
    stage: optax.GradientTransformation, server_lr: LearningRate
) -> optax.GradientTransformationExtraArgs:
    """Append the step size: x ← x - η · direction."""
    checks.step_size("the step size", server_lr)
    return optax.chain(stage, optax.scale_by_learning_rate(server_lr))


def memory_of(state: Any) -> Any:
    """Return the memory in the state of a chain that begins with `remembering`."""
    return state[0].memory


def zeros_like(params: PyTree) -> PyTree:
    """Return zeros of the parameters' shapes, in float32 at least: what is kept may be a sum."""
    return zero_state(jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), params))


def add(x: PyTree, y: PyTree, scale: float | Array = 1.0) -> PyTree:
    """Return x + scale · y, in the dtypes of x."""

    def sum_of(a: Array, b: Array) -> Array:
        wide = at_least_float32(jnp.result_type(a))
        return (jnp.asarray(a, wide) + scale * jnp.asarray(b, wide)).astype(jnp.result_type(a))

    return jax.tree.map(sum_of, x, y)


def averaged(beta: float | Array, m: PyTree, g: PyTree) -> PyTree:
    """Return β m + (1 - β) g, in the dtypes of m."""

    def mix(m: Array, g: Array) -> Array:
        return (beta * m + (1 - beta) * g.astype(m.dtype)).astype(m.dtype)

    return jax.tree.map(mix, m, g)


def scaled(x: PyTree, factor: float | Array) -> PyTree:
    """Return factor · x, in the dtypes of x."""
    return jax.tree.map(lambda a: (factor * a.astype(at_least_float32(a.dtype))).astype(a.dtype), x)


def one_or_all(name: str, values: int | Sequence[int]) -> list[int]:
    """Return numbers as a list: one of each worker, or one for all.

    Raises:
        ValueError: if there is none.
    """
    several: Any = values if np.ndim(values) else [values]
    if not len(several):
        raise ValueError(f"{name} needs a number for each worker, or one for all, got []")
    return list(several)


def of_worker(name: str, values: Sequence[int], oracle: Oracle) -> Int[Array, ""]:
    """Return a worker's own of n values, or the only one, which is everybody's.

    Raises:
        ValueError: if there are others than n or one.
    """
    if len(values) == 1:
        return jnp.int32(values[0])
    if len(values) != oracle.num_workers:
        raise ValueError(
            f"{name} has {len(values)} values for {oracle.num_workers} workers; valid: one for "
            "each, or one for all"
        )
    return jnp.asarray(values, jnp.int32)[oracle.worker]


def drawing_key(key: Seed, name: str) -> Key[Array, ""]:
    """Return the key of an algorithm's draws."""
    return stage_key(key, name)


def worker_key(key: Key[Array, ""], step: Array, worker: Array) -> Key[Array, ""]:
    """Return a worker's key in a round."""
    return jax.random.fold_in(jax.random.fold_in(key, step), worker)
