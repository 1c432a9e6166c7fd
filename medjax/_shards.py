"""Where the n workers are: maps over the parts of them that the devices of the ambient mesh have.

The mesh is JAX's own, as `jax.set_mesh` or `medjax.sharding` sets it. Workers are spread over its
axes `workers` and `coordinates`. Without such axes, and within a map over them, all workers are
here: everything below then does nothing.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, PyTree, Shaped

WORKERS = "workers"
"""The axis of a mesh along which the workers of a run are spread."""

COORDINATES = "coordinates"
"""The axis along which the parameters are cut between steps; the workers are spread over it too."""

GRID = "grid"
"""The axis along which the runs of a sweep are spread."""

Axes: TypeAlias = tuple[str, ...]
Result = TypeVar("Result")


def axes() -> Axes:
    """The axes of the ambient mesh over which the workers are spread."""
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
    inputs: PyTree[Shaped[Array, "n ..."]],
    num_workers: int,
    out: Literal["workers", "all"],
) -> PyTree:
    """f of each device's part of the workers.

    Args:
        f: (leaves (w, ...) of the w workers here, the index of the first, the axes of the mesh that
            they are spread over) to leaves (w, ...), or to what is the same on all devices.
            If n doesn't divide, the last devices have workers of index n on, of zeros.
        inputs: leaves (n, ...).
        num_workers: n.
        out: which of the two f gives.
    """
    names = axes()
    if not names:
        return f(inputs, 0, ())
    mesh = jax.sharding.get_abstract_mesh()
    each = -(-num_workers // math.prod(mesh.shape[name] for name in names))
    missing = each * math.prod(mesh.shape[name] for name in names) - num_workers

    def pad(x: Array) -> Array:
        # XLA keeps what doesn't divide as if it were filled up: nothing has to move.
        return jnp.pad(x, ((0, missing), *[(0, 0)] * (x.ndim - 1))) if missing else x

    def local(inputs: PyTree) -> PyTree:
        return f(inputs, lax.axis_index(names) * each, names)

    # Of runs side by side, vmapped with `spmd_axis_name=GRID`, each device has its own.
    grid = {GRID} if _kinds().get(GRID) == AxisType.Auto else set()
    spread = PartitionSpec(names)
    result = jax.shard_map(
        local,
        in_specs=(spread,),
        out_specs=spread if out == "workers" else PartitionSpec(),
        axis_names={*names, *grid},
        check_vma=False,  # what all_gather gives is the same everywhere, which it can't know
    )(jax.tree.map(pad, inputs))
    return jax.tree.map(lambda x: x[:num_workers], result) if out == "workers" else result


def spread(states: PyTree[Shaped[Array, "n ..."]]) -> PyTree[Shaped[Array, "n ..."]]:
    """What each worker keeps, with the worker; where n doesn't divide XLA places it."""
    names = axes()
    if not names:
        return states
    parts = math.prod(_length(name) for name in names)
    return jax.tree.map(
        lambda x: x if len(x) % parts else lax.with_sharding_constraint(x, PartitionSpec(names)),
        states,
    )


def cut(params: PyTree) -> PyTree:
    """The parameters, each leaf cut along its longest axis that divides by `coordinates`."""
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
    """The sum over the devices."""
    return lax.psum(x, names) if names else x


def to_columns(x: Shaped[Array, "w d"], num_workers: int, names: Axes) -> Shaped[Array, "n _"]:
    """From all coordinates of the workers here to all workers' at a part of the coordinates.

    Columns of zeros are added where their number doesn't divide.
    """
    if not names:
        return x
    missing = -x.shape[1] % lax.axis_size(names)
    x = jnp.pad(x, ((0, 0), (0, missing)))
    return lax.all_to_all(x, names, split_axis=1, concat_axis=0, tiled=True)[:num_workers]


def from_columns(x: Shaped[Array, " _"], size: int, names: Axes) -> Shaped[Array, " d"]:
    """One number for each of the `size` coordinates, from those of each device's part."""
    return lax.all_gather(x, names, tiled=True)[:size] if names else x


def here(x: Any, first: Int[Array, ""] | int, count: int) -> Any:
    """The part of the `count` workers from `first` on; 0 for those of index n on."""
    if isinstance(first, int):
        return x
    return jnp.take(x, first + jnp.arange(count), axis=0, mode="fill", fill_value=0)


def on_mesh(f: Callable[..., Result], mesh: Mesh | None) -> Callable[..., Result]:
    """f, traced with its workers spread over the mesh; f itself for None.

    To be jitted, or called in what is.
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
    """The same, from which XLA knows the devices: an abstract mesh has none."""

    def anchor(x: Any) -> Any:
        if not isinstance(x, jax.Array):
            return x
        free = PartitionSpec(*[PartitionSpec.UNCONSTRAINED] * x.ndim)
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, free))

    return jax.tree.map(anchor, tree)
