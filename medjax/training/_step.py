"""The workers' part of a training step: what each sends to the optimizer's chain."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Int, Key

from medjax._engine.chunks import Chunk
from medjax._engine.lazy import LazyUpdates, as_lazy
from medjax._engine.mesh import axes, fill_up, over_shards
from medjax._engine.participation import check_cohort, put, take
from medjax._engine.random import stage_key
from medjax._engine.stacked import Examples, PyTree, Stacked, Updates
from medjax.objectives import Objective, Stateful
from medjax.partition import WorkerData
from medjax.rules import mean
from medjax.rules._aggregate import restricted
from medjax.training._chunks import activation_chunk, fastest_chunk
from medjax.training._gradients import map_workers, weighted_gradient, worker_gradient
from medjax.training._local import Local, draws, sample_batch
from medjax.training._nodes import one_model
from medjax.workers import Algorithm, Oracle, Sent


class SimulationState(NamedTuple):
    """Everything that changes during a run.

    Attributes:
        step: the number of steps so far.
        params: the common parameters; those of all nodes, leaves (n, ...), where each has its own.
        opt_state: the optimizer's state.
        key: the run's key.
        model_state: each worker's model state, leaves (n, ...); None without any.
        worker_state: each worker's own state, of an algorithm that has one, likewise.
    """

    step: Int[Array, ""]
    params: PyTree
    opt_state: optax.OptState
    key: Key[Array, ""]
    model_state: PyTree = None
    worker_state: PyTree = None


class _Worker(NamedTuple):
    """A worker that takes part, or several, stacked.

    Attributes:
        place: the row of the data that is its own.
        worker: its index among all workers.
        size: how many examples it has.
        examples: these, if all of them are its batch.
        model_state: its model's state.
        state: its own state.
        params: its own parameters; None where they are common.
    """

    place: Int[Array, "..."]
    worker: Int[Array, "..."]
    size: Int[Array, "..."]
    examples: Examples | None
    model_state: PyTree
    state: PyTree
    params: PyTree


def worker_messages(
    objective: Objective,
    algorithm: Algorithm,
    state: SimulationState,
    data: WorkerData,
    cohort: Int[Array, " m"] | None,
    *,
    batch_size: int | None,
    worker_chunk: int | None,
) -> tuple[LazyUpdates, SimulationState]:
    """Prepare the messages of the workers that take part in a step.

    Args:
        objective: the objective.
        algorithm: says what a worker does.
        state: the state before the step.
        data: all workers' data.
        cohort: the indices of the workers that take part; None for all.
        batch_size: how many examples each draws; None for all of its own.
        worker_chunk: how many messages exist at a time; None for as many as are fastest.

    Returns:
        The messages, which are not computed yet unless a worker has a state; and the run's state
        with the workers' after the step.
    """
    own_params = None if algorithm.nodes is None else state.params
    model = one_model(algorithm, state.params)
    for name, states in (
        ("model state", state.model_state),
        ("workers' state", state.worker_state),
        ("topology", own_params),
    ):
        for leaf in jax.tree.leaves(states):
            check_cohort(f"the {name}", len(leaf), data.num_workers)
    num_present = data.num_workers if cohort is None else len(cohort)
    # A cohort's data are copied only where each device must be given its members': on a single
    # device they stay where they are, and `workers` says where.
    in_place = cohort is not None and not axes()
    workers = jnp.arange(len(data.sizes), dtype=jnp.int32) if cohort is None else cohort
    given = data if cohort is None or in_place else jax.tree.map(lambda x: x[cohort], data)
    states = take((state.model_state, state.worker_state, own_params), cohort)
    inputs = fill_up((None if in_place else given, workers, states), num_present)

    def some(inputs: PyTree, first: int | Array, count: int) -> _Worker:
        rows, workers, states = inputs
        workers, own = _part((workers, states), first, count)
        examples = None
        if in_place:
            places, sizes = workers, data.sizes[workers]
            if batch_size is None:
                examples = jax.tree.map(lambda x: x[workers], data.examples)
        else:
            places, sizes = first + jnp.arange(count), _part(rows.sizes, first, count)
            if batch_size is None:
                examples = _part(rows.examples, first, count)
        return _Worker(places, workers, sizes, examples, *own)

    def batch(rows: WorkerData, worker: _Worker, k: int | Array) -> Local:
        if batch_size is None:
            local = Local(worker.examples, worker.size)
        else:
            key = batch_key(state.key, state.step, k)
            local = sample_batch(rows, batch_size, key, worker.place, worker.worker)
        if not draws(objective):
            return local
        key = batch_key(stage_key(state.key, "objective"), state.step, k)
        return local._replace(keys=jax.random.fold_in(key, worker.worker))

    def compute(
        f: Callable[[Oracle, PyTree], Sent], inputs: PyTree, first: int | Array, count: int
    ) -> Sent:
        rows = data if in_place else inputs[0]

        def one(worker: _Worker) -> Sent:
            def gradient(y: PyTree, k: int | Array, model_state: PyTree) -> tuple[PyTree, PyTree]:
                local = batch(rows, worker, k)._replace(states=model_state)
                found = worker_gradient(objective, y, local)
                return found.updates, found.states

            at = state.params if own_params is None else worker.params
            oracle = Oracle(at, gradient, worker.worker, data.num_workers, worker.model_state)
            return f(oracle, worker.state)

        stacked = some(inputs, first, count)
        chunk = activation_chunk(objective, model, first_batches(rows, stacked))
        return map_workers(one, stacked, chunk)

    def first_batches(rows: WorkerData, stacked: _Worker) -> Local:
        """Return the shapes of the workers' batches."""

        def one(worker: _Worker) -> Local:
            return batch(rows, worker, 0)._replace(states=worker.model_state)

        return jax.eval_shape(jax.vmap(one), stacked)

    def all_at_once(f: Callable[[Oracle, PyTree], Sent]) -> Sent:
        return over_shards(
            lambda inputs, *_: compute(f, inputs, 0, len(inputs[1])), inputs, num_present, "workers"
        )

    procedure, broadcast = algorithm.worker, algorithm.broadcast(state.opt_state)
    ask = procedure.ask
    if ask is not None:
        asked = all_at_once(lambda oracle, _: Sent(ask(oracle, broadcast))).message
        average = restricted(
            procedure.average or mean(), workers=cohort, num_workers=data.num_workers
        )
        broadcast = {**(broadcast or {}), "asked": average(asked)}

    def take_part(oracle: Oracle, own_state: PyTree) -> Sent:
        return procedure.round(oracle, broadcast, own_state)

    if isinstance(objective, Stateful) or procedure.init is not None:
        # A step changes every worker's state, so that all messages are computed in one go.
        sent = all_at_once(take_part)
        return as_lazy(sent.message), state._replace(
            model_state=put(state.model_state, cohort, sent.model_state),
            worker_state=put(state.worker_state, cohort, sent.state),
        )

    def weighted(inputs: PyTree, weights: Array) -> Updates:
        rows = data if in_place else inputs[0]
        local = jax.vmap(lambda worker: batch(rows, worker, 0))(some(inputs, 0, len(weights)))
        return weighted_gradient(objective, state.params, local, weights)

    def messages(inputs: PyTree, first: int | Array, count: int) -> Stacked:
        return compute(take_part, inputs, first, count).message

    if worker_chunk is None:
        local = jax.eval_shape(
            lambda: first_batches(data if in_place else given, some(inputs, 0, num_present))
        )
        chunk = fastest_chunk(objective, model, local)
    else:
        chunk = Chunk(worker_chunk, worker_chunk)
    has_shortcut = procedure.is_gradient and own_params is None and not draws(objective)
    updates = LazyUpdates(
        like=jax.eval_shape(algorithm.like, model),
        num_workers=num_present,
        chunk=chunk.up_to(num_present),
        inputs=inputs,
        compute=messages,
        weighted=weighted if has_shortcut else None,
        draws_batches=batch_size is not None,
    )
    return updates, state


def batch_key(
    key: Key[Array, ""], step: Int[Array, ""], local_step: int | Int[Array, ""]
) -> Key[Array, ""]:
    """Return the mini-batches' key at a local step; the first doesn't depend on their number."""
    later = jax.random.fold_in(stage_key(key, "local_steps"), step)
    return jnp.where(
        local_step == 0, jax.random.fold_in(key, step), jax.random.fold_in(later, local_step)
    )


def _part(tree: PyTree, first: int | Array, count: int) -> PyTree:
    """Take the rows of `count` workers from `first` on."""
    return jax.tree.map(
        lambda x: x if len(x) == count else lax.dynamic_slice_in_dim(x, first, count), tree
    )
