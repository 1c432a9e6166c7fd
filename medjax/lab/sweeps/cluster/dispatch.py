"""Give a sweep's chunks to the workers of a cluster, and write what comes back."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medjax.lab.data import Dataset
from medjax.lab.settings.parts import Part
from medjax.lab.sweeps import execute as execution
from medjax.lab.sweeps.cluster import parcel
from medjax.lab.sweeps.cluster.node import Fitted, Order
from medjax.lab.sweeps.cluster.workers import Cluster, Lost, Worker, reason
from medjax.lab.sweeps.execute import Progress
from medjax.lab.sweeps.fit import Work
from medjax.lab.sweeps.plan import make_chunks
from medjax.lab.task.training import Stop

_MOST_LOSSES = 3  # of a chunk, which then is taken for the reason
_SECONDS = 0.2  # between looks at whether to stop


@dataclass
class _Program:
    """A program whose chunks are given away.

    Attributes:
        work: its chunks.
        waiting: those that nobody has, by number.
        under_way: how many workers have one.
        arguments: the problem and the data, in Ray's store.
        losses: how often each has been lost.
    """

    work: Work
    waiting: list[int]
    arguments: tuple[Any, Any]
    under_way: int = 0
    losses: dict[int, int] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """Tell if a worker can have a chunk: the first is to tell how many runs fit."""
        return bool(self.waiting) and (self.work.begun or not self.under_way)


@dataclass
class _Job:
    """A chunk that a worker has; `steps`, times runs, have been told of."""

    worker: Worker
    program: _Program
    chunk: int
    steps: int = 0


def execute(
    cluster: Cluster,
    folder: Path,
    work: Sequence[Work],
    datasets: Mapping[tuple[str | Part, str | None], Dataset],
    stop: Stop,
    limit: int | None = None,
) -> Iterator[Progress]:
    """Run chunks on a cluster, and write each when it is done, until `stop` is requested.

    Args:
        cluster: the cluster, whose workers are dismissed at the end.
        folder: the sweep's.
        work: the chunks.
        datasets: the data by name and column of clients.
        stop: ends the session early.
        limit: the memory that a program is to take; see `fit`.

    Raises:
        TooLarge: if a program doesn't fit the memory of a node.
        ValueError: if a node can't run a program.
        Lost: if a chunk's worker dies each time.
    """
    put = {name: cluster.ray.put(data) for name, data in datasets.items()}
    programs = []
    for item in work:
        config = item.group.task.config
        problem = cluster.ray.put(parcel.packed(item.group))
        data = put[config.dataset, config.clients]
        programs.append(_Program(item, [*item.chunks], (problem, data)))
    jobs: list[_Job] = []
    try:
        while jobs or any(program.waiting for program in programs):
            if any(program.waiting for program in programs):
                cluster.look()
            else:
                cluster.release()
            cluster.welcome()
            jobs += _given(cluster, programs, limit)
            awaited = [job.worker.stream for job in jobs]
            awaited += [x.joining for x in cluster.workers if x.joining is not None]
            ready = []
            if awaited:
                ready, _ = cluster.ray.wait(awaited, timeout=_SECONDS)
            else:  # all nodes are lost, or taken
                time.sleep(_SECONDS)
            if stop.requested:
                return
            for job in [job for job in jobs if job.worker.stream in ready]:
                yield from _news(cluster, folder, job)
                if job.worker.stream is None:
                    jobs.remove(job)
                    job.program.under_way -= 1
    finally:
        cluster.dismiss()


def _given(cluster: Cluster, programs: Sequence[_Program], limit: int | None) -> Iterator[_Job]:
    """Give chunks to idle workers: of what they have compiled, else of what the fewest do."""
    for worker in [x for x in cluster.workers if x.idle]:
        can = [program for program in programs if program.open]
        if not can:
            return
        program = min(can, key=lambda x: (x.work.program != worker.program, x.under_way))
        work, chunk = program.work, program.waiting.pop(0)
        order = Order(work.program, work.runs_side_by_side, work.begun, chunk, limit)
        run = worker.actor.run.options(num_returns="streaming")
        worker.stream = run.remote(order, *program.arguments)
        worker.program = work.program
        program.under_way += 1
        yield _Job(worker, program, chunk)


def _news(cluster: Cluster, folder: Path, job: _Job) -> Iterator[Progress]:
    """Take a worker's news; its stream is None after the last that matters."""
    errors, worker, program = cluster.ray.exceptions, job.worker, job.program
    number = program.work.program
    try:
        news = cluster.ray.get(next(worker.stream))
    except errors.RayTaskError as error:
        if isinstance(error.cause, (ValueError, ImportError, OSError)):
            raise ValueError(f"node {worker.host}: {error.cause}") from None
        raise
    except errors.RayError as error:
        worker.stream = None
        cluster.lose(worker)
        yield Progress(number, run_steps=-job.steps, note=_lost(job, error))
        return
    if isinstance(news, Fitted):
        yield from _fitted(job, news)
    elif isinstance(news, int):
        done = news * int(program.work.chunks[job.chunk].new.sum())
        job.steps += done
        yield Progress(number, run_steps=done)
    else:
        worker.stream = None
        execution.write(folder, program.work, job.chunk, news)
        yield Progress(number, finished=int(program.work.chunks[job.chunk].new.sum()))


def _fitted(job: _Job, news: Fitted) -> Iterator[Progress]:
    """Note the number of runs that fits, which stays: the other chunks are of as many."""
    work = job.program.work
    if work.begun:  # another worker has compiled it before
        return
    chunks = work.chunks
    if news.runs_side_by_side != work.runs_side_by_side:
        job.worker.stream = None  # it leaves the chunk
        chunks = dict(enumerate(make_chunks(work.group, news.runs_side_by_side)))
        job.program.waiting = [*chunks]
    job.program.work = work._replace(
        runs_side_by_side=news.runs_side_by_side, chunks=chunks, begun=True
    )
    yield Progress(work.program, compiled=news.cost, runs_side_by_side=news.runs_side_by_side)


def _lost(job: _Job, error: Exception) -> str:
    """Put a chunk back whose worker is lost, and return a line that says so.

    Raises:
        Lost: if it has happened too often.
    """
    times = job.program.losses[job.chunk] = job.program.losses.get(job.chunk, 0) + 1
    what = f"a worker on node {job.worker.host} is lost"
    if times == _MOST_LOSSES:
        raise Lost(f"{what}, as {times - 1} others were with the same chunk: {reason(error)}")
    job.program.waiting.insert(0, job.chunk)
    return f"{what}: its chunk is run again"
