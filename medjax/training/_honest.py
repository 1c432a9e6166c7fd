"""The honest workers, as far as a run's state tells them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int

from medjax._engine.stacked import PyTree
from medjax.attacks import AttackState
from medjax.partition import WorkerData


class Split(NamedTuple):
    """The honest workers, and the attacks of the others.

    Attributes:
        honest: a slice or indices (h,), in order.
        attacks: the states of the attacks on vectors, each with the indices of its workers.
    """

    honest: slice | Int[Array | np.ndarray, " h"]
    attacks: list[tuple[AttackState, Any]]


def split_workers(opt_state: optax.OptState, data: WorkerData, always: int | None) -> Split:
    """Tell honest workers from Byzantine ones, by the attacks in a chain's state and on the data.

    Args:
        opt_state: the optimizer's state.
        data: the workers' data.
        always: how many of the last workers take part in every step; None if all workers do. An
            attack by others isn't one by fixed workers, and all count as honest.

    Raises:
        ValueError: if nobody is honest.
    """
    n = data.num_workers
    states = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, AttackState))
    attacks = [x for x in states if isinstance(x, AttackState) and len(x.nonfinite)]
    if always is not None:
        attacks = [x for x in attacks if x.byzantine == "last" and len(x.nonfinite) <= always]
    placed = [(x, x.split(n)[1]) for x in attacks]
    known = np.zeros(n, bool)
    known[n - data.num_byzantine :] = data.num_byzantine > 0
    for _, byzantine in placed:
        if not isinstance(byzantine, Array):
            known[byzantine] = True
    num_honest = n - int(known.sum())
    if num_honest == 0:
        raise ValueError(f"metrics need an honest worker, the attacks are by all n = {n} workers")
    if not known[:num_honest].any():
        honest: Any = slice(num_honest)
    else:
        honest = np.flatnonzero(~known)
    drawn = [byzantine for _, byzantine in placed if isinstance(byzantine, Array)]
    if drawn:
        mask = jnp.asarray(known)
        for byzantine in drawn:
            mask = mask.at[byzantine].set(True)
        # How many they are must be static. Where two attacks draw the same worker, as many honest
        # ones are left out.
        num_honest = max(1, num_honest - sum(len(x) for x in drawn))
        honest = jnp.sort(jnp.argsort(mask, stable=True)[:num_honest])
    return Split(honest, placed)


def average_state(states: PyTree, split: Split) -> PyTree:
    """Average the honest workers' model states; integers are those of the first."""

    def average(x: Array) -> Array:
        x = x[split.honest]
        return x.mean(axis=0) if jnp.issubdtype(x.dtype, jnp.floating) else x[0]

    return jax.tree.map(average, states)
