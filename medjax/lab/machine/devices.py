"""Choose the devices of a command, and spread runs and workers over them."""

import argparse
import math
import os
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from medjax import sharding
from medjax.lab.settings import cli

AUTO = "auto"
MOST_OF_A_CPU = 1024
"""The largest number of devices that a CPU may be split into."""

_AXES = (sharding.WORKERS, sharding.COORDINATES, sharding.GRID)


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the devices, which change no result but for rounding.

    Args:
        parser: the command's.
    """
    group = parser.add_argument_group("devices")
    group.add_argument(
        "--devices",
        metavar="auto|N",
        type=cli.integer_or(AUTO, 1),
        default=AUTO,
        help="how many each process uses; on a CPU, N makes so many of its cores (default: auto, "
        "all there are, and one on a CPU)",
    )
    group.add_argument(
        "--mesh",
        metavar="AXIS=N,...",
        type=_mesh,
        default={},
        help="over how many of them to spread the workers of a run (workers), its parameters "
        "(coordinates), and the runs of a sweep (grid), such as workers=4,grid=2 (default: all to "
        "workers; in a sweep, all to grid)",
    )


def make_mesh(arguments: argparse.Namespace, *, default: str) -> Mesh | None:
    """Make the mesh that the flags ask for; to be called before JAX is used.

    Args:
        arguments: the command's.
        default: the axis that takes all devices if no axis is named.

    Returns:
        The mesh; None for one device.

    Raises:
        ValueError: if there aren't so many devices, if processes would be left without any, or if
            a single run is to have a grid.
    """
    axes: dict[str, int] = arguments.mesh
    if axes.get(sharding.GRID, 1) > 1 and default != sharding.GRID:
        raise ValueError(f"--mesh grid={axes[sharding.GRID]} is for sweeps; a run has workers")
    wanted, size = arguments.devices, math.prod(axes.values())
    if wanted == AUTO and size > 1 and not jax.distributed.is_initialized():
        wanted = size
    if wanted != AUTO:
        _make_cpu_devices(wanted)
    there, processes = jax.local_device_count(), jax.process_count()
    if wanted == AUTO:
        wanted = 1 if jax.devices()[0].platform == "cpu" else there
    if wanted > there:
        raise ValueError(f"{wanted} devices are asked for, there are {there}")
    devices = [x for k in range(processes) for x in jax.local_devices(process_index=k)[:wanted]]
    text = ",".join(f"{name}={length}" for name, length in axes.items())
    if axes and size > len(devices):
        raise ValueError(f"--mesh {text} needs {size} devices, --devices gives {len(devices)}")
    if axes and processes > 1 and size < len(devices):
        raise ValueError(
            f"--mesh {text} is of {size} devices, but the {processes} processes have "
            f"{len(devices)}, and all have to be used"
        )
    if not axes:
        axes = {default: len(devices)}
    if size == 1 and len(devices) == 1:
        return None
    return sharding.make_mesh(**{"workers": 1, **axes}, devices=devices)


def parts(mesh: Mesh | None) -> int:
    """Return the number of devices that the runs of a sweep are spread over."""
    return 1 if mesh is None else mesh.shape[sharding.GRID]


def sharing_memory(mesh: Mesh | None) -> int:
    """Return the number of this process's devices that share one memory, at least 1.

    A CPU's devices do; others have their own.
    """
    here = [] if mesh is None else mesh.local_devices
    return max(1, sum(device.platform == "cpu" for device in here))


def described(mesh: Mesh | None) -> dict[str, Any]:
    """Describe the mesh for the record."""
    return {"mesh": None if mesh is None else dict(mesh.shape)}


def _make_cpu_devices(count: int) -> None:
    """Split the CPU into devices, if that is what JAX will use.

    Raises:
        ValueError: if they are more than JAX could make in a reasonable time.
    """
    if os.environ.get("JAX_PLATFORMS", "cpu").split(",")[0] == "cpu":
        if count > MOST_OF_A_CPU:
            raise ValueError(
                f"{count} devices are asked for; a CPU can be at most {MOST_OF_A_CPU} of them"
            )
        try:
            jax.config.update("jax_num_cpu_devices", count)
        except RuntimeError:  # JAX is in use already, with as many as there are
            return


def _mesh(text: str) -> Mapping[str, int]:
    """Parse the axes of a mesh and their lengths, for argparse."""
    axes: dict[str, int] = {}
    for part in text.split(","):
        name, _, length = part.partition("=")
        if name not in _AXES:
            raise argparse.ArgumentTypeError(
                f"unknown axis {name!r}: valid: {', '.join(_AXES)}, as in workers=4,grid=2"
            )
        if name in axes:
            raise argparse.ArgumentTypeError(f"{name} is there twice")
        try:
            axes[name] = cli.integer(1)(length)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{part!r}: {error}") from None
    return axes
