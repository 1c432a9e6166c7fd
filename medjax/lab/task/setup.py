"""From a run's settings to what the programs need that run it: data, model, algorithm.

What differs only in numbers (`Hyperparameters`) shares one `Task`, and so one compiled program.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from medjax.attacks import Attack, DataAttack
from medjax.lab.data import Dataset, hold_out
from medjax.lab.machine import memory
from medjax.lab.models import catalogue as models
from medjax.lab.settings import algorithms, named
from medjax.lab.settings.algorithms import Protocol
from medjax.lab.settings.config import RunConfig
from medjax.lab.settings.interpret import number_in, server
from medjax.lab.settings.options import THEORY
from medjax.lab.task import backdoor
from medjax.objectives import Objective, classification, language_modelling
from medjax.partition import PARTITIONS
from medjax.rules import StatefulRule

_BYTES_DEALT = 32  # of an example: its label and its index, in two orders

_FEWEST_CLASSES = 2  # with which all factories are content

_OBJECTIVES = {"images": classification, "characters": language_modelling}


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
        objective: what is minimised.
        train: the inputs and labels that the workers share out.
        classes: of each of those examples the class, or the author, that the partition goes by.
        held_out: inputs and labels that they don't: "test", and perhaps "validation" and, under
            such an attack, "backdoor". Not on a device yet.
        num_params: d.
        like: the shapes and dtypes of the parameters.
        sizes: those of the data set, for the record.
    """

    config: RunConfig
    protocol: Protocol
    data_attacks: tuple[DataAttack, ...]
    model: nn.Module
    objective: Objective
    train: tuple[np.ndarray, np.ndarray]
    classes: np.ndarray
    held_out: dict[str, tuple[np.ndarray, np.ndarray]]
    num_params: int
    like: Any
    sizes: dict[str, Any]


def check(config: RunConfig) -> None:
    """Check what can be told of the settings without the data, which may take long to load.

    Raises:
        ValueError: if they don't fit each other.
    """
    _protocol(config, _FEWEST_CLASSES)
    server(config, 1.0, config.momentum)


def prepare(config: RunConfig, dataset: Dataset) -> Task:
    """Put together what a run needs, and check that it fits together.

    Raises:
        ValueError: if the settings don't fit each other or the data.
    """
    _check_enough(config, len(dataset.groups))
    protocol, data_attacks = _protocol(config, dataset.num_classes)
    server(config, 1.0, config.momentum)  # says what its settings can't be
    for attack in data_attacks:
        _check_data_attack(attack, dataset)
    models.check_takes(config.model, dataset)
    train, classes = (dataset.train_x, dataset.train_y), _classes(config, dataset)
    held_out = {"test": (dataset.test_x, dataset.test_y)}
    held = hold_out(dataset.groups, config.validation)
    if held.any():
        x, y = train
        train, classes = (x[~held], y[~held]), classes[~held]
        held_out["validation"] = (x[held], y[held])
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
        _OBJECTIVES[dataset.inputs](model.apply),  # pyright: ignore[reportArgumentType]
        train,
        classes,
        held_out,
        sum(leaf.size for leaf in jax.tree.leaves(like)),
        like,
        {
            "train_examples": len(train[1]),
            **{f"{name}_examples": len(y) for name, (_, y) in held_out.items()},
            "num_classes": dataset.num_classes,
            "inputs": dataset.inputs,
            "input_shape": list(train[0].shape[1:]),
        },
    )


def _check_enough(config: RunConfig, num_examples: int) -> None:
    """Check what would else be noticed when arrays of so many workers or copies are asked for.

    Raises:
        ValueError: if there are fewer examples than workers, or too many copies of them.
    """
    memory.check_fits(
        f"dealing out {config.copies} copies of {num_examples} examples",
        config.copies * num_examples * _BYTES_DEALT,
        "fewer --copies take less",
    )
    if config.workers > config.copies * num_examples:
        raise ValueError(
            f"{config.workers} workers need at least as many examples, there are "
            f"{config.copies * num_examples}; --copies K, more than {config.copies}, gives each "
            "example to K workers"
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


def _classes(config: RunConfig, dataset: Dataset) -> np.ndarray:
    """Of each training example what the partition goes by.

    Raises:
        ValueError: if that is whose it is, and the data don't say.
    """
    if config.partition != "natural":
        return dataset.groups
    if dataset.authors is None:
        valid = ", ".join(name for name in PARTITIONS if name != "natural")
        raise ValueError(
            f"--partition natural is of data that say whose an example is, as text does, and "
            f"dataset {dataset.name!r} doesn't; valid: {valid}"
        )
    return dataset.authors


def _check_data_attack(attack: DataAttack, dataset: Dataset) -> None:
    """Poison an example, so that what the attack can't do with such data is said now.

    Raises:
        ValueError: if it can't.
    """
    if dataset.inputs != "images":
        raise ValueError(
            f"attack {attack.name} is on images, and dataset {dataset.name!r} is of "
            f"{dataset.inputs}; valid: an attack on vectors, such as ipm"
        )
    image, label = (jnp.asarray(x[None, :1]) for x in (dataset.train_x, dataset.train_y))
    poisoned = int(attack.poison(image, label, jnp.ones((1, 1), bool))[1].max())
    if poisoned >= dataset.num_classes:
        raise ValueError(
            f"{attack.name} gives label {poisoned}; valid: 0 to {dataset.num_classes - 1}"
        )


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
