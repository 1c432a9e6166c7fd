"""Running a grid: program by program, chunk by chunk, leaving out what is finished."""

import shutil
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from medjax.lab.storage import results
from medjax.lab.storage.checkpoints import keeping
from medjax.lab.storage.keeper import FOLDER
from medjax.lab.sweep import store
from medjax.lab.sweep.fit import Work, fit
from medjax.lab.sweep.inputs import Inputs
from medjax.lab.sweep.plan import Chunk, Group, make_chunks
from medjax.lab.task import communication
from medjax.lab.task.program import Compiled
from medjax.lab.task.training import Stop, train


class Progress(NamedTuple):
    """What has just happened.

    Attributes:
        program: which.
        run_steps: how many steps of how many runs have been done since the last.
        finished: how many runs have been.
        kept: how many steps of how many runs had been done by an earlier session, of a chunk that
            is gone on with.
        compiled: the program, if it has just been compiled.
        at_once: for how many runs side by side, if it has. It may differ from what was planned, and
            has to stay: it is to be written down before going on.
    """

    program: int
    run_steps: int = 0
    finished: int = 0
    kept: int = 0
    compiled: Compiled | None = None
    at_once: int | None = None


def unfinished(
    folder: Path, groups: Sequence[Group], at_once: Sequence[int], parts: int = 1
) -> list[Work]:
    """Of each program, what isn't finished, in chunks that are spread over so many devices."""
    work = []
    for number, (group, most) in enumerate(zip(groups, at_once, strict=True)):
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
    """Run what there is to do, writing each chunk when it is done, until `stop` is requested.

    Args:
        folder: the sweep's.
        work: what there is to do.
        stop: ends it early.
        mesh: the devices; None for one.
        checkpoint_every: of the chunk under way, checkpoints are kept about so often, if at all.
        limit: the memory that a program is to take; see `fit`.

    Raises:
        TooLarge: if a program doesn't fit the memory, before it is run.
    """
    done: dict[Hashable, Any] = {}
    inputs = Inputs(mesh)
    for planned in work:
        item, compiled = fit(planned, inputs, mesh, limit, done)
        yield Progress(item.program, compiled=compiled, at_once=item.at_once)
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

    A function of its own, so that what it had on the devices is gone before the next.
    """
    program, group, chunk = work.program, work.group, work.chunks[number]
    config, new, path = group.task.config, int(chunk.new.sum()), store.part(folder, program, number)
    values, workers, held_out = inputs.of(group, chunk)
    rows: dict[str, list[Any]] = {}
    with keeping(folder / FOLDER / path.stem, checkpoint_every) as keeper:
        start, step = keeper.latest() if keeper is not None else None, 0
        if start is not None:
            kept, step = start.regular(config.steps, config.eval_every), start.step
            rows = {name: list(values) for name, values in kept.items()}
            yield Progress(program, kept=step * new)
        for progress in train(
            compiled,
            values,
            workers,
            held_out,
            steps=config.steps,
            eval_every=config.eval_every,
            bits=communication.per_step(group.task, values.b),
            stop=stop,
            start=start,
        ):
            rows = progress.added_to(rows)
            if keeper is not None and progress.step < config.steps:
                keeper.update(progress.step, progress.state, rows, now=stop.requested)
            yield Progress(program, (progress.step - step) * new)
            step = progress.step
    if step == config.steps:
        results.write_table(path, _columns(group, chunk, rows))
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        yield Progress(program, finished=new)


def _columns(
    group: Group, chunk: Chunk, rows: Mapping[str, Sequence[Any]]
) -> dict[str, np.ndarray]:
    """A row for each of the chunk's new runs and measurements."""
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
