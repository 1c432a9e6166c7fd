"""The training loop: n workers' gradients, one optax chain, metrics on the way."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from medjax._engine import checks
from medjax.training.gradients import promised_gradients, sample_batches, take_workers
from medjax.training.local_steps import batch_key, check_local_steps, with_local_steps
from medjax.training.metrics import measure_workers
from medjax._engine.participation import check_participants, draw_participants
from medjax._engine.random import Seed, stage_key
from medjax._engine.mesh import axes, cut, on_mesh
from medjax._engine.stacked import Updates
from medjax.partition._worker_data import WorkerData
from medjax.objectives import Objective

Metrics = dict[str, Float[Array, "..."] | Bool[Array, "..."]]


class SimulationState(NamedTuple):
    """All that changes during a run."""

    step: Int[Array, ""]
    params: PyTree
    opt_state: optax.OptState
    key: Key[Array, ""]


class Simulation(NamedTuple):
    """A run in parts, for those who drive the loop themselves. All are pure and traceable.

    Attributes:
        init: (params, key) to the state before the first step.
        advance: (state, data, number of steps) to the state after them. The number may be traced:
            one compiled program serves chunks of every length.
        evaluate: (params, data, held_out) to the metrics there. `held_out` is a dict of batches by
            name, such as {"test": batch}, for metrics called `test_loss` and the like.
    """

    init: Callable[[PyTree, Seed], SimulationState]
    advance: Callable[[SimulationState, WorkerData, int | Int[Array, ""]], SimulationState]
    evaluate: Callable[[PyTree, WorkerData, Mapping[str, PyTree]], Metrics]


class Result(NamedTuple):
    """What `simulate` gives.

    Attributes:
        params: the parameters after the last step.
        steps: (E,), the steps before which metrics were measured: 0, k, 2k, ..., num_steps.
        metrics: by name, (E,), or (E, n) of what is measured of each worker: see `simulate`.
    """

    params: PyTree
    steps: Int[Array, " E"]
    metrics: Metrics


def simulation(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    batch_size: int | None = None,
    worker_chunk: int | None = None,
    local_steps: int | None = None,
    local_lr: float | Float[Array, ""] | None = None,
    participants: int | None = None,
    always: int = 0,
    mesh: Mesh | None = None,
) -> Simulation:
    """The parts of a run; `simulate` puts them together. Arguments and errors are its own.

    The data are arguments of the parts, not built in: jit would compile them into the program.
    """
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(f"optimizer must be an optax transformation, got {optimizer!r}")
    if batch_size is not None:
        batch_size = checks.integer("batch_size", batch_size, minimum=1)
    if worker_chunk is not None:
        worker_chunk = checks.integer("worker_chunk", worker_chunk, minimum=1)
    num_local, learning_rate = check_local_steps(local_steps, local_lr)
    participants, always = check_participants(participants, always)
    update = optax.with_extra_args_support(optimizer).update

    def init(params: PyTree, key: Seed) -> SimulationState:
        # A copy, so that the state may be donated; of a strong type, as after a step.
        params = jax.tree.map(lambda x: jnp.array(x, jnp.result_type(x)), params)
        start = jnp.zeros([], jnp.int32)
        return SimulationState(start, params, optimizer.init(params), stage_key(key, "simulate"))

    def step(state: SimulationState, data: WorkerData) -> SimulationState:
        n, cohort, extra_args = len(data.sizes), None, {}
        if participants is not None:
            cohort = draw_participants(state.key, state.step, n, participants, always)
            extra_args = {"workers": cohort, "num_workers": n}

        # Who has what: the workers' data, and who they are. A cohort's data are copied where each
        # device is given its members'; on one device they stay where they are.
        apart = cohort is not None and not axes()
        workers = jnp.arange(n, dtype=jnp.int32) if cohort is None else cohort
        present = data if cohort is None or apart else jax.tree.map(lambda x: x[cohort], data)
        inputs = workers if apart else (present, workers)

        def batches(
            inputs: PyTree, first: int | Array, count: int, local_step: int | Array = 0
        ) -> WorkerData:
            own, workers = (data, inputs) if apart else inputs
            workers = lax.dynamic_slice_in_dim(workers, first, count)
            if batch_size is None and not apart:
                return take_workers(own, first, count)
            if batch_size is None:
                return jax.tree.map(lambda x: x[workers], own)
            places = workers if apart else first + jnp.arange(count)
            key = batch_key(state.key, state.step, local_step)
            return sample_batches(own, batch_size, key, places, workers)

        promised = with_local_steps(
            promised_gradients(objective, state.params, inputs, batches, worker_chunk),
            objective,
            state.params,
            batches,
            num_steps=num_local,
            learning_rate=learning_rate,
        )

        def updated(gradients: Any) -> tuple[Updates, optax.OptState]:
            updates, opt_state = update(gradients, state.opt_state, state.params, **extra_args)
            _check_aggregated(updates, state.params)
            jax.tree.leaves(opt_state)  # nor may a promise have got into the state
            return updates, opt_state

        # Who knows nothing of promises may stumble over one in any way. If it wasn't that, the same
        # error comes again.
        result = None
        with contextlib.suppress(Exception):
            result = updated(promised)
        updates, opt_state = updated(promised.stacked()) if result is None else result
        params = cut(optax.apply_updates(state.params, updates))
        return SimulationState(state.step + 1, params, opt_state, state.key)

    def advance(
        state: SimulationState, data: WorkerData, num_steps: int | Int[Array, ""]
    ) -> SimulationState:
        return lax.fori_loop(0, num_steps, lambda _, s: step(s, data), state)

    def evaluate(params: PyTree, data: WorkerData, held_out: Mapping[str, PyTree]) -> Metrics:
        metrics = measure_workers(objective, params, data)
        for part, batch in held_out.items():
            losses, others = objective(params, batch)
            values = {"loss": losses} | others
            metrics |= {f"{part}_{name}": x.mean() for name, x in values.items()}
        return metrics

    return Simulation(on_mesh(init, mesh), on_mesh(advance, mesh), on_mesh(evaluate, mesh))


def simulate(
    objective: Objective,
    params: PyTree,
    data: WorkerData,
    optimizer: optax.GradientTransformation,
    *,
    num_steps: int,
    key: Seed,
    batch_size: int | None = None,
    worker_chunk: int | None = None,
    local_steps: int | None = None,
    local_lr: float | Float[Array, ""] | None = None,
    participants: int | None = None,
    always: int = 0,
    eval_every: int | None = None,
    test_data: PyTree | None = None,
    mesh: Mesh | None = None,
) -> Result:
    """Train on n workers' data: one `lax.scan`, to be jitted, and vmapped over what is traced.

    minimises f(x) = (1/n) Σ_i f_i(x), where f_i is the average loss of worker i's own examples. At
    each step `optimizer` turns the workers' gradients g_i at the common parameters, stacked, into
    one update. They are computed as its rule needs them: all at once; a few at a time (see
    `worker_chunk`); or, for the mean, not one by one but as the gradient of the mean.

    With K local steps of length γ worker i takes K steps of SGD from the common parameters x, each
    of a mini-batch of its own, to x_i^K, and in place of its gradient it sends (x - x_i^K)/γ, the
    sum of the K gradients on its way; K = 1 is the gradient itself. `sgd(γ)` is then federated
    averaging (McMahan et al., 2017): the next x is the average of the x_i^K.

    With m participants a step is one of m workers, drawn anew each time: the optimizer is given
    their updates alone, leaves (m, *shape) in the order of their indices, and the extra arguments
    `workers`, those indices (m,), and `num_workers`, n, of which `per_worker` and a weighted mean
    make use. The other stages see m workers, whose i-th is their worker i; the last f are those who
    are `always` there.

    Metrics are of all training examples, whatever the mini-batch: `train_loss` is f, and
    `train_NAME` the like for the objective's other metrics; `test_loss`, `test_NAME` are averages
    over the test data; `grad_norm` is ‖∇f‖ = ‖(1/n) Σ_i ∇f_i‖, the norm of the *true mean*
    gradient, and `median_mean_gap` is ‖median_i ∇f_i - (1/n) Σ_i ∇f_i‖, coordinate-wise.
    `nonfinite_workers`, of each worker, tells whether its ∇f_i has a NaN or ±∞.

    Args:
        objective: (params, batch) to the examples' losses and metrics; see `medjax.objectives`.
        params: the initial parameters.
        data: each worker's examples; see `stack_workers`. Make it an argument of the function that
            you jit: arrays that it closes over are compiled into the program, which is slow.
        optimizer: a chain over stacked updates that aggregates, such as `noisy_sign_sgd(1e-2, b)`.
        num_steps: the number of steps.
        key: a JAX key or an integer seed, for the mini-batches; the noise has its own, in the
            optimizer.
        batch_size: how many of its examples each worker draws at each step, independently and with
            replacement, which keeps the gradient unbiased; None for all of them.
        worker_chunk: how many workers' gradients exist at a time where the rule is additive, so
            that memory doesn't grow with n. That holds where nothing stands before `aggregate` but
            `noisy_sign` or `perturb`, of a scale that isn't adaptive; other transforms are given
            all the gradients. None for as many as are fastest: about 64 MiB of float32, or two
            workers' if that is more. The result doesn't depend on it but for rounding.
        local_steps: K, how many steps each worker takes on its own; None for a gradient.
        local_lr: γ > 0, their length; perhaps traced. To be given with `local_steps`.
        participants: m, how many workers take part in a step, drawn uniformly without replacement;
            None for all of them.
        always: f, how many of the m are the last f workers, who take part in every step, as
            Byzantine workers would; the others are drawn from the rest.
        eval_every: k, the number of steps between metrics; None for before and after the run only.
        test_data: a batch as the objective takes it, for the test metrics.
        mesh: the devices to spread the workers over; see `medjax.sharding`. None for one device.

    Returns:
        The final parameters, and the metrics at steps 0, k, 2k, ..., and after the last.

    Raises:
        ValueError: if a size or γ is out of range, if only one of K and γ is given, or if the
            optimizer doesn't drop the worker axis.
        TypeError: if a size isn't a static integer, or γ isn't a number; or if the data or the
            optimizer aren't such.
    """
    if not isinstance(data, WorkerData):
        raise TypeError(f"data must be made by medjax.stack_workers, got {type(data).__name__}")
    num_steps = checks.integer("num_steps", num_steps, minimum=0)
    every = max(num_steps, 1) if eval_every is None else eval_every
    every = checks.integer("eval_every", every, minimum=1)
    parts = simulation(
        objective,
        optimizer,
        batch_size=batch_size,
        worker_chunk=worker_chunk,
        local_steps=local_steps,
        local_lr=local_lr,
        participants=participants,
        always=always,
        mesh=mesh,
    )
    held_out = {} if test_data is None else {"test": test_data}
    steps = np.append(np.arange(0, num_steps, every), num_steps)
    # The chunk after the last evaluation has no steps, so that evaluating is compiled only once.
    chunks = np.diff(steps, append=num_steps)

    def run_chunk(state: SimulationState, length: Array) -> tuple[SimulationState, Metrics]:
        metrics = parts.evaluate(state.params, data, held_out)
        return parts.advance(state, data, length), metrics

    state, metrics = lax.scan(run_chunk, parts.init(params, key), jnp.asarray(chunks, jnp.int32))
    return Result(state.params, jnp.asarray(steps, jnp.int32), metrics)


def _check_aggregated(updates: Updates, params: PyTree) -> None:
    got, want = ([jnp.shape(x) for x in jax.tree.leaves(tree)] for tree in (updates, params))
    if got != want:
        raise ValueError(
            "the optimizer must drop the worker axis, with medjax.aggregate(rule) in its chain: "
            f"its updates have shapes {got}, the parameters {want}"
        )
