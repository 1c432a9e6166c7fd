"""Many devices: the same algorithm, its workers spread over a mesh.

>>> import jax, medjax
>>> mesh = medjax.sharding.make_mesh(workers=1)  # over how many devices
>>> tx = medjax.sharding.sharded(medjax.noisy_sign_sgd(0.1, 1.0), mesh)
>>> x = jax.numpy.ones((10, 3))
>>> updates, state = tx.update(x, tx.init(x[0]))

`simulate(..., mesh=mesh)` does so with a whole run. What crosses between devices is what the family
of the rule has it: sums; for votes, bits; for coordinate-wise rules all workers' numbers at a part
of the coordinates each; for geometric ones the same, of which each device makes its part of the
Gram matrix. Other stages are left to XLA. Noise doesn't depend on the mesh: it is a function of the
worker, not of where the worker is.
"""

from collections.abc import Sequence
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
from medjax._engine.stacked import Promise

Tree = TypeVar("Tree")
"""Any pytree of arrays."""


def make_mesh(
    workers: int | None = None,
    coordinates: int = 1,
    grid: int = 1,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """A mesh for `simulate` and `sharded`.

    Args:
        workers: over how many devices to spread the workers of one run; None for all there are.
        coordinates: into how many parts `simulate` cuts the parameters between steps, where an
            axis of theirs divides. The workers are spread over these devices too.
        grid: over how many devices to spread the runs of a sweep, each of them with all workers.
        devices: the devices; None for the first of JAX's.

    Raises:
        TypeError: if a size isn't a static integer.
        ValueError: if one is below 1, or if there aren't so many devices.

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


def worker_sharding(mesh: Mesh, num_workers: int) -> NamedSharding:
    """Where `simulate` on the mesh has leaves (n, ...): each worker's with the device it is on.

    Where the number of workers doesn't divide every device has all of them.

    Args:
        mesh: see `make_mesh`.
        num_workers: n.
    """
    parts = mesh.shape[WORKERS] * mesh.shape[COORDINATES]
    spread = (WORKERS, COORDINATES) if num_workers % parts == 0 else None
    return NamedSharding(mesh, PartitionSpec(spread))


def place_workers(data: Tree, mesh: Mesh | None) -> Tree:
    """The workers' data where `worker_sharding` says.

    With a mesh over several processes each has to have the data of its own devices' workers only:
    other rows aren't read.

    Args:
        data: leaves (n, ...).
        mesh: see `make_mesh`; None leaves them where they are.
    """
    if mesh is None:
        return data
    return jax.tree.map(lambda x: _placed(x, worker_sharding(mesh, len(x))), data)


def place_everywhere(data: Tree, mesh: Mesh | None) -> Tree:
    """What all workers share, such as test data: the same on every device.

    Args:
        data: any arrays; the same in all processes.
        mesh: see `make_mesh`; None leaves them where they are.
    """
    if mesh is None:
        return data
    return jax.tree.map(lambda x: _placed(x, NamedSharding(mesh, PartitionSpec())), data)


def _placed(x: Any, where: NamedSharding) -> jax.Array:
    if isinstance(x, jax.Array) and where.is_fully_addressable:
        return jax.device_put(x, where)  # which copies only what isn't there
    return jax.make_array_from_callback(x.shape, where, lambda index: x[index])


def sharded(tx: optax.GradientTransformation, mesh: Mesh) -> optax.GradientTransformationExtraArgs:
    """A chain over stacked updates, leaves (n, *shape), with the workers spread over the mesh.

    Its state and what it gives are those of the chain itself: bit for bit where a vote or a
    coordinate-wise rule aggregates, to rounding with sums.

    Args:
        tx: the chain.
        mesh: see `make_mesh`.
    """
    tx = optax.with_extra_args_support(tx)
    update = on_mesh(tx.update, mesh)
    jitted = jax.jit(update)

    def sharded_update(
        updates: Any, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        # Promised updates are no argument of a jitted function, but are in one already.
        return (update if isinstance(updates, Promise) else jitted)(
            updates, state, params, **extra_args
        )

    return optax.GradientTransformationExtraArgs(tx.init, sharded_update)
