"""Compile a program for as many runs side by side as the memory holds.

The memory that a program takes is known once it is compiled, and estimated before. If the estimate
was too low, fewer runs go side by side; if it was far too high, on a device with a memory of its
own, more.
"""

from collections.abc import Hashable
from typing import Any, NamedTuple

from jax.sharding import Mesh

from medjax.lab.machine import devices, memory
from medjax.lab.sweeps.inputs import Inputs
from medjax.lab.sweeps.plan import Chunk, Group, grid_axis, make_chunks
from medjax.lab.task.program import Compiled, compile_program, many_runs
from medjax.lab.task.setup import explained

LESS_MEMORY = "fewer workers, smaller batches, a worker_chunk or a smaller model take less"
_FAR_TOO_FEW = 2.0  # if so many times the runs would fit, compiling again is worth it


class Work(NamedTuple):
    """The chunks of a program that are still to be run.

    Attributes:
        program: the program's number.
        group: its runs.
        runs_side_by_side: the most that it takes, from which the chunks follow.
        chunks: the unfinished ones, by number.
        begun: whether a chunk has been kept, so that the others have to stay as they are.
    """

    program: int
    group: Group
    runs_side_by_side: int
    chunks: dict[int, Chunk]
    begun: bool = False

    @property
    def chunk_size(self) -> int:
        """The number of runs in each chunk, those that fill it up included."""
        return next(iter(self.chunks.values())).new.size


def fit(
    work: Work,
    inputs: Inputs,
    mesh: Mesh | None,
    limit: int | None,
    done: dict[Hashable, Any],
) -> tuple[Work, Compiled]:
    """Compile a program, for fewer or more runs than planned if the memory says so.

    Each attempt takes at most half as many as the one before, so there are few.

    Args:
        work: the program's chunks.
        inputs: makes the program's arguments.
        mesh: the devices; None for one.
        limit: the memory that a program is to take of a device, its data included, so that a sweep
            that goes on decides as it did at the beginning; None if only what is free counts.
        done: see `compile_program`.

    Returns:
        The chunks, cut anew if need be, and the program.

    Raises:
        TooLarge: if not even one run fits on each device, or fewer than the sweep was begun with.
    """
    may_grow = limit is not None and not work.begun
    while True:
        compiled, room, refusal = _tried(work, inputs, mesh, limit, done)
        other = work
        if room < 1 and not work.begun:
            size = work.chunk_size
            fewer = _cut(work, min(size // 2, int(size * room)), mesh)
            other = fewer if fewer.chunk_size < size else work
        elif room >= _FAR_TOO_FEW and may_grow:
            more = _cut(work, int(work.chunk_size * room), mesh)
            other = more if more.chunk_size > work.chunk_size else work
        if other is work:
            if compiled is None:
                raise memory.TooLarge(refusal)
            return work, compiled
        work, may_grow = other, False


def _tried(
    work: Work,
    inputs: Inputs,
    mesh: Mesh | None,
    limit: int | None,
    done: dict[Hashable, Any],
) -> tuple[Compiled | None, float, str]:
    """Compile a program and compare it with the memory.

    Returns:
        The program, None if it can't be run; the number of times that it fits; the reason if not.
    """
    group, chunk = work.group, next(iter(work.chunks.values()))
    advice = LESS_MEMORY
    if work.begun:
        size = work.chunk_size
        advice = f"the sweep was begun with {size} runs side by side, and goes on with as many"
    try:
        runs = many_runs(group.task, mesh, grid_axis(group, devices.parts(mesh)))
        with memory.exhaustion(advice):  # some compilers refuse what doesn't fit their device
            arguments = inputs.of(group, chunk)
            with explained(group.task.config):
                compiled = compile_program(runs, *arguments, done, mesh)
        memory.check_program(compiled.num_bytes, arguments[1], mesh, advice)
    except memory.TooLarge as error:
        return None, min(error.share, 0.5), str(error)
    if limit is None:
        return compiled, 1.0, ""
    whole = limit / (compiled.num_bytes * devices.sharing_memory(mesh))
    return compiled, min(whole, memory.room(compiled.num_bytes, arguments[1], mesh)), ""


def _cut(work: Work, most: int, mesh: Mesh | None) -> Work:
    """Cut a program's runs into chunks of at most so many."""
    most = max(1, most)
    chunks = make_chunks(work.group, most, devices.parts(mesh))
    return work._replace(runs_side_by_side=most, chunks=dict(enumerate(chunks)))
