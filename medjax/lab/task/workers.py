"""The workers' shares of the data, and the setup of a single run."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import medjax
from medjax import sharding
from medjax.lab.machine import devices, memory
from medjax.lab.settings import rules
from medjax.lab.settings.config import Settings
from medjax.lab.task.interpret import Hyperparameters, hyperparameters, partitioner
from medjax.lab.task.setup import Task, check, load_data, prepare

_FEW_EXAMPLES = 10  # for each worker: where a partition fails, this is then why


def share_out(task: Task, seeds: Sequence[int]) -> medjax.WorkerData:
    """Share out the examples for each seed: indices (S, n, m), and sizes (S, n).

    Raises:
        ValueError: if such a partition doesn't exist, or if its workers have too few examples.
    """
    config, classes = task.config, task.classes
    owners = config.workers - (config.byzantine or 0) * (config.byzantine_data == "copied")
    partition, dealt = partitioner(config), np.tile(classes, config.copies)
    if config.partition == "natural":  # a copy of an author is dealt out as one more
        dealt += np.repeat(np.arange(config.copies) * (classes.max() + 1), len(classes))
    try:
        shares = [partition(dealt, owners, seed) for seed in seeds]
    except ValueError as error:
        if config.partition != "natural" and config.workers * _FEW_EXAMPLES <= len(dealt):
            raise
        hint = f"--copies K, more than {config.copies}, gives each example to K workers"
        raise ValueError(f"{error}; {hint}") from None
    parts = [
        _seat(_limit(share, config, seed), config, seed)
        for share, seed in zip(shares, seeds, strict=True)
    ]
    parts = [[part % len(classes) for part in seed_parts] for seed_parts in parts]
    for sizes in ([len(part) for part in seed_parts] for seed_parts in parts):
        if config.batch_size != "full" and int(config.batch_size) > max(sizes):
            raise ValueError(
                f"batch size {config.batch_size} is more than the {max(sizes)} examples of the "
                "largest worker; valid: up to that, or full"
            )
    # All seeds' workers at once, so that they are padded alike: one program serves all.
    every = [part for seed_parts in parts for part in seed_parts]
    indices = medjax.stack_workers(np.arange(len(classes)), every)
    return jax.tree.map(
        lambda x: np.asarray(x).reshape(len(seeds), config.workers, *x.shape[1:]), indices
    )


def _limit(parts: list[np.ndarray], config: Settings, seed: int) -> list[np.ndarray]:
    """Keep as many of each worker's examples as it is to have."""
    count = config.examples_per_worker
    if count is None:
        return parts
    fewest = min(len(part) for part in parts)
    if count > fewest:
        raise ValueError(
            f"{count} examples per worker are more than the {fewest} of the smallest worker"
        )
    rng = np.random.default_rng(seed)
    return [np.sort(rng.choice(part, count, replace=False)) for part in parts]


def _seat(parts: list[np.ndarray], config: Settings, seed: int) -> list[np.ndarray]:
    """In a random order if there are attackers: they are the last, whatever their data."""
    if not config.byzantine:
        return parts
    order = np.random.default_rng([seed, 1]).permutation(len(parts))
    # Where the honest workers alone share out the data, the attackers have copies of theirs.
    return [parts[order[i % len(parts)]] for i in range(config.workers)]


def to_be_measured(
    config: Settings, indices: medjax.WorkerData, seeds: Sequence[int]
) -> medjax.WorkerData:
    """Choose the examples that are measured: of each worker all, or so many, drawn by the seed.

    Args:
        config: says how many.
        indices: of all examples, (S, n, m), and sizes (S, n).
        seeds: S of them.

    Returns:
        Indices (S, n, N), in the same form; those of a worker with fewer are padded as before.
    """
    most = config.eval_examples
    if most == "all" or int(most) >= indices.examples.shape[-1]:
        return indices
    count = int(most)
    chosen = np.empty((*indices.sizes.shape, count), indices.examples.dtype)
    for k, seed in enumerate(seeds):
        rng = np.random.default_rng([seed, 2])
        for worker, size in enumerate(indices.sizes[k]):
            rows = np.arange(count)  # of few examples all, and what pads them
            if size > count:
                rows = np.sort(rng.choice(size, count, replace=False))
            chosen[k, worker] = indices.examples[k, worker, rows]
    return replace(indices, examples=chosen, sizes=np.minimum(indices.sizes, count))


def server_data(task: Task, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Draw the server's own examples from all training data; None if the rule has no use for them.

    `prepare` has checked that there are enough.
    """
    count = rules.server_examples(task.config.rule)
    if count is None:
        return None
    chosen = np.random.default_rng([seed, 3]).choice(len(task.classes), count, replace=False)
    x, y = task.train
    return x[chosen], y[chosen]


def worker_data(
    task: Task,
    indices: medjax.WorkerData,
    mesh: Mesh | None = None,
    seed_axis: str | None = None,
) -> medjax.WorkerData:
    """The examples themselves, of the Byzantine workers perhaps with something done to them.

    On a mesh, each device gets only those of the workers and seeds that it has.

    Args:
        task: what the examples are for.
        indices: of one seed, or of several, with an axis for them in front.
        mesh: the devices; None for one.
        seed_axis: the axis of the mesh that several seeds are spread over; None for none.

    Raises:
        TooLarge: if they don't fit the memory.
    """
    rows, sizes = np.asarray(indices.examples), np.asarray(indices.sizes)
    num_workers, shape, padding, where = rows.shape[-2], rows.shape, 0, None
    seeds = [(0, 0)] * (sizes.ndim - 1)
    if mesh is not None:
        padding = sharding.pad_workers(num_workers, mesh) - num_workers
        rows = np.pad(rows, (*seeds, (0, padding), (0, 0)), mode="edge")
        sizes = np.pad(sizes, (*seeds, (0, padding)))
        by_worker = sharding.worker_sharding(mesh).spec
        where = NamedSharding(mesh, PartitionSpec(*[seed_axis] * len(seeds), *by_worker))
        shape = where.shard_shape(rows.shape)
    count = math.prod(shape) * devices.sharing_memory(mesh)
    memory.check_fits(
        f"the data of {num_workers} workers, {rows.shape[-1]} examples each,",
        sum(count * x[0].nbytes for x in task.train),
        "fewer --workers, --examples-per-worker or --copies take less",
    )

    def place(shape: tuple[int, ...], part: Callable[[Any], np.ndarray]) -> jax.Array:
        if where is None:
            return jnp.asarray(part(()))
        return jax.make_array_from_callback(shape, where, part)

    def take(x: np.ndarray) -> jax.Array:
        return place((*rows.shape, *x.shape[1:]), lambda k: x[rows[k[: rows.ndim]]])

    data = medjax.WorkerData(
        tuple(take(x) for x in task.train), place(sizes.shape, lambda k: sizes[k]), padding
    )
    for attack in task.protocol.data_attacks:
        poison = functools.partial(attack, num_byzantine=task.protocol.num_byzantine)
        data = jax.jit(jax.vmap(poison) if sizes.ndim == 2 else poison)(data)
    return data


@dataclass(frozen=True, eq=False)
class Setup:
    """All that a single run needs.

    Attributes:
        task: the task.
        values: the run's hyper-parameters.
        workers: each worker's training examples.
        measured: those of them that are measured.
        sizes: those of the data set and of the workers, for the record.
    """

    task: Task
    values: Hyperparameters
    workers: medjax.WorkerData
    measured: medjax.WorkerData
    sizes: dict[str, Any]


def build(config: Settings, mesh: Mesh | None = None) -> Setup:
    """Load the data, give it to the workers on the mesh, and build the model and the algorithm.

    Raises:
        ValueError: if the settings don't fit each other or the data.
        FileNotFoundError, ImportError: if the data can't be had.
    """
    check(config)
    task = prepare(config, load_data(config.dataset, config.clients))
    shares = share_out(task, [config.seed])
    some = to_be_measured(config, shares, [config.seed])
    indices = jax.tree.map(lambda x: x[0], shares)
    to_measure = indices if some is shares else jax.tree.map(lambda x: x[0], some)
    sizes = indices.sizes.tolist()
    workers = worker_data(task, indices, mesh)
    return Setup(
        task,
        hyperparameters(config, task.num_params)._replace(server=server_data(task, config.seed)),
        workers,
        workers if to_measure is indices else worker_data(task, to_measure, mesh),
        task.sizes | {"smallest_worker": min(sizes), "largest_worker": max(sizes)},
    )
