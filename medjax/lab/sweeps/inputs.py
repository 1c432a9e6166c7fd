"""The arguments of a sweep's programs, each placed once where the programs take it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import medjax
from medjax import sharding
from medjax.lab.machine import devices
from medjax.lab.sweeps.plan import Chunk, Group, grid_axis
from medjax.lab.task.interpret import Hyperparameters, hyperparameters
from medjax.lab.task.workers import server_data, to_be_measured, worker_data


class Inputs:
    """Makes the arguments for one chunk after the other.

    The workers' examples stay on the devices as long as the seeds stay the same, the held-out data
    as long as they do themselves, which is mostly the whole sweep.
    """

    def __init__(self, mesh: Mesh | None = None) -> None:
        self._mesh = mesh
        self._group: Group | None = None
        self._seeds: list[int] = []
        self._workers: Any = None
        self._source: Any = None
        self._held_out: Any = None

    def of(
        self, group: Group, chunk: Chunk
    ) -> tuple[Hyperparameters, medjax.WorkerData, medjax.WorkerData, Any]:
        """Return a chunk's hyper-parameters, workers' data, those measured, and held-out data.

        Raises:
            TooLarge: if the data don't fit the memory.
        """
        by = grid_axis(group, devices.parts(self._mesh))
        where = None
        if self._mesh is not None:
            runs = (sharding.GRID,) if by == "seed" else (None, sharding.GRID)
            where = NamedSharding(self._mesh, PartitionSpec(*runs))
        workers, measured = self._workers_of(
            group, chunk.seeds, sharding.GRID if by == "seed" else None
        )
        placed = jax.tree.map(lambda x: jax.device_put(x, where), values(group, chunk))
        return placed, workers, measured, self._held_out_of(group)

    def _workers_of(
        self, group: Group, seeds: np.ndarray, axis: str | None
    ) -> tuple[medjax.WorkerData, medjax.WorkerData]:
        if self._group is not group or self._seeds != seeds.tolist():
            self._workers = None  # free the memory first
            indices = jax.tree.map(lambda x: x[seeds], group.indices)
            data = worker_data(group.task, indices, self._mesh, axis)
            some = to_be_measured(group.task.config, indices, [group.seeds[k] for k in seeds])
            all_of_it = some is indices
            measured = data if all_of_it else worker_data(group.task, some, self._mesh, axis)
            self._workers = (data, measured)
            self._group, self._seeds = group, seeds.tolist()
        return self._workers

    def _held_out_of(self, group: Group) -> Any:
        source = group.task.held_out
        if not _same(self._source, source):
            self._source = self._held_out = None
            placed = sharding.place_everywhere(source, self._mesh)
            self._source, self._held_out = source, jax.tree.map(jnp.asarray, placed)
        return self._held_out


def values(group: Group, chunk: Chunk) -> Hyperparameters:
    """Return the chunk's hyper-parameters, each (s, h)."""
    settings = [hyperparameters(group.settings[k], group.task.num_params) for k in chunk.settings]
    seeds = [group.seeds[k] for k in chunk.seeds]
    own = {seed: server_data(group.task, seed) for seed in seeds}
    each = [values._replace(seed=k, server=own[k]) for k in seeds for values in settings]
    shape = chunk.new.shape
    return jax.tree.map(lambda *x: jnp.array(x).reshape(*shape, *np.shape(x[0])), *each)


def _same(a: Any, b: Any) -> bool:
    """Compare two trees of arrays."""
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        x is y or np.array_equal(x, y)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
