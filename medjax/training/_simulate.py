"""The training loop: n workers' gradients, one optax chain, metrics on the way."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from medjax._engine import checks
from medjax._engine.mesh import on_mesh, spread
from medjax._engine.participation import check_participants, draw_participants
from medjax._engine.random import Seed, stage_key
from medjax._engine.stacked import PyTree, Stacked, Updates
from medjax._engine.streaming import Streaming, apply_optimizer
from medjax.objectives import Objective, Stateful
from medjax.partition import WorkerData
from medjax.training._metrics import Metrics, Totals, measuring
from medjax.training._nodes import check_cohorts, check_updates, first_params, placed
from medjax.training._step import SimulationState, worker_messages
from medjax.workers import Algorithm
from medjax.workers._local_steps import as_algorithm
from medjax.workers._procedure import per_worker_state


class Simulation(NamedTuple):
    """A run in parts, for those who drive the loop themselves. All are pure and traceable.

    Attributes:
        init: (params, key) to the state before the first step; with the number of workers as a
            third argument where the objective or the algorithm has a state of every worker. Nodes
            that start with different parameters: `init(...)._replace(params=...)`.
        advance: (state, data, number of steps) to the state after them. The number may be traced:
            one compiled program serves chunks of every length.
        evaluate: (state, data, held_out) to the metrics there. `held_out` is a dict of batches by
            name, such as {"test": batch}, for metrics called `test_loss` and the like.
        begin: (state, data, held_out) to the totals before a measurement in turns, none of which
            takes long.
        measure: (totals, state, data, held_out, the number of turns so far, how many more to take,
            at least 1) to the totals after these; the metrics, which are right when no turn is
            left; and how many are left. Both numbers may be traced.
    """

    init: Callable[..., SimulationState]
    advance: Callable[[SimulationState, WorkerData, int | Int[Array, ""]], SimulationState]
    evaluate: Callable[[SimulationState, WorkerData, Mapping[str, PyTree]], Metrics]
    begin: Callable[[SimulationState, WorkerData, Mapping[str, PyTree]], Totals]
    measure: Callable[..., tuple[Totals, Metrics, Int[Array, ""]]]


class Result(NamedTuple):
    """The result of `simulate`.

    Attributes:
        params: the parameters after the last step; of a decentralised algorithm all nodes', leaves
            (n, ...).
        steps: (E,), the steps before which metrics were measured: 0, k, 2k, ..., num_steps.
        metrics: by name, (E,), or (E, n) where each worker is measured: see `simulate`.
        model_state: each worker's model state after the last step, leaves (n, ...); None without.
        worker_state: each worker's own state of the algorithm, likewise.
    """

    params: PyTree
    steps: Int[Array, " E"]
    metrics: Metrics
    model_state: PyTree = None
    worker_state: PyTree = None


def simulation(
    objective: Objective,
    optimizer: optax.GradientTransformation | Algorithm,
    *,
    batch_size: int | None = None,
    worker_chunk: int | None = None,
    streaming: Streaming = "auto",
    local_steps: int | None = None,
    local_lr: float | Float[Array, ""] | None = None,
    participants: int | None = None,
    always: int = 0,
    mesh: Mesh | None = None,
) -> Simulation:
    """Build the parts of a run, which `simulate` puts together. Arguments and errors are its own.

    The data are arguments of the parts: jit would compile data that they close over into the
    program.
    """
    algorithm = as_algorithm(optimizer, local_steps, local_lr)
    if batch_size is not None:
        batch_size = checks.integer("batch_size", batch_size, minimum=1)
    if worker_chunk is not None:
        worker_chunk = checks.integer("worker_chunk", worker_chunk, minimum=1)
    checks.option("streaming", streaming, ("auto", "require", "off"))
    for what, has_state in (
        ("objective has a state", isinstance(objective, Stateful)),
        ("algorithm has a state", algorithm.worker.init is not None),
        ("algorithm has a model", algorithm.nodes is not None),
    ):
        if streaming == "require" and has_state:
            raise ValueError(f"streaming isn't possible: the {what} of every worker")
    check_cohorts(algorithm, participants)
    participants, always = check_participants(participants, always)
    optimizer, worker = algorithm.optimizer, algorithm.worker
    update = optax.with_extra_args_support(optimizer).update

    def init(params: PyTree, key: Seed, num_workers: int | None = None) -> SimulationState:
        # A copy, so that the state may be donated; of a strong type, as after a step.
        params = jax.tree.map(lambda x: jnp.array(x, jnp.result_type(x)), params)

        model = objective.state if isinstance(objective, Stateful) else None

        def of_each(make: Callable[[PyTree], PyTree]) -> PyTree:
            n = checks.integer("num_workers", num_workers, minimum=1)
            return spread(per_worker_state(make, params, n))

        return SimulationState(
            jnp.zeros([], jnp.int32),
            first_params(algorithm, params, num_workers),
            optimizer.init(params),
            stage_key(key, "simulate"),
            None if model is None else of_each(lambda _: model),
            None if worker.init is None else of_each(worker.init),
        )

    def step(state: SimulationState, data: WorkerData) -> SimulationState:
        cohort, extra_args = None, {}
        if participants is not None:
            n = data.num_workers
            cohort = draw_participants(state.key, state.step, n, participants, always)
            extra_args = {"workers": cohort, "num_workers": n}
        messages, after = worker_messages(
            objective,
            algorithm,
            state,
            data,
            cohort,
            batch_size=batch_size,
            worker_chunk=worker_chunk,
        )

        def apply(messages: Stacked) -> tuple[Updates, optax.OptState]:
            updates, opt_state = update(messages, state.opt_state, state.params, **extra_args)
            check_updates(updates, state.params, algorithm.nodes)
            return updates, opt_state

        updates, opt_state = apply_optimizer(apply, messages, streaming)
        params = placed(algorithm, optax.apply_updates(state.params, updates))
        return after._replace(step=state.step + 1, params=params, opt_state=opt_state)

    def advance(
        state: SimulationState, data: WorkerData, num_steps: int | Int[Array, ""]
    ) -> SimulationState:
        return lax.fori_loop(0, num_steps, lambda _, s: step(s, data), state)

    parts = measuring(objective, None if participants is None else always, algorithm.nodes)
    return Simulation(
        on_mesh(init, mesh),
        on_mesh(advance, mesh),
        on_mesh(parts.all_at_once, mesh),
        on_mesh(parts.begin, mesh),
        on_mesh(parts.advance, mesh),
    )


def simulate(
    objective: Objective,
    params: PyTree,
    data: WorkerData,
    optimizer: optax.GradientTransformation | Algorithm,
    *,
    num_steps: int,
    key: Seed,
    batch_size: int | None = None,
    worker_chunk: int | None = None,
    streaming: Streaming = "auto",
    local_steps: int | None = None,
    local_lr: float | Float[Array, ""] | None = None,
    participants: int | None = None,
    always: int = 0,
    eval_every: int | None = None,
    test_data: PyTree | None = None,
    mesh: Mesh | None = None,
) -> Result:
    """Train on n workers' data: one `lax.scan`, to be jitted, and vmapped over what is traced.

    It minimises f(x) = (1/n) Σ_i f_i(x), where f_i is the average loss of worker i's own examples.
    At each step `optimizer` turns the workers' gradients g_i at the common parameters, stacked,
    into one update. Its code is called once in a trace, with plain arrays. The gradients are
    computed as its rule needs them: all at once; a few at a time (see `streaming`); or, for the
    mean, as the gradient of the mean.

    With K local steps of length γ, worker i takes K steps of SGD from the common parameters x to
    x_i^K, each on a mini-batch of its own. In place of its gradient it sends (x - x_i^K)/γ, the sum
    of the K gradients on its way; K = 1 is the gradient itself. `mean_sgd(γ)` is then federated
    averaging (McMahan et al., 2017): the next x is the average of the x_i^K.

    With m participants, a step is one of m workers, drawn anew each time. The optimizer gets their
    updates alone, leaves (m, *shape) in the order of their indices, and the extra arguments
    `workers`, those indices (m,), and `num_workers`, n, which `per_worker`, `error_feedback` and a
    weighted mean use. For the other stages worker i is the i-th of the m; the last f are those who
    are `always` there.

    Metrics cover all training examples of the h honest workers (all n, unless the chain has an
    `attack` or a `DataAttack` has changed the data), whatever the mini-batch. `train_loss` is the
    average of their f_i, and `train_NAME` that of the objective's other metrics; `test_loss`,
    `test_NAME` are averages over the test data. `grad_norm` is ‖(1/h) Σ_i ∇f_i‖, the norm of the
    *true mean* gradient, and `median_mean_gap` is ‖median_i ∇f_i - (1/h) Σ_i ∇f_i‖,
    coordinate-wise. `nonfinite_workers` marks the workers whose ∇f_i has a NaN or ±∞, and the
    Byzantine ones who sent such a number in the last step.

    A decentralised algorithm keeps a model x_i at each node, and all metrics are those of the
    honest nodes' mean model x̄. `consensus_distance` is √((1/h) Σ_i ‖x_i - x̄‖²).

    Args:
        objective: (params, batch) to the examples' losses and metrics; see `medjax.objectives`.
        params: the initial parameters.
        data: each worker's examples; see `stack_workers`. Make it an argument of the function that
            you jit: arrays that the function closes over are compiled into the program, which is
            slow.
        optimizer: a chain over stacked updates that aggregates, such as `noisy_sign_sgd`; or an
            algorithm of `medjax.algorithms`, whose workers do more than send gradients.
        num_steps: the number of steps.
        key: a JAX key or an integer seed, for the mini-batches and the objective; the noise has its
            own, in the optimizer.
        batch_size: how many of its examples each worker draws at each step, independently and with
            replacement, which keeps the gradient unbiased; None for all of them.
        worker_chunk: how many workers' gradients exist at a time where they are streamed; None for
            as many as are fastest: on a CPU about 64 MiB of float32, on a GPU or TPU up to 2 GiB
            with the activations, or two workers' if that is more. It affects the result only by
            rounding.
        streaming: "auto" computes a chunk of the gradients at a time, so that memory doesn't grow
            with n, where the rule is additive (a mean, a vote) and nothing stands before it but
            `perturb`, `noisy_sign` (of a scale that isn't adaptive) and `compress`. "require" fails
            where that is impossible, and names the operation that prevents it. "off" computes all
            gradients first.
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
        ValueError: if a size or γ is out of range, if only one of K and γ is given, if the
            optimizer doesn't drop the worker axis, if streaming is required but impossible, or if
            the nodes of a decentralised algorithm aren't n, or are to be drawn (`participants`).
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
        streaming=streaming,
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
        metrics = parts.evaluate(state, data, held_out)
        return parts.advance(state, data, length), metrics

    start = parts.init(params, key, data.num_workers)
    state, metrics = lax.scan(run_chunk, start, jnp.asarray(chunks, jnp.int32))
    return Result(
        state.params,
        jnp.asarray(steps, jnp.int32),
        metrics,
        state.model_state,
        state.worker_state,
    )
