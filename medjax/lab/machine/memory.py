"""Check that memory is enough, and say so in one line if it isn't."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from jax.sharding import Mesh

from medjax._engine.stacked import PyTree
from medjax.lab.machine.devices import sharing_memory

_SHARE_OF_FREE_MEMORY = 0.75
_ASSUMED_HOST_BYTES = 8 * 2**30  # where the system isn't asked


class TooLarge(ValueError):
    """The error of work that doesn't fit into the memory.

    Attributes:
        share: about the share of the work that would fit; a half if that isn't known.
    """

    def __init__(self, message: str, share: float = 0.5) -> None:
        super().__init__(message)
        self.share = share


def free_bytes() -> int:
    """Return the memory that a command may take of one of its devices."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    else:
        free = _available_host_bytes()
    return int(_SHARE_OF_FREE_MEMORY * free)


def check_fits(what: str, num_bytes: int, advice: str) -> None:
    """Check that there is enough memory.

    Args:
        what: the work that takes it, in words.
        num_bytes: the memory needed.
        advice: settings that take less, in words.

    Raises:
        TooLarge: if there is less.
    """
    free = free_bytes()
    if num_bytes > free:
        raise TooLarge(
            f"{what} takes {in_words(num_bytes)}, more than the {in_words(free)} that there are: "
            f"{advice}",
            free / num_bytes,
        )


def check_program(num_bytes: int, data: PyTree, mesh: Mesh | None, advice: str) -> None:
    """Check that a device can run a program, beside the data which it has already.

    Args:
        num_bytes: the memory that the program takes of a device, its data included.
        data: the arguments that are on the devices already.
        mesh: the devices; None for one.
        advice: settings that take less, in words.

    Raises:
        TooLarge: if it can't.
    """
    check_fits("a step, or a measurement,", _missing(num_bytes, data, mesh), advice)


def room(num_bytes: int, data: PyTree, mesh: Mesh | None) -> float:
    """Return how many times a program fits beside its data; below 1 if it doesn't.

    Args:
        num_bytes: the memory that the program takes of a device, its data included.
        data: the arguments that are on the devices already.
        mesh: the devices; None for one.
    """
    return free_bytes() / max(1, _missing(num_bytes, data, mesh))


def _missing(num_bytes: int, data: PyTree, mesh: Mesh | None) -> int:
    there = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(data))
    return (num_bytes - there) * sharing_memory(mesh)


@contextmanager
def exhaustion(advice: str) -> Iterator[None]:
    """Turn JAX's error for a memory that is used up in this block into one line.

    Args:
        advice: settings that take less, in words.

    Raises:
        TooLarge: if it is used up.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise TooLarge(f"the memory of a device is used up: {advice}") from None


def in_words(num_bytes: float) -> str:
    """Write a number of bytes as in 1.5 GiB."""
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MiB"


def _available_host_bytes() -> int:
    try:  # what Linux could give without swapping: more than what lies idle
        lines = Path("/proc/meminfo").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("MemAvailable:"))
        return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        if not hasattr(os, "sysconf"):  # Windows
            return _ASSUMED_HOST_BYTES
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
