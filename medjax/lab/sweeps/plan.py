"""Sort a grid's runs by program, and cut each program's runs into chunks that fit the machine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import jax
import numpy as np
from jaxtyping import Array, PyTree

import medjax
from medjax.lab.data import Dataset
from medjax.lab.settings.config import Settings, static
from medjax.lab.settings.parts import Part
from medjax.lab.task.setup import Task, prepare
from medjax.lab.task.workers import share_out

# About so many numbers, of gradients or of activations, in all the runs of a chunk: on a CPU, more
# don't fit the cache, and runs side by side are then slower than one after the other.
_CACHED_NUMBERS = 1 << 23
# Nor do more small runs than this gain anything; a sweep that is killed loses a chunk.
_MOST_SIDE_BY_SIDE = 64
_MOST_EXAMPLES = 8192  # of one run: medjax takes more of them in turns
_MOST_MEASURED = 1 << 26  # activations of one run: likewise
# On a CPU, of networks with more activations than the first of these for an example, and the second
# for all workers, so many as the third exist at a time, unless the objective draws.
_MANY_ACTIVATIONS, _MANY_NUMBERS, _MOST_ACTIVATIONS = 1 << 13, 3 << 24, 1 << 24


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one compiled program: every seed with every setting of the numbers.

    Attributes:
        task: the part that they share.
        seeds: S of them.
        settings: H of them, each a run of the first seed.
        runs: (S, H), the runs' places in the grid.
        indices: the places of each worker's examples, (S, n, m).
    """

    task: Task
    seeds: list[int]
    settings: list[Settings]
    runs: np.ndarray
    indices: medjax.WorkerData


@dataclass(frozen=True, eq=False)
class Chunk:
    """Runs that go side by side.

    Attributes:
        seeds: (s,), places among the group's seeds.
        settings: (h,), places among the group's settings.
        new: (s, h), False where a run has been in an earlier chunk: all chunks have one shape.
    """

    seeds: np.ndarray
    settings: np.ndarray
    new: np.ndarray


def make_groups(
    runs: Sequence[Settings], datasets: Mapping[tuple[str | Part, str | None], Dataset]
) -> list[Group]:
    """Group the runs by program.

    Args:
        runs: their settings.
        datasets: the data of each data set and column of clients that runs name.

    Raises:
        ValueError: if a run's settings don't fit each other or the data.
    """
    seeds: dict[Settings, dict[int, int]] = {}  # seed to place, of runs that differ only in it
    for place, run in enumerate(runs):
        seeds.setdefault(replace(run, seed=0), {})[run.seed] = place
    programs: dict[tuple[Settings, tuple[int, ...]], list[Settings]] = {}
    for setting, places in seeds.items():
        programs.setdefault((static(setting), tuple(places)), []).append(setting)
    groups = []
    for (_, group_seeds), settings in programs.items():
        task = prepare(settings[0], datasets[settings[0].dataset, settings[0].clients])
        places = [[seeds[setting][seed] for setting in settings] for seed in group_seeds]
        groups.append(
            Group(task, list(group_seeds), settings, np.array(places), share_out(task, group_seeds))
        )
    return groups


def make_chunks(group: Group, most: int, parts: int = 1) -> list[Chunk]:
    """Cut a group into rectangles of at most so many runs, all of one shape.

    Args:
        group: the runs.
        most: the most runs of a chunk, but for filling up.
        parts: the number of devices that a chunk is spread over, along `grid_axis`, whose length
            it divides.
    """
    num_seeds, num_settings = group.runs.shape
    seeds, settings = (parts, 1) if grid_axis(group, parts) == "seed" else (1, parts)
    by_setting = _even_parts(num_settings, max(1, most // seeds), settings)
    by_seed = _even_parts(num_seeds, max(1, most // len(by_setting[0][0])), seeds)
    return [
        Chunk(seeds, settings, new_seed[:, None] & new_setting)
        for seeds, new_seed in by_seed
        for settings, new_setting in by_setting
    ]


def grid_axis(group: Group, parts: int) -> Literal["seed", "setting"]:
    """Choose the axis of a chunk that is spread over devices: the one that fills them."""
    num_seeds, num_settings = group.runs.shape
    return "seed" if num_settings < parts and num_seeds > num_settings else "setting"


def _even_parts(count: int, most: int, multiple: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut 0, ..., count-1 into parts of one size, the largest up to `most` that wastes no tenth.

    Args:
        count: how many numbers there are.
        most: the most of a part.
        multiple: a divisor that the size of a part must have, whatever that wastes.

    Returns:
        Each part's numbers, the last filled up with the last number, and whether they are new.
    """
    size = next(s for s in range(min(most, count), 0, -1) if -count % s <= count // 10)
    size += -size % multiple
    numbers = np.arange(count + -count % size).reshape(-1, size)
    return [(np.minimum(part, count - 1), part < count) for part in numbers]


def runs_side_by_side(group: Group, budget: int, platform: str | None = None) -> int:
    """Return how many of the group's runs each device takes: as many as are fast, and fit.

    Args:
        group: the runs.
        budget: a device's free memory, in bytes.
        platform: the device's; None for this process's.
    """
    one = _numbers_per_run(group)
    fit = max(1, (budget - _data_bytes(group, 1)) // (4 * one))
    if (platform or jax.default_backend()) == "cpu":
        fit = min(fit, max(1, _CACHED_NUMBERS // one), _MOST_SIDE_BY_SIDE)
    return min(fit, group.runs.size)


def estimate_bytes(group: Group, chunk: Chunk) -> int:
    """Estimate the memory that a chunk takes, before it is compiled."""
    return 4 * _numbers_per_run(group) * chunk.new.size + _data_bytes(group, len(chunk.seeds))


def _numbers_per_run(group: Group) -> int:
    """Count the gradients of all workers, as they are when measured, and the activations."""
    task = group.task
    n, rows = group.indices.examples.shape[1:]
    held_out = max(len(labels) for _, labels in task.held_out.values())
    each = _activations_kept(task, 2) - _activations_kept(task, 1)
    size = task.config.batch_size
    batch, most = rows if size == "full" else int(size), task.config.eval_examples
    measured = rows if most == "all" else min(rows, int(most))
    trained, measured = (min(n * x, max(x, _MOST_EXAMPLES)) for x in (batch, measured))
    activations = max(each * trained, min(each * max(measured, held_out), _MOST_MEASURED))
    config, cpu = task.config, jax.default_backend() == "cpu"
    many = each > _MANY_ACTIVATIONS and activations > _MANY_NUMBERS
    if cpu and many and config.augment is None:
        activations = min(activations, max(_MOST_ACTIVATIONS, 2 * task.num_params))
    return n * task.num_params + activations + task.config.workers * _numbers_kept(task)


def _activations_kept(task: Task, examples: int) -> int:
    """Count what is kept of a batch for its gradient, the parameters themselves included."""

    def backward(params: PyTree, x: Array) -> Callable[..., PyTree]:
        return jax.vjp(lambda params: task.model.apply(params, x), params)[1]

    kept = jax.eval_shape(backward, task.like, task.train[0][:examples])
    return sum(leaf.size for leaf in jax.tree.leaves(kept))


def _numbers_kept(task: Task) -> int:
    """Count what each worker keeps from one round to the next; a node its model too."""
    algorithm, kept = task.algorithm, 0
    if algorithm is not None and algorithm.worker.init is not None:
        found = jax.eval_shape(algorithm.worker.init, task.like)
        kept += sum(x.size for x in jax.tree.leaves(found))
    if algorithm is not None and algorithm.nodes is not None:
        found = jax.eval_shape(algorithm.optimizer.init, task.like)
        kept += task.num_params + sum(x.size for x in jax.tree.leaves(found)) // algorithm.nodes
    return kept


def _data_bytes(group: Group, num_seeds: int) -> int:
    """Return the size of the workers' examples of so many seeds, and of those held out."""
    each = sum(x[0].nbytes for x in group.task.train)
    held_out = sum(len(labels) for _, labels in group.task.held_out.values())
    return each * (num_seeds * group.indices.examples[0].size + held_out)
