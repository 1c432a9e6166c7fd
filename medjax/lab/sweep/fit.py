"""Compiling a program for as many runs side by side as the memory holds.

What a program takes is known when it is compiled. Before that it is estimated: where the estimate
was too low, fewer runs go side by side; where it was far too high, on a device with a memory of its
own, more.
"""

from collections.abc import Hashable
from typing import Any, NamedTuple

from jax.sharding import Mesh

from medjax.lab.machine import devices as machine
from medjax.lab.machine import memory
from medjax.lab.sweep.inputs import Inputs
from medjax.lab.sweep.plan import Chunk, Group, grid_axis, make_chunks
from medjax.lab.task.program import Compiled, compile_program, many_runs

LESS_MEMORY = "fewer workers, smaller batches, a worker_chunk or a smaller model take less"
_FAR_TOO_FEW = 2.0  # if so many times the runs would fit, it is worth compiling again


class Work(NamedTuple):
    """A program's runs that are still to be done.

    Attributes:
        program: which.
        group: its runs.
        at_once: how many runs go side by side, from which the chunks follow.
        chunks: those that aren't finished, by number.
        begun: whether something of it has been kept, so that its chunks have to stay as they are.
    """

    program: int
    group: Group
    at_once: int
    chunks: dict[int, Chunk]
    begun: bool = False

    @property
    def size(self) -> int:
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

    Each time there are at most half as many as before, so that it is soon over.

    Args:
        work: what there is to do.
        inputs: makes the program's arguments.
        mesh: the devices; None for one.
        limit: the memory that a program is to take of a device, its data included, so that a sweep
            that goes on decides as it did at the beginning; None if only what is free counts.
        done: see `compile_program`.

    Raises:
        TooLarge: if not even one run fits on each device, or not as many as it was begun with.
    """
    may_grow = limit is not None and not work.begun
    while True:
        compiled, room, refusal = _tried(work, inputs, mesh, limit, done)
        other = work
        if room < 1 and not work.begun:
            fewer = _cut(work, min(work.size // 2, int(work.size * room)), mesh)
            other = fewer if fewer.size < work.size else work
        elif room >= _FAR_TOO_FEW and may_grow:
            more = _cut(work, int(work.size * room), mesh)
            other = more if more.size > work.size else work
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
    """The program if it can be run, how many times over it fits, and else why it can't."""
    group, chunk = work.group, next(iter(work.chunks.values()))
    advice = LESS_MEMORY
    if work.begun:
        advice = f"the sweep was begun with {work.size} runs side by side, and goes on with as many"
    try:
        runs = many_runs(group.task, mesh, grid_axis(group, machine.parts(mesh)))
        with memory.exhaustion(advice):  # some compilers refuse what doesn't fit their device
            arguments = inputs.of(group, chunk)
            compiled = compile_program(runs, *arguments, done, mesh)
        memory.check_program(compiled.num_bytes, arguments[1], mesh, advice)
    except memory.TooLarge as error:
        return None, min(error.share, 0.5), str(error)
    if limit is None:
        return compiled, 1.0, ""
    whole = limit / (compiled.num_bytes * machine.sharing_memory(mesh))
    return compiled, min(whole, memory.room(compiled.num_bytes, arguments[1], mesh)), ""


def _cut(work: Work, at_once: int, mesh: Mesh | None) -> Work:
    """The same, with so many runs side by side."""
    at_once = max(1, at_once)
    chunks = make_chunks(work.group, at_once, machine.parts(mesh))
    return work._replace(at_once=at_once, chunks=dict(enumerate(chunks)))
