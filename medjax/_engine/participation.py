"""Which of the workers take part in a step."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, PyTree

from medjax._engine import checks
from medjax._engine.random import stage_key


def draw_participants(
    key: Key[Array, ""],
    step: Int[Array, ""],
    num_workers: int,
    participants: int,
    always: int,
) -> Int[Array, " m"]:
    """The indices of m workers in order: the last f of them all, and others drawn at random.

    Every set of m - f of the first n - f workers is as likely, at every step anew.

    Args:
        key: the run's.
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
    """m and f, once checked.

    Raises:
        ValueError: if one is out of range, or f > m.
        TypeError: if one isn't a static integer.
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
    """Check that a stage with a state for each worker has as many as there are.

    Raises:
        ValueError: if not: an index out of range would be taken for another, without a word.
    """
    if given != num_workers:
        raise ValueError(f"{stage} is built for {num_workers} workers, there are {given}")


def take(states: PyTree, workers: Int[Array, " m"] | None) -> PyTree:
    """The workers' of all workers' states; all of them for None."""
    return states if workers is None else jax.tree.map(lambda x: x[workers], states)


def put(states: PyTree, workers: Int[Array, " m"] | None, new: PyTree) -> PyTree:
    """All workers' states, once the workers' are new; the new ones for None."""
    if workers is None:
        return new
    return jax.tree.map(lambda x, y: x.at[workers].set(y), states, new)
