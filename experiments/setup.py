"""From a run's settings to the programs that run it: data, workers, model, algorithm.

What differs only in numbers (`Hyperparameters`) shares one `Task`, and so one compiled program.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

import medjax
from experiments import algorithms, backdoor, models, named
from experiments.algorithms import Protocol
from experiments.config import RunConfig
from experiments.data import Dataset, hold_out, load
from experiments.interpret import number_in, partitioner, server
from experiments.options import THEORY
from medjax import sharding
from medjax.attacks import Attack, DataAttack
from medjax.rules import StatefulRule


class Hyperparameters(NamedTuple):
    """The settings that may be traced: numbers, or arrays of them under vmap.

    Attributes:
        lr: the step size.
        b: the scale of the noise, or the fraction of an adaptive one; None without noise.
        local_lr: the length of the workers' own steps; None if they take none.
        worker_momentum: the workers'; None without.
        momentum: the server's; None without.
        seed: of the model, the noise and the mini-batches.
    """

    lr: float | Float[Array, "..."]
    b: float | Float[Array, "..."] | None
    local_lr: float | Float[Array, "..."] | None
    worker_momentum: float | Float[Array, "..."] | None
    momentum: float | Float[Array, "..."] | None
    seed: int | Int[Array, "..."]


@dataclass(frozen=True, eq=False)
class Task:
    """What runs that differ only in their hyper-parameters have in common.

    Attributes:
        config: one of theirs.
        protocol: what the workers send, who lies, and how the server aggregates.
        data_attacks: what the Byzantine workers do to their data before.
        model: the network.
        train: the images and labels that the workers share out.
        held_out: images and labels that they don't: "test", and perhaps "validation" and, under
            such an attack, "backdoor".
        num_params: d.
        like: the shapes and dtypes of the parameters.
        sizes: those of the data set, for the record.
    """

    config: RunConfig
    protocol: Protocol
    data_attacks: tuple[DataAttack, ...]
    model: nn.Module
    train: tuple[np.ndarray, np.ndarray]
    held_out: dict[str, tuple[jax.Array, jax.Array]]
    num_params: int
    like: Any
    sizes: dict[str, Any]


def prepare(config: RunConfig, dataset: Dataset) -> Task:
    """Put together what a run needs, and check that it fits together.

    Raises:
        ValueError: if the settings don't fit each other or the data.
    """
    protocol, data_attacks = _protocol(config, dataset.num_classes)
    for attack in data_attacks:
        _check_data_attack(attack, dataset)
    server(config, 1.0, config.momentum)  # says what its settings can't be
    train, validation = hold_out(dataset.train_x, dataset.train_y, config.validation)
    held_out = {"test": (dataset.test_x, dataset.test_y)}
    if validation is not None:
        held_out["validation"] = validation
    held_out |= backdoor.triggered(data_attacks, dataset.test_x, dataset.test_y)
    model = models.MODELS[config.model](num_classes=dataset.num_classes)
    like = jax.eval_shape(model.init, jax.random.key(0), train[0][:1])
    if protocol.compressor is not None:
        protocol.compressor.bits(like)  # likewise
    return Task(
        config,
        protocol,
        data_attacks,
        model,
        train,
        {name: (jnp.asarray(x), jnp.asarray(y)) for name, (x, y) in held_out.items()},
        sum(leaf.size for leaf in jax.tree.leaves(like)),
        like,
        {
            "train_examples": len(train[1]),
            **{f"{name}_examples": len(y) for name, (_, y) in held_out.items()},
            "num_classes": dataset.num_classes,
            "image_shape": list(train[0].shape[1:]),
        },
    )


def _protocol(config: RunConfig, num_classes: int) -> tuple[Protocol, tuple[DataAttack, ...]]:
    """What stands in the chain, and what is done to the data before.

    Raises:
        ValueError: if the settings don't fit each other.
    """
    n, asked = config.workers, config.participation or config.workers
    byzantine = config.byzantine or 0
    if asked > n:
        raise ValueError(f"participation {asked} is more than the {n} workers")
    if byzantine >= asked:
        raise ValueError(
            f"byzantine {byzantine} leaves no honest one of the {asked} workers that take part"
        )
    known = {
        "num_byzantine": config.declared_byzantine,
        "num_workers": asked,
        "num_classes": num_classes,
        "zero": config.zero,
        "tie": config.tie,
    }
    rule, mixings = algorithms.build_rule(config.rule, config.mix, known, asked)
    if isinstance(rule, StatefulRule) and rule.knows_workers and asked < n:
        raise ValueError(f"--rule {config.rule} remembers the workers: all must take part")
    parts = named.links(config.attack) if config.attack is not None else []
    if config.weights == "examples":
        # Mixed vectors are nobody's, and the weights aren't known until the data are shared out.
        if config.mix is not None:
            raise ValueError(f"--weights examples doesn't go with --mix {config.mix}")
        for part in filter(algorithms.takes_rule, parts):
            raise ValueError(f"--attack {part} is on rules without --weights examples")
    attacks = []
    if config.attack is not None and byzantine:
        attacks = algorithms.build_attacks(config.attack, rule, known, byzantine, asked)
    compressor = None
    if config.compress is not None:
        if algorithms.is_vote(config.rule):
            raise ValueError(
                f"--compress {config.compress} can't precede --rule {config.rule}: a vote is one "
                "bit already; valid: a rule of vectors, such as mean"
            )
        compressor = algorithms.build_compressor(config.compress)
    feedback = config.error_feedback == "yes"
    on_vectors = tuple(attack for attack in attacks if isinstance(attack, Attack))
    protocol = Protocol(rule, asked, byzantine, on_vectors, compressor, feedback, n, mixings)
    return protocol, tuple(attack for attack in attacks if isinstance(attack, DataAttack))


def _check_data_attack(attack: DataAttack, dataset: Dataset) -> None:
    """Poison an example, so that what the attack can't do with such data is said now.

    Raises:
        ValueError: if it can't.
    """
    image, label = (jnp.asarray(x[None, :1]) for x in (dataset.train_x, dataset.train_y))
    poisoned = int(attack.poison(image, label, jnp.ones((1, 1), bool))[1].max())
    if poisoned >= dataset.num_classes:
        raise ValueError(
            f"{attack.name} gives label {poisoned}; valid: 0 to {dataset.num_classes - 1}"
        )


def share_out(task: Task, seeds: Sequence[int]) -> medjax.WorkerData:
    """Which examples each worker has, for each seed: indices (S, n, m), and sizes (S, n).

    Raises:
        ValueError: if such a partition doesn't exist, or if its workers have too few examples.
    """
    config, labels = task.config, task.train[1]
    partition = partitioner(config)
    parts = [
        _seat(_limit(partition(labels, config.workers, seed), config, seed), config, seed)
        for seed in seeds
    ]
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


def _seat(parts: list[np.ndarray], config: RunConfig, seed: int) -> list[np.ndarray]:
    """In a random order if there are attackers: they are the last, whatever their data."""
    if not config.byzantine:
        return parts
    return [parts[i] for i in np.random.default_rng([seed, 1]).permutation(len(parts))]


def worker_data(
    task: Task, indices: medjax.WorkerData, mesh: Mesh | None = None
) -> medjax.WorkerData:
    """The examples themselves, of the Byzantine workers perhaps with something done to them.

    The indices are of one seed, or of several, with an axis for them in front. Of one seed's on a
    mesh, only those examples are taken that workers on this process's devices have.
    """
    rows, sizes = np.asarray(indices.examples), np.asarray(indices.sizes)
    one_seed = mesh if sizes.ndim == 1 else None

    def take(x: np.ndarray) -> jax.Array:
        if one_seed is None:
            return jnp.asarray(x[rows])
        shape, where = (*rows.shape, *x.shape[1:]), sharding.worker_sharding(one_seed, len(rows))
        return jax.make_array_from_callback(shape, where, lambda k: x[rows[(k or ())[:2]]])

    data = medjax.WorkerData(
        tuple(take(x) for x in task.train), sharding.place_workers(jnp.asarray(sizes), one_seed)
    )
    for attack in task.data_attacks:
        poison = functools.partial(attack, num_byzantine=task.protocol.num_byzantine)
        data = jax.jit(jax.vmap(poison) if sizes.ndim == 2 else poison)(data)
    return data


def hyperparameters(task: Task, config: RunConfig) -> Hyperparameters:
    """A run's numbers, the theorems' where it asks for them."""
    lr, b = config.lr, config.b
    theorem = algorithms.theorem(config.rule)
    if theorem is not None:
        rates = theorem(max(1, config.steps), task.num_params)
        lr = rates.lr if lr == THEORY else lr
        b = rates.b if b == THEORY else b
    return Hyperparameters(
        float(lr),
        number_in(b),
        config.local_lr,
        number_in(config.worker_momentum),
        config.momentum,
        config.seed,
    )


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


def build(config: RunConfig, mesh: Mesh | None = None) -> Setup:
    """Load the data, give it to the workers on the mesh, and build the model and the algorithm.

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
        worker_data(task, indices, mesh),
        task.sizes | {"smallest_worker": min(sizes), "largest_worker": max(sizes)},
    )
