"""Many devices: the same algorithm, its workers spread over a mesh.

>>> import jax, medjax
>>> mesh = medjax.sharding.make_mesh(workers=1)  # over how many devices
>>> tx = medjax.sharding.sharded(medjax.noisy_sign_sgd(0.1, 1.0, key=0), mesh)
>>> x = jax.numpy.ones((10, 3))
>>> updates, state = tx.update(x, tx.init(x[0]))

`simulate(..., mesh=mesh)` spreads a whole run. The family of the rule decides what the devices
exchange: sums for additive rules; bits for votes; for coordinate-wise rules, all workers' numbers
at a part of the coordinates each; the same for geometric rules, each device then making its part of
the Gram matrix. XLA partitions the other stages. The random bits of the noise don't depend on the
mesh: they are a function of the worker, not of its device.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from medjax._engine import checks
from medjax._engine.mesh import COORDINATES as COORDINATES
from medjax._engine.mesh import GRID as GRID
from medjax._engine.mesh import WORKERS as WORKERS
from medjax._engine.mesh import on_mesh as on_mesh
from medjax.partition import WorkerData

Tree = TypeVar("Tree")
"""Any pytree of arrays."""


def make_mesh(
    workers: int | None = None,
    coordinates: int = 1,
    grid: int = 1,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """Make a mesh for `simulate` and `sharded`.

    Args:
        workers: the number of devices to spread the workers of one run over; None for all.
        coordinates: the number of parts that `simulate` cuts the parameters into between steps,
            along an axis that divides. The workers are spread over these devices too.
        grid: the number of devices to spread the runs of a sweep over, each with all workers.
        devices: the devices; None for the first of JAX's.

    Raises:
        TypeError: if a size isn't a static integer.
        ValueError: if a size is below 1, or if there are too few devices.

    >>> dict(make_mesh(workers=1).shape)
    {'grid': 1, 'workers': 1, 'coordinates': 1}
    """
    devices = list(jax.devices() if devices is None else devices)
    coordinates = checks.integer("coordinates", coordinates, minimum=1)
    grid = checks.integer("grid", grid, minimum=1)
    if workers is None:
        workers = max(1, len(devices) // (coordinates * grid))
    shape = (grid, checks.integer("workers", workers, minimum=1), coordinates)
    size = int(np.prod(shape))
    if size > len(devices):
        raise ValueError(
            f"a mesh of grid={grid}, workers={workers}, coordinates={coordinates} needs {size} "
            f"devices, there are {len(devices)}"
        )
    names = (GRID, WORKERS, COORDINATES)
    return jax.make_mesh(shape, names, devices=devices[:size], axis_types=(AxisType.Auto,) * 3)


def pad_workers(num_workers: int, mesh: Mesh) -> int:
    """Round a number of workers up to one that the devices divide.

    Args:
        num_workers: n.
        mesh: see `make_mesh`.

    >>> pad_workers(10, make_mesh(workers=1))
    10
    """
    parts = mesh.shape[WORKERS] * mesh.shape[COORDINATES]
    return -(-num_workers // parts) * parts


def worker_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of leaves (n, ...), n rounded up by `pad_workers`, in `simulate`.

    Args:
        mesh: see `make_mesh`.
    """
    return NamedSharding(mesh, PartitionSpec((WORKERS, COORDINATES)))


def place_workers(data: WorkerData, mesh: Mesh | None) -> WorkerData:
    """Place each worker's data on the device that `simulate` computes its gradient on.

    Where the devices don't divide the workers, padding workers without examples are added, so that
    no device holds more than its part. With a mesh over several processes, each needs to have the
    data of its own devices' workers only, and the last worker's: other rows aren't read.

    Args:
        data: the workers' data.
        mesh: see `make_mesh`; None leaves them where they are.
    """
    if mesh is None:
        return data
    n = data.num_workers
    padded, where = pad_workers(n, mesh), worker_sharding(mesh)

    def place(x: Any) -> jax.Array:
        if len(x) == padded:
            return _placed(x, where)

        def rows(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(padded)
            return np.asarray(x[np.minimum(np.arange(start, stop), n - 1)])

        return jax.make_array_from_callback((padded, *x.shape[1:]), where, rows)

    # Padding workers have copies of the last one's examples, on which every loss is finite, but
    # none that counts.
    sizes = np.pad(np.asarray(data.sizes[:n]), (0, padded - n))
    examples = jax.tree.map(place, data.examples)
    return replace(data, examples=examples, sizes=_placed(sizes, where), padding=padded - n)


def place_everywhere(data: Tree, mesh: Mesh | None) -> Tree:
    """Place what all workers share, such as test data, on every device.

    Args:
        data: any arrays; the same in all processes.
        mesh: see `make_mesh`; None leaves them where they are.
    """
    if mesh is None:
        return data
    return jax.tree.map(lambda x: _placed(x, NamedSharding(mesh, PartitionSpec())), data)


def _placed(x: Any, where: NamedSharding) -> jax.Array:
    if isinstance(x, jax.Array) and where.is_fully_addressable:
        return jax.device_put(x, where)  # copies only what isn't there
    return jax.make_array_from_callback(x.shape, where, lambda index: x[index])


def sharded(tx: optax.GradientTransformation, mesh: Mesh) -> optax.GradientTransformationExtraArgs:
    """Spread the workers of a chain over stacked updates, leaves (n, *shape), over the mesh.

    Its state and updates are those of the chain itself: bit for bit where a vote or a
    coordinate-wise rule aggregates, to rounding with sums.

    Args:
        tx: the chain.
        mesh: see `make_mesh`.
    """
    tx = optax.with_extra_args_support(tx)
    return optax.GradientTransformationExtraArgs(tx.init, jax.jit(on_mesh(tx.update, mesh)))
