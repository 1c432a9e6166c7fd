"""Maps over the workers that each device of the ambient mesh holds.

The mesh is JAX's own, as `jax.set_mesh` or `medjax.sharding` sets it. Workers are spread over its
axes `workers` and `coordinates`. Without such axes, and inside a map over them, one device holds
all workers, and everything below does nothing.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Shaped

from medjax._engine.stacked import PyTree

WORKERS = "workers"
"""The axis of a mesh along which the workers of a run are spread."""

COORDINATES = "coordinates"
"""The axis along which the parameters are cut between steps; the workers are spread over it too."""

GRID = "grid"
"""The axis along which the runs of a sweep are spread."""

Axes: TypeAlias = tuple[str, ...]
Result = TypeVar("Result")


def axes() -> Axes:
    """Return the axes of the ambient mesh over which the workers are spread."""
    mesh, kinds = jax.sharding.get_abstract_mesh(), _kinds()
    return tuple(
        name
        for name in (WORKERS, COORDINATES)
        if kinds.get(name) == AxisType.Auto and mesh.shape[name] > 1
    )


def _kinds() -> dict[str, AxisType]:
    mesh = jax.sharding.get_abstract_mesh()
    return dict(zip(mesh.axis_names, mesh.axis_types, strict=True))


def over_shards(
    f: Callable[[PyTree, Int[Array, ""] | int, Axes], PyTree],
    inputs: PyTree,
    num_workers: int,
    out: Literal["workers", "all"],
) -> PyTree:
    """Apply f on each device to the part of the workers that it holds.

    Where n doesn't divide by the devices, the last devices hold padding: workers from n on, whose
    inputs are arbitrary.

    Args:
        f: (leaves (w, ...) of the local workers, the index of the first, the mesh axes that they
            are spread over) to leaves (w, ...), or to a value that is the same on all devices.
        inputs: leaves (n, ...), or longer where they are padded already.
        num_workers: n.
        out: which of the two f returns.
    """
    names = axes()
    if not names:
        return f(jax.tree.map(lambda x: _first(x, num_workers), inputs), 0, ())
    mesh = jax.sharding.get_abstract_mesh()
    each = -(-num_workers // math.prod(mesh.shape[name] for name in names))
    padded = each * math.prod(mesh.shape[name] for name in names)

    def pad(x: Array) -> Array:
        # XLA stores an uneven axis as if it were filled up: nothing has to move for this.
        x = _first(x, padded)
        missing = padded - len(x)
        return jnp.pad(x, ((0, missing), *[(0, 0)] * (x.ndim - 1))) if missing else x

    def local(inputs: PyTree) -> PyTree:
        return f(inputs, lax.axis_index(names) * each, names)

    # In a vmap with `spmd_axis_name=GRID` each device has runs of its own.
    by_worker = PartitionSpec(names)
    result = jax.shard_map(
        local,
        in_specs=(by_worker,),
        out_specs=by_worker if out == "workers" else PartitionSpec(),
        axis_names={*names, *_grid_axis()},
        check_vma=False,  # it can't know that what all_gather returns is the same everywhere
    )(jax.tree.map(pad, inputs))
    return jax.tree.map(lambda x: x[:num_workers], result) if out == "workers" else result


def _first(x: Array, count: int) -> Array:
    return x if len(x) <= count else x[:count]


def fill_up(inputs: PyTree, num_workers: int) -> PyTree:
    """Add copies of the last worker's inputs until the devices divide the workers.

    `over_shards` fills up with zeros, which is cheaper: no row has to move. But a loss may not be
    finite on examples of zeros, and a weight of 0 doesn't remove NaN from a gradient.
    """
    names = axes()
    parts = math.prod(_length(name) for name in names)

    def fill(x: Array) -> Array:
        missing = max(0, -(-num_workers // parts) * parts - len(x))
        return jnp.pad(x, ((0, missing), *[(0, 0)] * (x.ndim - 1)), mode="edge")

    return jax.tree.map(fill, inputs) if names else inputs


def inside_shards() -> AbstractMesh:
    """Return the ambient mesh as functions see it that `over_shards` maps over devices.

    A jaxpr is tied to the mesh that it was traced under: it can only be evaluated in such a
    function if it was traced under this one.
    """
    mesh, names = jax.sharding.get_abstract_mesh(), axes()
    if not names:
        return mesh
    manual = {*names, *_grid_axis()}
    return mesh.update_axis_types({name: AxisType.Manual for name in manual})


def _grid_axis() -> set[str]:
    return {GRID} if _kinds().get(GRID) == AxisType.Auto else set()


def spread(states: PyTree) -> PyTree:
    """Place each worker's state on the device that holds the worker."""
    names = axes()
    if not names:
        return states
    return jax.tree.map(
        lambda x: lax.with_sharding_constraint(x, PartitionSpec(names)),
        states,
    )


def cut(params: PyTree) -> PyTree:
    """Cut each parameter along its longest axis that divides by the mesh axis `coordinates`."""
    parts = _kinds().get(COORDINATES) == AxisType.Auto and _length(COORDINATES)

    def cut_leaf(x: Array) -> Array:
        lengths = [length if length % parts == 0 else 0 for length in x.shape]
        if not any(lengths):
            return x
        names: list[str | None] = [None] * x.ndim
        names[lengths.index(max(lengths))] = COORDINATES
        return lax.with_sharding_constraint(x, PartitionSpec(*names))

    return jax.tree.map(cut_leaf, params) if parts and parts > 1 else params


def _length(name: str) -> int:
    return jax.sharding.get_abstract_mesh().shape[name]


def total(x: PyTree, names: Axes) -> PyTree:
    """Sum over the devices."""
    return lax.psum(x, names) if names else x


def to_columns(x: Shaped[Array, "w d"], num_workers: int, names: Axes) -> Shaped[Array, "n _"]:
    """Exchange all coordinates of the local workers for all workers at a part of the coordinates.

    Columns of zeros are added where their number doesn't divide by the devices.
    """
    if not names:
        return x
    missing = -x.shape[1] % lax.axis_size(names)
    x = jnp.pad(x, ((0, 0), (0, missing)))
    return lax.all_to_all(x, names, split_axis=1, concat_axis=0, tiled=True)[:num_workers]


def from_columns(x: Shaped[Array, " _"], size: int, names: Axes) -> Shaped[Array, " d"]:
    """Gather one number for each of the `size` coordinates from each device's part of them."""
    return lax.all_gather(x, names, tiled=True)[:size] if names else x


def local_slice(x: Any, first: Int[Array, ""] | int, count: int) -> Any:
    """Take the rows of the `count` workers from `first` on; padding workers get 0."""
    if isinstance(first, int):
        return x
    return jnp.take(x, first + jnp.arange(count), axis=0, mode="fill", fill_value=0)


def on_mesh(f: Callable[..., Result], mesh: Mesh | None) -> Callable[..., Result]:
    """Make f run with its workers spread over the mesh; None leaves it as it is.

    To be jitted, or called inside a jitted function.
    """
    if mesh is None:
        return f

    @functools.wraps(f)
    def on(*args: Any, **kwargs: Any) -> Result:
        args, kwargs = _anchored((args, kwargs), mesh)
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return f(*args, **kwargs)

    return on


def _anchored(tree: PyTree, mesh: Mesh) -> PyTree:
    """Tie arrays to the mesh's devices, which XLA can't learn from an abstract mesh."""

    def anchor(x: Any) -> Any:
        if not isinstance(x, jax.Array):
            return x
        free = PartitionSpec(*[PartitionSpec.UNCONSTRAINED] * x.ndim)
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, free))

    return jax.tree.map(anchor, tree)
