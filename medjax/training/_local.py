"""One worker's examples, several workers' stacked, and an objective's metrics of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from medjax._engine.plain import accepts_key
from medjax._engine.precision import at_least_float32
from medjax._engine.random import MaybeKey
from medjax._engine.stacked import Examples, PyTree
from medjax.objectives import Objective, Stateful
from medjax.partition import WorkerData


class Local(NamedTuple):
    """One worker's batch, or several workers' batches, stacked with the workers along axis 0.

    Attributes:
        examples: a batch of examples, leaves (m, ...).
        sizes: how many of its m rows count: the first of them.
        keys: the worker's key, if the objective draws.
        states: the worker's model state, if the objective has one.
    """

    examples: Examples
    sizes: Int[Array, "..."]
    keys: Key[Array, "..."] | None = None
    states: PyTree = None


def evaluate_examples(
    objective: Objective,
    params: PyTree,
    examples: PyTree,
    key: MaybeKey = None,
    state: PyTree = None,
) -> tuple[dict[str, Float[Array, " B"]], PyTree]:
    """Compute an objective's metrics of a batch, "loss" among them, in float32 at least.

    Args:
        objective: the objective.
        params: one model's parameters.
        examples: the batch.
        key: a worker's key in training; None for measuring.
        state: a worker's model state, if the objective has one.

    Returns:
        The metrics and the new state.

    Raises:
        ValueError: if the objective doesn't return one number for each example, or calls a metric
            "loss".
    """
    if isinstance(objective, Stateful):
        losses, others, state = objective.function(params, state, examples, key)
    elif accepts_key(objective):
        losses, others = objective(params, examples, key=key)
    else:
        losses, others = objective(params, examples)
    if "loss" in others:
        raise ValueError('"loss" is the name of the loss itself, and no other metric')
    metrics = {"loss": losses} | others
    wanted = (num_rows(examples, axis=0),)
    for name, values in metrics.items():
        if values.shape != wanted:
            raise ValueError(
                "an objective gives one number for each example: "
                f'"{name}" must have shape {wanted}, got {values.shape}'
            )
    wide = {k: x.astype(at_least_float32(x.dtype)) for k, x in metrics.items()}
    return wide, state


def draws(objective: Objective) -> bool:
    """Tell whether training gives the objective keys."""
    return isinstance(objective, Stateful) or accepts_key(objective)


def sample_batch(
    data: WorkerData,
    batch_size: int,
    key: Key[Array, ""],
    place: Int[Array, ""],
    worker: Int[Array, ""],
) -> Local:
    """Draw a mini-batch of one worker's own examples, with replacement.

    A worker's draw is a function of the key and its index, whoever else draws.

    Args:
        data: the examples of some workers.
        batch_size: how many to draw.
        key: the step's.
        place: the row of the data to draw from.
        worker: the worker's index.

    Raises:
        ValueError: if the batch is larger than the largest worker's number of examples.
    """
    rows = num_rows(data.examples)
    if batch_size > rows:
        raise ValueError(
            f"batch_size {batch_size} is more than the {rows} examples of the largest worker"
        )
    worker_key = jax.random.fold_in(key, worker)
    drawn = jax.random.randint(worker_key, (batch_size,), 0, data.sizes[place])
    return Local(
        jax.tree.map(lambda array: array[place, drawn], data.examples), jnp.int32(batch_size)
    )


def sample_batches(
    data: WorkerData, batch_size: int, key: Key[Array, ""], workers: Int[Array, " m"]
) -> Local:
    """Draw mini-batches of some of the workers, as `sample_batch` does, stacked."""
    return jax.vmap(lambda i: sample_batch(data, batch_size, key, i, i))(workers)


def num_rows(examples: PyTree, axis: int = 1) -> int:
    """Return the length of an axis of the examples: by default, of each worker's."""
    return jax.tree.leaves(examples)[0].shape[axis]


def count(inputs: PyTree) -> int:
    """Return how many workers' inputs are stacked."""
    return jax.tree.leaves(inputs)[0].shape[0]
