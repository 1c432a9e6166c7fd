"""A worker on a node: runs chunks of a sweep for the driver, and writes nothing."""

import platform
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medjax.lab.data import Dataset
from medjax.lab.machine.memory import exhaustion, free_bytes
from medjax.lab.storage import provenance
from medjax.lab.sweeps.cluster import parcel
from medjax.lab.sweeps.cluster.parcel import Conditions, Problem
from medjax.lab.sweeps.execute import Cost, train_chunk
from medjax.lab.sweeps.fit import LESS_MEMORY, Work, fit
from medjax.lab.sweeps.inputs import Inputs
from medjax.lab.sweeps.plan import make_chunks
from medjax.lab.task.program import Compiled
from medjax.lab.task.training import Stop


class Description(NamedTuple):
    """A worker, as the driver knows it.

    Attributes:
        other: what is of another version here, which ends the matter; "" if nothing is.
        device: as in a sweep's record.
        free_bytes: the memory that a program may take.
    """

    other: str
    device: dict[str, Any]
    free_bytes: int


class Fitted(NamedTuple):
    """News of a program that has been compiled.

    Attributes:
        cost: what it costs.
        runs_side_by_side: the number that fits the worker's memory, which may not be the planned.
    """

    cost: Cost
    runs_side_by_side: int


class Order(NamedTuple):
    """A chunk to run.

    Attributes:
        program: the program's number.
        runs_side_by_side: the most that it takes.
        begun: whether that has to stay.
        chunk: the chunk's number.
        limit: the memory that the program is to take; see `fit`.
    """

    program: int
    runs_side_by_side: int
    begun: bool
    chunk: int
    limit: int | None


class Node:
    """Runs chunks on the first of its devices; Ray makes a process of it.

    The last program stays compiled, and the data stay on the device, from one chunk to the next.
    """

    def __init__(self) -> None:
        self._work: Work | None = None
        self._compiled: Compiled | None = None
        self._inputs = Inputs()
        self._done: dict[Hashable, Any] = {}

    def join(self, conditions: Conditions) -> Description:
        """Compute as the driver would from here on, and describe the device."""
        other = parcel.difference(conditions.versions, parcel.versions())
        if other:
            return Description(other, {}, 0)
        parcel.adopt(conditions)
        return Description("", provenance.device() | {"processor": _processor()}, free_bytes())

    def run(self, order: Order, problem: Problem, dataset: Dataset) -> Iterator[Any]:
        """Run a chunk.

        Yields:
            `Fitted`, if the program had to be compiled; it is the last if another number of runs
            fits. Then numbers of steps done since the last, and at the end the measurements.

        Raises:
            TooLarge: if it doesn't fit the memory.
            ValueError: if functions of one's own aren't the same here.
        """
        with exhaustion(LESS_MEMORY):
            if not self._has(order):
                yield self._compile(order, problem, dataset)
                if not self._has(order):
                    return
            assert self._work is not None
            assert self._compiled is not None
            group = self._work.group
            chunk = make_chunks(group, order.runs_side_by_side)[order.chunk]
            rows: dict[str, list[Any]] = {}
            step = 0
            for progress in train_chunk(group, chunk, self._compiled, self._inputs, Stop()):
                rows = progress.added_to(rows)
                if progress.step > step:
                    yield progress.step - step
                step = progress.step
            yield {name: np.stack(values) for name, values in rows.items()}

    def _has(self, order: Order) -> bool:
        """Tell if the order's program is the compiled one."""
        work = self._work
        return work is not None and (work.program, work.runs_side_by_side) == order[:2]

    def _compile(self, order: Order, problem: Problem, dataset: Dataset) -> Fitted:
        if self._work is not None and self._work.program == order.program:
            group = self._work.group
        else:
            group = parcel.unpacked(problem, dataset)
        self._work = self._compiled = None  # free the memory first
        chunks = dict(enumerate(make_chunks(group, order.runs_side_by_side)))
        chunks = {order.chunk: chunks[order.chunk], **chunks}  # whose data are placed
        work = Work(order.program, group, order.runs_side_by_side, chunks, order.begun)
        self._work, self._compiled = fit(work, self._inputs, None, order.limit, self._done)
        cost = Cost(self._compiled.seconds, self._compiled.num_bytes)
        return Fitted(cost, self._work.runs_side_by_side)


def _processor() -> str:
    """Return the name of the processor, whose kind decides the last bits; "" if it isn't known."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x.partition(": ")[2] for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
