"""The workers' gradients: all of them, some of them, or only their weighted sum."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from medjax._engine.mesh import over_shards
from medjax._engine.plain import accepts_key
from medjax._engine.random import MaybeKey
from medjax._engine.stacked import Examples, PyTree, Updates
from medjax.objectives import Objective, Stateful
from medjax.partition import WorkerData

# A vmap over more examples than this runs in chunks of workers, down to one worker: beyond it
# activations fall out of cache, and those of a convolutional network would fill the memory. (The
# activations of one worker's examples have to fit, and those of the test data.)
_EXAMPLES_PER_CHUNK = 8192

# So many numbers of gradients, 64 MiB of float32, exist at a time where the rule doesn't need all.
# Smaller chunks are slower, as the matrix products of a few workers are small.
_NUMBERS_PER_CHUNK = 1 << 24


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


class LocalGradients(NamedTuple):
    """The workers' results, stacked, or one worker's.

    Attributes:
        metrics: averages over the worker's examples by name, "loss" among them.
        updates: the gradients of the losses.
        states: the new model states; None without any.
    """

    metrics: dict[str, Float[Array, "..."]]
    updates: PyTree
    states: PyTree


def local_gradients(
    objective: Objective,
    params: PyTree,
    local: Local,
    *,
    at_own_params: bool = False,
) -> LocalGradients:
    """Compute each worker's average metrics over its batch, and the gradient of its loss.

    Args:
        objective: the objective.
        params: the common parameters.
        local: the workers' batches, leaves (n, ...).
        at_own_params: whether `params` are stacked, leaves (n, *shape), one set for each worker.

    Returns:
        Metrics (n,), gradients with leaves (n, *shape), and the new states.
    """

    def compute(inputs: tuple[PyTree, Local]) -> LocalGradients:
        at, worker = inputs
        return worker_gradient(objective, at if at_own_params else params, worker)

    chunk = _EXAMPLES_PER_CHUNK // _num_rows(local.examples)
    return map_workers(compute, (params if at_own_params else None, local), chunk)


def map_workers(f: Callable[[Any], PyTree], inputs: PyTree, chunk: int) -> PyTree:
    """Apply f to each worker's part of the inputs, and stack the results.

    Whatever f doesn't return is never held for all workers.

    Args:
        f: a function of one worker's inputs.
        inputs: leaves (n, ...).
        chunk: how many workers to vmap over; at least 1 are.
    """

    def local(inputs: PyTree, *_: Any) -> PyTree:
        if chunk >= _count(inputs):
            return jax.vmap(f)(inputs)
        return lax.map(f, inputs, batch_size=max(1, chunk))

    return over_shards(local, inputs, _count(inputs), "workers")


def worker_gradient(objective: Objective, params: PyTree, local: Local) -> LocalGradients:
    """Compute one worker's average metrics over its batch, and the gradient of its loss."""
    counts = jnp.arange(_num_rows(local.examples, axis=0)) < local.sizes

    def average(values: Array) -> Array:
        return jnp.sum(jnp.where(counts, values, 0)) / jnp.maximum(local.sizes, 1)

    def average_loss(params: PyTree) -> tuple[Array, tuple[dict[str, Array], PyTree]]:
        metrics, state = evaluate_examples(
            objective, params, local.examples, local.keys, local.states
        )
        averages = {name: average(values) for name, values in metrics.items()}
        return averages["loss"], (averages, state)

    gradient, (averages, state) = jax.grad(average_loss, has_aux=True)(params)
    return LocalGradients(averages, gradient, state)


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
    wanted = (_num_rows(examples, axis=0),)
    for name, values in metrics.items():
        if values.shape != wanted:
            raise ValueError(
                "an objective gives one number for each example: "
                f'"{name}" must have shape {wanted}, got {values.shape}'
            )
    wide = {k: x.astype(jnp.promote_types(x.dtype, jnp.float32)) for k, x in metrics.items()}
    return wide, state


def draws(objective: Objective) -> bool:
    """Tell whether training gives the objective keys."""
    return isinstance(objective, Stateful) or accepts_key(objective)


def weighted_gradient(
    objective: Objective, params: PyTree, local: Local, weights: Float[Array, " n"]
) -> Updates:
    """Compute ∇ Σ_i w_i f_i, the gradient of one loss over all workers' examples.

    One backward pass over the joined batch costs less than n gradients. It is right only where no
    example affects another's loss, and no worker has a key or a state of its own.
    """
    n, rows = len(local.sizes), _num_rows(local.examples)
    counts = jnp.arange(rows) < local.sizes[:, None]
    shares = jnp.where(counts, (weights / jnp.maximum(local.sizes, 1))[:, None], 0).reshape(-1)
    examples = jax.tree.map(lambda x: x.reshape(n * rows, *x.shape[2:]), local.examples)

    def gradient(examples: PyTree, shares: Array) -> Updates:
        def loss(params: PyTree) -> Array:
            losses = evaluate_examples(objective, params, examples)[0]["loss"]
            return jnp.sum(losses * shares.astype(losses.dtype))

        return jax.grad(loss)(params)

    def add_chunk(total: Updates, start: int | Array, count: int) -> Updates:
        def cut(x: Array) -> Array:
            return lax.dynamic_slice_in_dim(x, start, count)

        # The total isn't rounded to half precision before it is complete.
        return jax.tree.map(jnp.add, total, gradient(jax.tree.map(cut, examples), cut(shares)))

    chunks, rest = divmod(n * rows, _EXAMPLES_PER_CHUNK)
    if chunks == 0 or (chunks == 1 and not rest):
        return gradient(examples, shares)
    total = lax.fori_loop(
        0,
        chunks,
        lambda k, total: add_chunk(total, k * _EXAMPLES_PER_CHUNK, _EXAMPLES_PER_CHUNK),
        jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), params),
    )
    if rest:
        total = add_chunk(total, n * rows - rest, rest)
    return jax.tree.map(lambda x, p: x.astype(p.dtype), total, params)


def fastest_chunk(params: PyTree, examples: PyTree, num_workers: int) -> int:
    """Return how many workers' gradients to compute at a time where not all must be kept.

    All n if they fit, else an even number up to the limit, at least 2: sums take workers in pairs.
    A divisor of n above half the limit is preferred, as it leaves no remainder to compile.
    """
    limit = chunk_limit(params, examples)
    if limit >= num_workers:
        return num_workers
    limit = max(2, limit - limit % 2)
    divisors = (part for part in range(limit, limit // 2, -2) if num_workers % part == 0)
    return next(divisors, limit)


def chunk_limit(params: PyTree, examples: PyTree) -> int:
    """Return how many workers' gradients fit the limits of memory."""
    size = max(1, sum(leaf.size for leaf in jax.tree.leaves(params)))
    return min(_EXAMPLES_PER_CHUNK // _num_rows(examples), _NUMBERS_PER_CHUNK // size)


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
    rows = _num_rows(data.examples)
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


def _num_rows(examples: PyTree, axis: int = 1) -> int:
    return jax.tree.leaves(examples)[0].shape[axis]


def _count(inputs: PyTree) -> int:
    return jax.tree.leaves(inputs)[0].shape[0]
