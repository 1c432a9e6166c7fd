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


def sample_batches(
    data: WorkerData,
    batch_size: int,
    key: Key[Array, ""],
    places: Int[Array, " m"],
    workers: Int[Array, " m"] | None = None,
) -> Local:
    """Draw mini-batches of some of the workers, each with replacement from its own examples.

    A worker's draw is a function of the key and its index, whoever else draws.

    Args:
        data: the examples.
        batch_size: how many to draw.
        key: the step's.
        places: the rows of the data to draw from.
        workers: the indices of these workers, if they differ from the places.

    Raises:
        ValueError: if the batch is larger than the largest worker's number of examples.
    """
    rows = num_rows(data.examples)
    if batch_size > rows:
        raise ValueError(
            f"batch_size {batch_size} is more than the {rows} examples of the largest worker"
        )

    def draw(place: Array, worker: Array) -> Array:
        worker_key = jax.random.fold_in(key, worker)
        return jax.random.randint(worker_key, (batch_size,), 0, data.sizes[place])

    drawn = jax.vmap(draw)(places, places if workers is None else workers)
    batches = jax.tree.map(lambda array: array[places[:, None], drawn], data.examples)
    return Local(batches, jnp.full(places.shape, batch_size, jnp.int32))


def num_rows(examples: PyTree, axis: int = 1) -> int:
    """Return the length of an axis of the examples: by default, of each worker's."""
    return jax.tree.leaves(examples)[0].shape[axis]


def count(inputs: PyTree) -> int:
    """Return how many workers' inputs are stacked."""
    return jax.tree.leaves(inputs)[0].shape[0]
