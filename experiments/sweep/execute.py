"""Running a grid: program by program, chunk by chunk, leaving out what is finished."""

from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import medjax
from experiments import communication, machine, memory, results
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
        compiled: the program, if it has just been compiled.
    """

    program: int
    run_steps: int = 0
    finished: int = 0
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
    folder: Path, work: Sequence[Work], stop: Stop, mesh: Mesh | None = None
) -> Iterator[Progress]:
    """Run what there is to do, writing each chunk when it is done, until `stop` is requested.

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
            measured: list[tuple[int, dict[str, np.ndarray]]] = []
            step = 0
            for progress in train(
                compiled,
                *inputs,
                steps=config.steps,
                eval_every=config.eval_every,
                bits=communication.per_step(task, inputs[0].b),
                stop=stop,
            ):
                if progress.metrics is not None:
                    measured.append((progress.step, progress.metrics))
                yield Progress(program, (progress.step - step) * int(chunk.new.sum()))
                step = progress.step
            if step < config.steps:
                return
            columns = _columns(group, chunk, measured)
            results.write_table(store.part(folder, program, number), columns)
            yield Progress(program, finished=int(chunk.new.sum()))
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
    group: Group, chunk: Chunk, measured: Sequence[tuple[int, dict[str, np.ndarray]]]
) -> dict[str, np.ndarray]:
    """A row for each of the chunk's new runs and measurements."""
    runs = group.runs[np.ix_(chunk.seeds, chunk.settings)][chunk.new]
    steps = np.array([step for step, _ in measured])
    return {
        "run": np.repeat(runs, len(steps)),
        "step": np.tile(steps, len(runs)),
        **{
            name: np.stack([metrics[name][chunk.new] for _, metrics in measured], axis=1).ravel()
            for name in measured[0][1]
        },
    }
