"""From a run's settings to what the programs need that run it: data, model, algorithm.

What differs only in numbers (`Hyperparameters`) shares one `Task`, and so one compiled program.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from medjax._engine import checks
from medjax._engine.plain import accepts_key
from medjax.attacks import DataAttack
from medjax.lab.data import Dataset, checked, hold_out, load
from medjax.lab.machine import memory
from medjax.lab.models import catalogue as models
from medjax.lab.settings import own, rules
from medjax.lab.settings.config import Settings, own_parts
from medjax.lab.settings.parts import Part
from medjax.lab.task import backdoor, optimizer
from medjax.lab.task.interpret import noise_distribution
from medjax.lab.task.protocol import Protocol, build_protocol
from medjax.objectives import Objective, augmented, classification, language_modelling
from medjax.partition import PARTITIONS
from medjax.workers import Algorithm

_BYTES_DEALT = 32  # of an example: its label and its index, in two orders

_OBJECTIVES = {"images": classification, "characters": language_modelling}


@dataclass(frozen=True, eq=False)
class Task:
    """The common part of runs that differ only in their hyper-parameters.

    Attributes:
        config: one of theirs.
        protocol: what the workers send, who lies, and how the server aggregates.
        algorithm: one with other numbers, to look at; None where workers send gradients.
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

    config: Settings
    protocol: Protocol
    algorithm: Algorithm | None
    model: nn.Module
    objective: Objective
    train: tuple[np.ndarray, np.ndarray]
    classes: np.ndarray
    held_out: dict[str, tuple[np.ndarray, np.ndarray]]
    num_params: int
    like: Any
    sizes: dict[str, Any]


def check(config: Settings) -> None:
    """Check what can be told of the settings without the data, which may take long to load.

    Raises:
        ValueError: if they don't fit each other.
    """
    with explained(config):
        optimizer.example(config, build_protocol(config))
        noise = noise_distribution(config)
        if noise is not None:
            jax.eval_shape(lambda key: noise.sample(key, (2,)), jax.random.key(0))
        if config.augment is not None:
            config.augment.build()


def explained(config: Settings) -> AbstractContextManager[None]:
    """Tell in one line what goes wrong in functions of one's own."""
    return own.explained({part.name: part.factory for part in own_parts(config)})


def load_data(dataset: str | Part, clients: str | None = None) -> Dataset:
    """Load a data set by its name, or make one's own.

    Args:
        dataset: the name, or what makes it.
        clients: the column that says whose an example is; None for the usual.

    Raises:
        ValueError: if it isn't one.
        FileNotFoundError, ImportError: if it can't be had.
    """
    if isinstance(dataset, str):
        return load(dataset, clients=clients)
    with own.explained({dataset.name: dataset.factory}):
        return checked(dataset.build(), str(dataset))


def prepare(config: Settings, dataset: Dataset) -> Task:
    """Put together what a run needs, and check that it fits together.

    Raises:
        ValueError: if the settings don't fit each other or the data.
    """
    with explained(config):
        return _prepare(config, dataset)


def _prepare(config: Settings, dataset: Dataset) -> Task:
    _check_enough(config, len(dataset.groups))
    protocol = build_protocol(config, dataset.num_classes)
    algorithm = optimizer.example(config, protocol)
    for attack in protocol.data_attacks:
        _check_data_attack(attack, dataset)
    model = _model(config, dataset)
    train, classes = (dataset.train_x, dataset.train_y), _classes(config, dataset)
    held_out = {"test": (dataset.test_x, dataset.test_y)}
    held = hold_out(dataset.groups, config.validation)
    if held.any():
        x, y = train
        train, classes = (x[~held], y[~held]), classes[~held]
        held_out["validation"] = (x[held], y[held])
    _check_server(config, len(classes))
    held_out |= backdoor.triggered(protocol.data_attacks, dataset.test_x, dataset.test_y)
    like = jax.eval_shape(model.init, jax.random.key(0), train[0][:1])
    _check_logits(config, dataset, model, like)
    if protocol.compressor is not None:
        protocol.compressor.bits(like)  # likewise
    return Task(
        config,
        protocol,
        algorithm,
        model,
        _objective(config, dataset, model),
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


def _check_enough(config: Settings, num_examples: int) -> None:
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


def _check_server(config: Settings, num_examples: int) -> None:
    """Check that the server can have as many examples of its own as the rule asks for.

    Raises:
        ValueError: if there aren't so many.
    """
    count = rules.server_examples(config.rule)
    if count is not None and count > num_examples:
        raise ValueError(
            f"--rule {config.rule} gives the server {count} examples of its own, there are "
            f"{num_examples} training examples"
        )


def _model(config: Settings, dataset: Dataset) -> nn.Module:
    """Make the network.

    Raises:
        ValueError: if it isn't for such data, or is no flax module.
    """
    if config.model.digest is None:
        models.check_takes(config.model.name, dataset)
        for name, size in config.model.settings.items():
            try:
                checks.integer(name, size, minimum=1)
            except (TypeError, ValueError) as error:
                raise ValueError(f"--model {config.model}: {error}") from None
    made = config.model.build(num_classes=dataset.num_classes)
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"--model {config.model} makes {type(made).__name__}; valid: a flax.linen module"
        )
    return made


def _check_logits(config: Settings, dataset: Dataset, model: nn.Module, params: Any) -> None:
    """Check what the network makes of two examples.

    Raises:
        ValueError: if it isn't a number for each class.
    """
    x, y = dataset.train_x[:2], dataset.train_y[:2]
    found = jax.eval_shape(_apply(model), params, x)
    shape, dtype = getattr(found, "shape", None), getattr(found, "dtype", None)
    wanted = (*y.shape, dataset.num_classes)
    fits = shape and shape[:-1] == y.shape and shape[-1] >= dataset.num_classes
    if not fits or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"--model {config.model} makes an array of shape {shape} and dtype {dtype} of "
            f"{len(x)} examples; valid: {wanted} and floating point, a number for each class"
        )


def _objective(config: Settings, dataset: Dataset, model: nn.Module) -> Objective:
    """Make what is minimised, of images that are perhaps augmented.

    Raises:
        ValueError: if the data aren't images, or the augmentation gives something else.
    """
    made: Any = _OBJECTIVES[dataset.inputs](_apply(model))
    # Programs contain it eleven times; it is this task's own, so that it can be traced but once.
    made = jax.jit(made, inline=True)
    if config.augment is None:
        return made
    if dataset.inputs != "images":
        raise ValueError(
            f"--augment {config.augment} is of images, and dataset {dataset.name!r} is of "
            f"{dataset.inputs}; valid: none"
        )
    augment = config.augment.build()
    images = jax.ShapeDtypeStruct((2, *dataset.train_x.shape[1:]), jnp.float32)
    found = jax.eval_shape(augment, images, jax.random.key(0))
    shape, dtype = getattr(found, "shape", None), getattr(found, "dtype", None)
    if (shape, dtype) != (images.shape, images.dtype):
        raise ValueError(
            f"--augment {config.augment} makes an array of shape {shape} and dtype {dtype}; valid: "
            f"{images.shape} and {images.dtype}, as it is given"
        )
    return augmented(made, augment)


def _apply(model: nn.Module) -> Callable[..., Any]:
    """Return the network as a function, with a key if the network's own call takes one."""
    if not accepts_key(model.__call__):
        return model.apply
    return lambda params, inputs, key=None: model.apply(params, inputs, key=key)


def _classes(config: Settings, dataset: Dataset) -> np.ndarray:
    """Return the class of each training example that the partition goes by.

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
