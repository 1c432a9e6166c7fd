"""Run a grid: program by program, chunk by chunk, leaving out what is finished."""

import shutil
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from medjax.lab.storage import results
from medjax.lab.storage.checkpoints import keeping
from medjax.lab.storage.keeper import FOLDER, Start
from medjax.lab.sweeps import store
from medjax.lab.sweeps.fit import Work, fit
from medjax.lab.sweeps.inputs import Inputs
from medjax.lab.sweeps.plan import Chunk, Group, make_chunks
from medjax.lab.task import communication, training
from medjax.lab.task.program import Compiled
from medjax.lab.task.training import Stop, train


class Cost(NamedTuple):
    """Cost of a compiled program.

    Attributes:
        seconds: what compiling took.
        num_bytes: the memory that it takes.
    """

    seconds: float
    num_bytes: int


class Progress(NamedTuple):
    """News of a sweep.

    Attributes:
        program: the number of the program.
        run_steps: the steps done since the last news, times the runs that did them.
        finished: the number of runs that have just been finished and written.
        kept: the steps, times runs, that an earlier session did of a chunk that is gone on with.
        compiled: what the program costs, if it has just been compiled.
        runs_side_by_side: the number that it was compiled for, if it was. It may differ from the
            plan, and has to stay: write it down before going on.
        note: a line for the user.
    """

    program: int
    run_steps: int = 0
    finished: int = 0
    kept: int = 0
    compiled: Cost | None = None
    runs_side_by_side: int | None = None
    note: str = ""


def unfinished(
    folder: Path, groups: Sequence[Group], runs_side_by_side: Sequence[int], parts: int = 1
) -> list[Work]:
    """List each program's chunks that aren't finished.

    Args:
        folder: the sweep's.
        groups: the runs of each program.
        runs_side_by_side: the most that each program takes.
        parts: the number of devices that a chunk is spread over.
    """
    work = []
    for number, (group, most) in enumerate(zip(groups, runs_side_by_side, strict=True)):
        chunks = dict(enumerate(make_chunks(group, most, parts)))
        chunks = {k: c for k, c in chunks.items() if not store.part(folder, number, k).exists()}
        if chunks:
            work.append(Work(number, group, most, chunks, store.begun(folder, number)))
    return work


def execute(
    folder: Path,
    work: Sequence[Work],
    stop: Stop,
    mesh: Mesh | None = None,
    checkpoint_every: int | None = None,
    limit: int | None = None,
) -> Iterator[Progress]:
    """Run chunks, and write each when it is done, until `stop` is requested.

    Args:
        folder: the sweep's.
        work: the chunks.
        stop: ends the session early.
        mesh: the devices; None for one.
        checkpoint_every: about so many steps lie between checkpoints of the chunk under way; None
            for no checkpoints.
        limit: the memory that a program is to take; see `fit`.

    Raises:
        TooLarge: if a program doesn't fit the memory, before it is run.
    """
    done: dict[Hashable, Any] = {}
    inputs = Inputs(mesh)
    for planned in work:
        item, compiled = fit(planned, inputs, mesh, limit, done)
        cost = Cost(compiled.seconds, compiled.num_bytes)
        yield Progress(item.program, compiled=cost, runs_side_by_side=item.runs_side_by_side)
        for number in item.chunks:
            yield from _run_chunk(folder, item, number, compiled, inputs, stop, checkpoint_every)
            if stop.requested:
                return


def _run_chunk(
    folder: Path,
    work: Work,
    number: int,
    compiled: Compiled,
    inputs: Inputs,
    stop: Stop,
    checkpoint_every: int | None,
) -> Iterator[Progress]:
    """Run a chunk and write it, unless `stop` is requested before its end.

    When this returns, what it had on the devices is gone, before the next chunk begins.
    """
    program, group, chunk = work.program, work.group, work.chunks[number]
    config, new, path = group.task.config, int(chunk.new.sum()), store.part(folder, program, number)
    rows: dict[str, list[Any]] = {}
    with keeping(folder / FOLDER / path.stem, checkpoint_every) as keeper:
        start, step = keeper.latest() if keeper is not None else None, 0
        if start is not None:
            kept, step = start.regular(config.steps, config.eval_every), start.step
            rows = {name: list(values) for name, values in kept.items()}
            yield Progress(program, kept=step * new)
        for progress in train_chunk(group, chunk, compiled, inputs, stop, start):
            rows = progress.added_to(rows)
            if progress.measuring is not None:
                yield Progress(program)
                continue
            if keeper is not None and progress.step < config.steps:
                keeper.update(progress.step, progress.state, rows, now=stop.requested)
            yield Progress(program, (progress.step - step) * new)
            step = progress.step
    if rows and rows["step"][-1] == config.steps:
        write(folder, work, number, rows)
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        yield Progress(program, finished=new)


def train_chunk(
    group: Group,
    chunk: Chunk,
    compiled: Compiled,
    inputs: Inputs,
    stop: Stop,
    start: Start | None = None,
) -> Iterator[training.Progress]:
    """Run a chunk's runs side by side; see `train`."""
    arguments = inputs.of(group, chunk)
    config = group.task.config
    yield from train(
        compiled,
        *arguments,
        steps=config.steps,
        eval_every=config.eval_every,
        bits=communication.per_step(group.task, arguments[0].b),
        stop=stop,
        start=start,
    )


def write(folder: Path, work: Work, number: int, rows: Mapping[str, Sequence[Any]]) -> None:
    """Write what a finished chunk measured.

    Args:
        folder: the sweep's.
        work: the chunk's program.
        number: the chunk's.
        rows: a column for each metric, whose entries have a number for each of the chunk's runs.
    """
    path = store.part(folder, work.program, number)
    results.write_table(path, _columns(work.group, work.chunks[number], rows))


def _columns(
    group: Group, chunk: Chunk, rows: Mapping[str, Sequence[Any]]
) -> dict[str, np.ndarray]:
    """Make the columns of a table with a row for each of the chunk's new runs and measurements."""
    runs = group.runs[np.ix_(chunk.seeds, chunk.settings)][chunk.new]
    steps = np.array(rows["step"])
    return {
        "run": np.repeat(runs, len(steps)),
        "step": np.tile(steps, len(runs)),
        **{
            name: np.stack([x[chunk.new] for x in values], axis=1).ravel()
            for name, values in rows.items()
            if name != "step"
        },
    }
