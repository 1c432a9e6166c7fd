"""The programs of a task: for one run, or, under vmap, for seeds × hyper-parameters at once."""

import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

import medjax
from medjax import sharding
from medjax.lab.task import backdoor
from medjax.lab.task import optimizer as optimizers
from medjax.lab.task.interpret import Hyperparameters
from medjax.lab.task.protocol import with_server_gradient
from medjax.lab.task.setup import Task
from medjax.objectives import gradient_on
from medjax.sharding import GRID

NONFINITE = "nonfinite_workers"
"""Who sends NaN or ±∞, (n,) as it is measured, and in tables how many they are."""


class Program(NamedTuple):
    """Functions to be compiled; a run's state is of the kind that medjax has.

    Attributes:
        init: of hyper-parameters.
        advance: of (state, hyper-parameters, workers' data, number of steps).
        begin: of (state, the workers' data to measure, held-out data) to the totals before a
            measurement.
        measure: of (totals, state, workers' data, held-out data, the number of turns so far, how
            many more to take) to the totals, the metrics, and how many turns are left.
    """

    init: Callable[..., Any]
    advance: Callable[..., Any]
    begin: Callable[..., Any]
    measure: Callable[..., Any]


class Compiled(NamedTuple):
    """A program for arguments of certain shapes.

    Attributes:
        program: its compiled functions; `advance` takes over the memory of the state, and
            `measure` that of the totals.
        seconds: what compiling took.
        num_bytes: the most memory that any of them takes, its arguments included.
    """

    program: Program
    seconds: float
    num_bytes: int


def one_run(task: Task) -> Program:
    """The program of a single run."""
    config, objective = task.config, task.objective

    def simulation(
        values: Hyperparameters, workers: medjax.WorkerData | None = None
    ) -> medjax.Simulation:
        sizes = None if workers is None else workers.sizes[: workers.num_workers]
        protocol = task.protocol
        if values.server is not None:
            own = gradient_on(objective, values.server, config.local_steps, values.local_lr)
            protocol = with_server_gradient(protocol, config, own)
        optimizer = optimizers.build(config, protocol, values, _keys(values)[1], sizes)
        return medjax.simulation(
            objective,
            optimizer,
            batch_size=None if config.batch_size == "full" else int(config.batch_size),
            worker_chunk=config.worker_chunk if isinstance(config.worker_chunk, int) else None,
            local_steps=config.local_steps,
            local_lr=None if config.local_steps is None else values.local_lr,
            participants=config.participation,
            always=task.protocol.num_byzantine if config.participation else 0,
        )

    def init(values: Hyperparameters) -> medjax.SimulationState:
        model_key, _, simulation_key = _keys(values)
        params = task.model.init(model_key, task.train[0][:1])
        return simulation(values).init(params, simulation_key, config.workers)

    def advance(
        state: medjax.SimulationState,
        values: Hyperparameters,
        workers: medjax.WorkerData,
        num_steps: Any,
    ) -> medjax.SimulationState:
        return simulation(values, workers).advance(state, workers, num_steps)

    # What is measured doesn't depend on how the parameters move, nor on who only pretends.
    parts = medjax.simulation(objective, task.algorithm or optax.identity())

    def measure(*inputs: Any) -> tuple[Any, dict[str, Array], Int[Array, ""]]:
        totals, metrics, left = parts.measure(*inputs)
        if backdoor.PART in task.held_out:
            metrics[backdoor.SUCCESS] = metrics.pop(f"{backdoor.PART}_accuracy")
        return totals, metrics, left

    return Program(init, advance, parts.begin, measure)


def many_runs(
    task: Task, mesh: Mesh | None = None, by: Literal["seed", "setting"] = "setting"
) -> Program:
    """The program of a rectangle of runs: S seeds, each with its data, by H hyper-parameters.

    The leaves of the hyper-parameters are (S, H), those of the workers' data (S, ...), and those of
    the state and of the metrics (S, H, ...). The H runs of a seed share its data.

    Args:
        task: what they have in common.
        mesh: the devices, if there are several. Along its grid axis each has some of the runs.
        by: whether the seeds or the settings are cut for it; their number must divide.
    """
    one, spread = one_run(task), mesh is not None and mesh.shape[GRID] > 1
    alone = spread and mesh is not None and mesh.size == mesh.shape[GRID]

    def over_both(f: Callable[..., Any], *depths: int) -> Callable[..., Any]:
        """Map over runs; an input is of each run (depth 2), of a seed's runs (1), or of all (0)."""
        # Where the workers are spread too, the maps over them have to know of the runs'.
        names = {by: GRID} if spread and not alone else {}
        by_setting = tuple(0 if depth > 1 else None for depth in depths)
        by_seed = tuple(0 if depth > 0 else None for depth in depths)
        inner = jax.vmap(f, in_axes=by_setting, spmd_axis_name=names.get("setting"))
        mapped = jax.vmap(inner, in_axes=by_seed, spmd_axis_name=names.get("seed"))

        def run(*inputs: Any) -> Any:
            if jax.tree.leaves(inputs[0])[0].shape[:2] != (1, 1):
                return mapped(*inputs)
            # A map over one isn't free: XLA's batched products are slower than its others.
            own = [_squeezed(x, depth) for x, depth in zip(inputs, depths, strict=True)]
            return jax.tree.map(lambda x: jnp.expand_dims(x, (0, 1)), f(*own))

        return run

    runs = PartitionSpec(GRID) if by == "seed" else PartitionSpec(None, GRID)
    data = PartitionSpec(GRID) if by == "seed" else PartitionSpec()
    every = PartitionSpec()

    def each(f: Callable[..., Any], *inputs: PartitionSpec) -> Callable[..., Any]:
        if not alone:
            return f
        return jax.shard_map(f, in_specs=inputs, out_specs=runs, axis_names={GRID}, check_vma=False)

    return Program(
        init=each(over_both(one.init, 2), runs),
        advance=each(over_both(one.advance, 2, 2, 1, 0), runs, runs, data, every),
        begin=each(over_both(one.begin, 2, 1, 0), runs, data, every),
        measure=each(
            over_both(one.measure, 2, 2, 1, 0, 0, 0), runs, runs, data, every, every, every
        ),
    )


def compile_program(
    program: Program,
    values: Hyperparameters,
    workers: medjax.WorkerData,
    measured: medjax.WorkerData,
    held_out: Any,
    done: dict[Hashable, Any] | None = None,
    mesh: Mesh | None = None,
) -> Compiled:
    """Compile for arguments like these.

    Args:
        program: what to compile.
        values: hyper-parameters.
        workers: the workers' data.
        measured: those of them that are measured.
        held_out: the held-out data.
        done: what other programs were compiled to, to which this one's is added. Those that differ
            only in the rule or the attack often have the same `init` and `measure`; those that
            differ only in who has which data are the same.
        mesh: the devices that the workers are spread over; None for one.
    """
    program = Program(*(sharding.on_mesh(f, mesh) for f in program))
    done = {} if done is None else done
    on_cpu = jax.default_backend() == "cpu"
    options = _cpu_options() if on_cpu else {}

    def compile_once(lowered: Any, **more: Any) -> Any:
        # The text lacks arguments that aren't used, which still must be of the same shapes.
        key = (lowered.as_text(), str(lowered.in_avals), lowered.in_tree, lowered.out_tree)
        if key not in done:
            done[key] = lowered.compile(compiler_options={**options, **more})
        return done[key]

    start = time.perf_counter()
    with ThreadPoolExecutor() as pool:  # XLA compiles one while the next is traced
        # It runs once, and many layers' random numbers take LLVM's optimizer a long time.
        quickly = {"xla_backend_optimization_level": 1} if on_cpu else {}
        init = pool.submit(compile_once, jax.jit(program.init).lower(values), **quickly)
        state, layout = jax.eval_shape(program.init, values), None
        if mesh is not None:  # the state stays where it is
            layout = init.result().output_shardings
            state = jax.tree.map(
                lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
                state,
                layout,
            )
        # One program for chunks of every length; it takes over the old state's memory.
        advance = jax.jit(program.advance, donate_argnums=0, out_shardings=layout)
        advance = pool.submit(compile_once, advance.lower(state, values, workers, jnp.int32(0)))
        # Where each of several processes has it.
        everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())
        begin = jax.jit(program.begin, out_shardings=everywhere)
        begin = pool.submit(compile_once, begin.lower(state, measured, held_out))
        totals = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
            jax.eval_shape(program.begin, state, measured, held_out),
        )
        zero = jnp.int32(0)
        measure = jax.jit(program.measure, donate_argnums=0, out_shardings=everywhere)
        measure = measure.lower(totals, state, measured, held_out, zero, zero)
        measure = pool.submit(compile_once, measure)
        compiled = Program(*(each.result() for each in (init, advance, begin, measure)))
    return Compiled(compiled, time.perf_counter() - start, max(map(_num_bytes, compiled)))


@cache
def _cpu_options() -> Mapping[str, Any]:
    """Return XLA's options for a CPU: of YNNPACK, the library within it, the products alone.

    Its convolutions take one core, and its sums over workers forty times as long as XLA's own.
    """
    products = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    options: dict[str, Any] = {"xla_cpu_experimental_ynn_fusion_type": products}
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options=options)
    except jax.errors.JaxRuntimeError:  # an XLA without such an option
        return {}
    return options


def _squeezed(tree: Any, depth: int) -> Any:
    return jax.tree.map(lambda x: jnp.squeeze(x, tuple(range(depth))), tree)


def _num_bytes(compiled: Any) -> int:
    memory = compiled.memory_analysis()
    sizes = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    taken_over = getattr(memory, "alias_size_in_bytes", 0)
    return sum(getattr(memory, size, 0) for size in sizes) - taken_over


def _keys(values: Hyperparameters) -> Any:
    """One for each purpose: model, noise, mini-batches."""
    return jax.random.split(jax.random.key(values.seed), 3)
