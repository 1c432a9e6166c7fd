"""The workers' part of a training step: what each computes before the optimizer's chain."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key

from medjax._engine.chunks import Chunk
from medjax._engine.lazy import LazyUpdates, as_lazy
from medjax._engine.mesh import axes, fill_up, over_shards
from medjax._engine.participation import check_cohort, put, take
from medjax._engine.random import stage_key
from medjax._engine.stacked import PyTree, Stacked, Updates
from medjax.objectives import Objective, Stateful
from medjax.partition import WorkerData
from medjax.training._chunks import fastest_chunk
from medjax.training._gradients import weighted_gradient
from medjax.training._local import Local, draws, sample_batches
from medjax.training._local_steps import batch_key, local_updates


class SimulationState(NamedTuple):
    """Everything that changes during a run.

    Attributes:
        step: the number of steps so far.
        params: the common parameters.
        opt_state: the optimizer's state.
        key: the run's key.
        model_state: each worker's model state, leaves (n, ...); None without any.
    """

    step: Int[Array, ""]
    params: PyTree
    opt_state: optax.OptState
    key: Key[Array, ""]
    model_state: PyTree = None


def worker_updates(
    objective: Objective,
    state: SimulationState,
    data: WorkerData,
    cohort: Int[Array, " m"] | None,
    *,
    batch_size: int | None,
    worker_chunk: int | None,
    num_local: int,
    learning_rate: float | Float[Array, ""],
) -> tuple[LazyUpdates, PyTree]:
    """Prepare the updates of the workers that take part in a step.

    Args:
        objective: the objective.
        state: the state before the step.
        data: all workers' data.
        cohort: the indices of the workers that take part; None for all.
        batch_size: how many examples each draws; None for all of its own.
        worker_chunk: how many updates exist at a time; None for as many as are fastest.
        num_local: K, the number of local steps.
        learning_rate: γ, their length.

    Returns:
        The updates, which are not computed yet unless the objective has a state; and all workers'
        model states after the step.
    """
    for leaf in jax.tree.leaves(state.model_state):
        check_cohort("the model state", len(leaf), data.num_workers)
    num_present = data.num_workers if cohort is None else len(cohort)
    # A cohort's data are copied only where each device must be given its members': on a single
    # device they stay where they are, and `workers` says where.
    in_place = cohort is not None and not axes()
    workers = jnp.arange(len(data.sizes), dtype=jnp.int32) if cohort is None else cohort
    given = data if cohort is None or in_place else jax.tree.map(lambda x: x[cohort], data)
    inputs = (None if in_place else given, workers, take(state.model_state, cohort))
    inputs = fill_up(inputs, num_present)

    def batches(inputs: PyTree, first: int | Array, count: int, local_step: int | Array) -> Local:
        rows, workers, states = inputs
        workers, states = _part((workers, states), first, count)
        if batch_size is not None:
            key = batch_key(state.key, state.step, local_step)
            places = workers if in_place else first + jnp.arange(count)
            local = sample_batches(data if in_place else rows, batch_size, key, places, workers)
        elif in_place:
            local = Local(*jax.tree.map(lambda x: x[workers], (data.examples, data.sizes)))
        else:
            local = Local(*_part((rows.examples, rows.sizes), first, count))
        keys = None
        if draws(objective):
            key = batch_key(stage_key(state.key, "objective"), state.step, local_step)
            keys = jax.vmap(lambda worker: jax.random.fold_in(key, worker))(workers)
        return local._replace(keys=keys, states=states)

    def compute(inputs: PyTree, first: int | Array, count: int) -> tuple[Stacked, PyTree]:
        return local_updates(
            objective,
            state.params,
            lambda local_step: batches(inputs, first, count, local_step),
            count,
            num_steps=num_local,
            learning_rate=learning_rate,
        )

    if isinstance(objective, Stateful):
        # A step changes every worker's state, so that all updates are computed in one go.
        stacked, states = over_shards(
            lambda inputs, *_: compute(inputs, 0, len(inputs[1])), inputs, num_present, "workers"
        )
        return as_lazy(stacked), put(state.model_state, cohort, states)

    def weighted(inputs: PyTree, weights: Array) -> Updates:
        local = batches(inputs, 0, len(weights), 0)
        return weighted_gradient(objective, state.params, local, weights)

    if worker_chunk is None:
        local = jax.eval_shape(lambda: batches(inputs, 0, num_present, 0))
        chunk = fastest_chunk(objective, state.params, local)
    else:
        chunk = Chunk(worker_chunk, worker_chunk)
    updates = LazyUpdates(
        like=jax.eval_shape(lambda: state.params),
        num_workers=num_present,
        chunk=chunk.up_to(num_present),
        inputs=inputs,
        compute=lambda inputs, first, count: compute(inputs, first, count)[0],
        weighted=None if num_local > 1 or draws(objective) else weighted,
    )
    return updates, state.model_state


def _part(tree: PyTree, first: int | Array, count: int) -> PyTree:
    """Take the rows of `count` workers from `first` on."""
    return jax.tree.map(
        lambda x: x if len(x) == count else lax.dynamic_slice_in_dim(x, first, count), tree
    )
