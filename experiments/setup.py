"""From a run's settings to the programs that run it: data, workers, model, algorithm.

What differs only in numbers (`Hyperparameters`) shares one `Task`, and so one compiled program.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

import medjax
from experiments import algorithms, models
from experiments.config import RunConfig, partitioner
from experiments.data import Dataset, hold_out, load
from experiments.options import ADAPTIVE, THEORY


class Hyperparameters(NamedTuple):
    """The settings that may be traced: numbers, or arrays of them under vmap.

    Attributes:
        lr: the step size.
        b: the scale of the noise, or the fraction of an adaptive one; None without noise.
        momentum: the server's; None without.
        seed: of the model, the noise and the mini-batches.
    """

    lr: float | Float[Array, "..."]
    b: float | Float[Array, "..."] | None
    momentum: float | Float[Array, "..."] | None
    seed: int | Int[Array, "..."]


@dataclass(frozen=True, eq=False)
class Task:
    """What runs that differ only in their hyper-parameters have in common.

    Attributes:
        config: one of theirs.
        rule: how the server aggregates.
        model: the network.
        train: the images and labels that the workers share out.
        held_out: images and labels that they don't: "test" and perhaps "validation".
        num_params: d.
        sizes: those of the data set, for the record.
    """

    config: RunConfig
    rule: medjax.rules.Rule
    model: nn.Module
    train: tuple[np.ndarray, np.ndarray]
    held_out: dict[str, tuple[jax.Array, jax.Array]]
    num_params: int
    sizes: dict[str, Any]


def prepare(config: RunConfig, dataset: Dataset) -> Task:
    """Put together what a run needs, and check that it fits together.

    Raises:
        ValueError: if the settings don't fit each other or the data.
    """
    options = {
        "num_byzantine": config.declared_byzantine,
        "zero": config.zero,
        "tie": config.tie,
    }
    given = {name: value for name, value in options.items() if value is not None}
    rule = algorithms.build_rule(config.rule, given, config.workers)
    train, validation = hold_out(dataset.train_x, dataset.train_y, config.validation)
    held_out = {"test": (dataset.test_x, dataset.test_y)}
    if validation is not None:
        held_out["validation"] = validation
    model = models.MODELS[config.model](num_classes=dataset.num_classes)
    like = jax.eval_shape(model.init, jax.random.key(0), train[0][:1])
    return Task(
        config,
        rule,
        model,
        train,
        {name: (jnp.asarray(x), jnp.asarray(y)) for name, (x, y) in held_out.items()},
        sum(leaf.size for leaf in jax.tree.leaves(like)),
        {
            "train_examples": len(train[1]),
            **{f"{name}_examples": len(y) for name, (_, y) in held_out.items()},
            "num_classes": dataset.num_classes,
            "image_shape": list(train[0].shape[1:]),
        },
    )


def share_out(task: Task, seeds: Sequence[int]) -> medjax.WorkerData:
    """Which examples each worker has, for each seed: indices (S, n, m), and sizes (S, n).

    Raises:
        ValueError: if such a partition doesn't exist, or if its workers have too few examples.
    """
    config, labels = task.config, task.train[1]
    partition = partitioner(config)
    parts = [_limit(partition(labels, config.workers, seed), config, seed) for seed in seeds]
    for sizes in ([len(part) for part in seed_parts] for seed_parts in parts):
        if config.batch_size != "full" and int(config.batch_size) > max(sizes):
            raise ValueError(
                f"batch size {config.batch_size} is more than the {max(sizes)} examples of the "
                "largest worker; valid: up to that, or full"
            )
    # All seeds' workers at once, so that they are padded alike: one program serves all.
    every = [part for seed_parts in parts for part in seed_parts]
    indices = medjax.stack_workers(np.arange(len(labels)), every)
    return jax.tree.map(
        lambda x: np.asarray(x).reshape(len(seeds), config.workers, *x.shape[1:]), indices
    )


def _limit(parts: list[np.ndarray], config: RunConfig, seed: int) -> list[np.ndarray]:
    """Of each worker's examples as many as it is to have."""
    count = config.examples_per_worker
    if count is None:
        return parts
    fewest = min(len(part) for part in parts)
    if count > fewest:
        raise ValueError(
            f"{count} examples per worker are more than the {fewest} of the smallest worker"
        )
    rng = np.random.default_rng(seed)
    return [np.sort(rng.choice(part, count, replace=False)) for part in parts]


def worker_data(task: Task, indices: medjax.WorkerData) -> medjax.WorkerData:
    """The examples themselves."""
    rows = np.asarray(indices.examples)
    return medjax.WorkerData(
        tuple(jnp.asarray(x[rows]) for x in task.train), jnp.asarray(indices.sizes)
    )


def hyperparameters(task: Task, config: RunConfig) -> Hyperparameters:
    """A run's numbers, the theorems' where it asks for them."""
    lr, b = config.lr, config.b
    theorem = algorithms.theorem(config.rule)
    if theorem is not None:
        rates = theorem(max(1, config.steps), task.num_params)
        lr = rates.lr if lr == THEORY else lr
        b = rates.b if b == THEORY else b
    if isinstance(b, str):
        b = float(b.removeprefix(ADAPTIVE))
    return Hyperparameters(float(lr), b, config.momentum, config.seed)


@dataclass(frozen=True, eq=False)
class Setup:
    """All that a single run needs.

    Attributes:
        task: the task.
        values: the run's hyper-parameters.
        workers: each worker's training examples.
        sizes: those of the data set and of the workers, for the record.
    """

    task: Task
    values: Hyperparameters
    workers: medjax.WorkerData
    sizes: dict[str, Any]


def build(config: RunConfig) -> Setup:
    """Load the data, give it to the workers, and build the model and the algorithm.

    Raises:
        ValueError: if the settings don't fit each other or the data.
        FileNotFoundError, ImportError: if the data can't be had.
    """
    task = prepare(config, load(config.dataset))
    indices = jax.tree.map(lambda x: x[0], share_out(task, [config.seed]))
    sizes = indices.sizes.tolist()
    return Setup(
        task,
        hyperparameters(task, config),
        worker_data(task, indices),
        task.sizes | {"smallest_worker": min(sizes), "largest_worker": max(sizes)},
    )
