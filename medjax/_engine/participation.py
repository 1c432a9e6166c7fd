"""Partial participation: draw the workers that take part in a step."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from medjax._engine import checks
from medjax._engine.random import stage_key
from medjax._engine.stacked import PyTree


def draw_participants(
    key: Key[Array, ""],
    step: Int[Array, ""],
    num_workers: int,
    participants: int,
    always: int,
) -> Int[Array, " m"]:
    """Return the sorted indices of m workers: the last f of all, and others drawn at random.

    All sets of m - f of the first n - f workers are equally likely, independently at every step.

    Args:
        key: the run's key.
        step: the draw is a function of the key and the step.
        num_workers: n.
        participants: m.
        always: f.

    Raises:
        ValueError: if m > n.
    """
    if participants > num_workers:
        raise ValueError(f"{participants} participants are more than the {num_workers} workers")
    step_key = jax.random.fold_in(stage_key(key, "participants"), step)
    others = num_workers - always
    drawn = jax.random.permutation(step_key, others)[: participants - always]
    everyone = jnp.concatenate([jnp.sort(drawn), jnp.arange(others, num_workers)])
    return everyone.astype(jnp.int32)


def check_participants(participants: int | None, always: int) -> tuple[int | None, int]:
    """Return m and f, once checked.

    Raises:
        ValueError: if one of them is out of range, or f > m.
        TypeError: if one of them isn't a static integer.
    """
    always = checks.integer("always", always, minimum=0)
    if participants is None:
        return None, always
    participants = checks.integer("participants", participants, minimum=1)
    if always > participants:
        raise ValueError(
            f"{always} workers that always take part are more than the {participants} participants"
        )
    return participants, always


def check_cohort(stage: str, num_workers: int, given: int) -> None:
    """Check that a stage with a state for each worker is built for the actual number of workers.

    Raises:
        ValueError: if not.
    """
    # Without this check JAX would silently clamp an index that is out of range.
    if given != num_workers:
        raise ValueError(f"{stage} is built for {num_workers} workers, there are {given}")


def take(states: PyTree, workers: Int[Array, " m"] | None) -> PyTree:
    """Return the states of the given workers, or of all workers for None."""
    return states if workers is None else jax.tree.map(lambda x: x[workers], states)


def put(states: PyTree, workers: Int[Array, " m"] | None, new: PyTree) -> PyTree:
    """Return all workers' states with those of the given workers replaced; None stands for all."""
    if workers is None:
        return new
    return jax.tree.map(lambda x, y: x.at[workers].set(y), states, new)
