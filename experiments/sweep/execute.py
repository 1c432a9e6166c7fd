"""Running a grid: program by program, chunk by chunk, leaving out what is finished."""

import shutil
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import medjax
from experiments import communication, machine, memory, results
from experiments.checkpoints import keeping
from experiments.keeper import FOLDER
from experiments.program import Compiled, compile_program, many_runs
from experiments.setup import Hyperparameters, hyperparameters
from experiments.sweep import store
from experiments.sweep.plan import Chunk, Group, grid_axis, make_chunks
from experiments.training import Stop, train
from experiments.workers import worker_data

_LESS_MEMORY = "fewer workers, smaller batches, a worker_chunk or a smaller model take less"


class Progress(NamedTuple):
    """What has just happened.

    Attributes:
        program: which.
        run_steps: how many steps of how many runs have been done since the last.
        finished: how many runs have been.
        kept: how many steps of how many runs had been done by an earlier session, of a chunk that
            is gone on with.
        compiled: the program, if it has just been compiled.
    """

    program: int
    run_steps: int = 0
    finished: int = 0
    kept: int = 0
    compiled: Compiled | None = None


class Work(NamedTuple):
    """What there is to do of a program.

    Attributes:
        program: which.
        group: its runs.
        chunks: those that aren't finished, by number.
    """

    program: int
    group: Group
    chunks: dict[int, Chunk]


def unfinished(
    folder: Path, groups: Sequence[Group], at_once: Sequence[int], parts: int = 1
) -> list[Work]:
    """Of each program, what isn't finished, in chunks that are spread over so many devices."""
    work = []
    for number, (group, most) in enumerate(zip(groups, at_once, strict=True)):
        chunks = dict(enumerate(make_chunks(group, most, parts)))
        chunks = {k: c for k, c in chunks.items() if not store.part(folder, number, k).exists()}
        if chunks:
            work.append(Work(number, group, chunks))
    return work


def execute(
    folder: Path,
    work: Sequence[Work],
    stop: Stop,
    mesh: Mesh | None = None,
    checkpoint_every: int | None = None,
) -> Iterator[Progress]:
    """Run what there is to do, writing each chunk when it is done, until `stop` is requested.

    Args:
        folder: the sweep's.
        work: what there is to do.
        stop: ends it early.
        mesh: the devices; None for one.
        checkpoint_every: of the chunk under way, checkpoints are kept about so often, if at all.

    Raises:
        ValueError: if a program doesn't fit the memory, before it is run.
    """
    done: dict[Hashable, Any] = {}
    for program, group, chunks in work:
        task, config = group.task, group.task.config
        compiled: Compiled | None = None
        data = _LatestData(group)
        for number, chunk in chunks.items():
            inputs = (_values(group, chunk), data.of(chunk.seeds), task.held_out)
            if compiled is None:
                runs = many_runs(task, mesh, grid_axis(group, machine.parts(mesh)))
                compiled = compile_program(runs, *inputs, done, mesh)
                memory.check_program(compiled.num_bytes, inputs[1], mesh, _LESS_MEMORY)
                yield Progress(program, compiled=compiled)
            path, new = store.part(folder, program, number), int(chunk.new.sum())
            rows: dict[str, list[Any]] = {}
            with keeping(folder / FOLDER / path.stem, checkpoint_every) as keeper:
                start, step = keeper.latest() if keeper is not None else None, 0
                if start is not None:
                    kept, step = start.regular(config.steps, config.eval_every), start.step
                    rows = {name: list(values) for name, values in kept.items()}
                    yield Progress(program, kept=step * new)
                for progress in train(
                    compiled,
                    *inputs,
                    steps=config.steps,
                    eval_every=config.eval_every,
                    bits=communication.per_step(task, inputs[0].b),
                    stop=stop,
                    start=start,
                ):
                    rows = progress.added_to(rows)
                    if keeper is not None and progress.step < config.steps:
                        keeper.update(progress.step, progress.state, rows, now=stop.requested)
                    yield Progress(program, (progress.step - step) * new)
                    step = progress.step
            if step < config.steps:
                return
            results.write_table(path, _columns(group, chunk, rows))
            shutil.rmtree(folder / FOLDER, ignore_errors=True)
            yield Progress(program, finished=new)
            if stop.requested:
                return


class _LatestData:
    """The workers' examples of a chunk's seeds, kept while the seeds stay the same."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._seeds: list[int] = []
        self._data: Any = None

    def of(self, seeds: np.ndarray) -> medjax.WorkerData:
        if self._seeds != seeds.tolist():
            self._data = None  # free the memory first
            indices = jax.tree.map(lambda x: x[seeds], self._group.indices)
            self._data = worker_data(self._group.task, indices)
            self._seeds = seeds.tolist()
        return self._data


def _values(group: Group, chunk: Chunk) -> Hyperparameters:
    """The chunk's numbers, each (s, h)."""
    settings = [hyperparameters(group.task, group.settings[k]) for k in chunk.settings]
    seeds = [group.seeds[k] for k in chunk.seeds]
    values = [values._replace(seed=seed) for seed in seeds for values in settings]
    return jax.tree.map(lambda *x: jnp.array(x).reshape(chunk.new.shape), *values)


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
