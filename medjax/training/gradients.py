"""The workers' gradients: all of them, some of them, or only their weighted sum."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key, PyTree

from medjax._engine.lazy import Promised
from medjax._engine.mesh import over_shards
from medjax._engine.stacked import Stacked, Updates
from medjax.partition._worker_data import WorkerData
from medjax.objectives import Objective

# More examples than this are taken worker by worker, or a few workers at a time: beyond it their
# activations fall out of cache, and a convolutional network's would fill the memory. (Those of one
# worker's examples have to fit, and those of the test data.)
_EXAMPLES_AT_ONCE = 8192

# About so many numbers of gradients exist at a time where the rule doesn't need all: 64 MiB of
# float32.
# Below it, fewer at a time are slower: the matrix products of a few workers are small.
_NUMBERS_AT_ONCE = 1 << 24

Batches = Callable[[PyTree, int | Int[Array, ""], int], WorkerData]
"""(inputs, first, count) to what `count` of the workers from `first` on compute their gradients of.

The inputs, leaves (n, ...), are what each worker has, perhaps only those of a part of the workers.
"""


def local_gradients(
    objective: Objective, params: PyTree, data: WorkerData
) -> tuple[dict[str, Float[Array, " n"]], Stacked]:
    """Each worker's average loss and metrics over its own examples, and the gradient of the loss.

    Returns:
        The metrics, "loss" among them, each (n,), and the gradients, leaves (n, *shape).
    """
    at_once = _EXAMPLES_AT_ONCE // _num_rows(data)
    return map_workers(lambda *both: both, objective, params, data, at_once=at_once)


def own_gradients(
    objective: Objective, params: Stacked, data: WorkerData
) -> tuple[dict[str, Float[Array, " n"]], Stacked]:
    """As `local_gradients`, each worker's at parameters of its own, leaves (n, *shape)."""
    return _over_workers(
        lambda worker: _worker_gradient(objective, *worker),
        (params, data.examples, data.sizes),
        _EXAMPLES_AT_ONCE // _num_rows(data),
    )


def map_workers(
    f: Callable[[dict[str, Array], Updates], PyTree],
    objective: Objective,
    params: PyTree,
    data: WorkerData,
    *,
    at_once: int,
) -> PyTree:
    """f of each worker's metrics and gradient, stacked; what f drops isn't kept for all.

    Args:
        f: of one worker.
        objective: what to take the gradients of.
        params: where.
        data: the workers' examples.
        at_once: how many workers to vmap over; 0 is taken for 1.
    """
    return _over_workers(
        lambda examples_and_size: f(*_worker_gradient(objective, params, *examples_and_size)),
        (data.examples, data.sizes),
        at_once,
    )


def _over_workers(f: Callable[[PyTree], PyTree], inputs: PyTree, at_once: int) -> PyTree:
    """f of each worker's part of the inputs, stacked; 0 workers at once are taken for 1."""

    def local(inputs: PyTree, *_: Any) -> PyTree:
        if at_once >= _num_workers(inputs):
            return jax.vmap(f)(inputs)
        return lax.map(f, inputs, batch_size=max(1, at_once))

    return over_shards(local, inputs, _num_workers(inputs), "workers")


def _num_workers(inputs: PyTree) -> int:
    return jax.tree.leaves(inputs)[0].shape[0]


def _worker_gradient(
    objective: Objective, params: PyTree, examples: PyTree, size: Int[Array, ""]
) -> tuple[dict[str, Array], Updates]:
    """The averages of a worker's metrics over its own examples, and the gradient of its loss."""
    own = jnp.arange(jax.tree.leaves(examples)[0].shape[0]) < size

    def average(values: Array) -> Array:
        return jnp.sum(jnp.where(own, values, 0)) / jnp.maximum(size, 1)

    def average_loss(params: PyTree) -> tuple[Array, dict[str, Array]]:
        metrics = evaluate_examples(objective, params, examples)
        averages = {name: average(values) for name, values in metrics.items()}
        return averages["loss"], averages

    gradient, averages = jax.grad(average_loss, has_aux=True)(params)
    return averages, gradient


def evaluate_examples(
    objective: Objective, params: PyTree, examples: PyTree
) -> dict[str, Float[Array, " B"]]:
    """The objective's metrics of a batch, "loss" among them, in float32 at least.

    Raises:
        ValueError: if the objective doesn't give one number for each example, or calls a metric
            "loss".
    """
    losses, others = objective(params, examples)
    if "loss" in others:
        raise ValueError('"loss" is the name of the loss itself, and no other metric')
    metrics = {"loss": losses} | others
    wanted = (jax.tree.leaves(examples)[0].shape[0],)
    for name, values in metrics.items():
        if values.shape != wanted:
            raise ValueError(
                "an objective gives one number for each example: "
                f'"{name}" must have shape {wanted}, got {values.shape}'
            )
    return {k: x.astype(jnp.promote_types(x.dtype, jnp.float32)) for k, x in metrics.items()}


def weighted_gradient(
    objective: Objective, params: PyTree, data: WorkerData, weights: Float[Array, " n"]
) -> Updates:
    """∇ Σ_i w_i f_i, the gradient of one loss over all workers' examples."""
    n, rows = len(data.sizes), _num_rows(data)
    own = jnp.arange(rows) < data.sizes[:, None]
    shares = jnp.where(own, (weights / jnp.maximum(data.sizes, 1))[:, None], 0).reshape(-1)
    examples = jax.tree.map(lambda x: x.reshape(n * rows, *x.shape[2:]), data.examples)

    def gradient(examples: PyTree, shares: Array) -> Updates:
        def loss(params: PyTree) -> Array:
            losses = evaluate_examples(objective, params, examples)["loss"]
            return jnp.sum(losses * shares.astype(losses.dtype))

        return jax.grad(loss)(params)

    def add_piece(total: Updates, start: int | Array, count: int) -> Updates:
        def cut(x: Array) -> Array:
            return lax.dynamic_slice_in_dim(x, start, count)

        # The total isn't rounded to half precision before it is complete.
        return jax.tree.map(jnp.add, total, gradient(jax.tree.map(cut, examples), cut(shares)))

    pieces, rest = divmod(n * rows, _EXAMPLES_AT_ONCE)
    if pieces == 0 or (pieces == 1 and not rest):
        return gradient(examples, shares)
    total = lax.fori_loop(
        0,
        pieces,
        lambda k, total: add_piece(total, k * _EXAMPLES_AT_ONCE, _EXAMPLES_AT_ONCE),
        jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), params),
    )
    if rest:
        total = add_piece(total, n * rows - rest, rest)
    return jax.tree.map(lambda x, p: x.astype(p.dtype), total, params)


def promised_gradients(
    objective: Objective, params: PyTree, inputs: PyTree, batches: Batches, at_once: int | None
) -> Promised:
    """The n local gradients, computed when a rule asks for them and as it asks for them.

    Args:
        objective: what to take the gradients of.
        params: where.
        inputs: what each worker has.
        batches: which examples that makes.
        at_once: how many workers' gradients are to exist at a time where the rule can do with a
            part; None for as many as are fastest.
    """
    num_workers = _num_workers(inputs)
    if at_once is None:
        data = jax.eval_shape(lambda: batches(inputs, 0, num_workers))
        at_once = _even_parts(num_workers, workers_at_once(params, data))
    return Promised(
        like=jax.eval_shape(lambda: params),
        num_workers=num_workers,
        at_once=min(at_once, num_workers),
        inputs=inputs,
        compute=lambda own, first, count: local_gradients(
            objective, params, batches(own, first, count)
        )[1],
        weighted=lambda own, weights: weighted_gradient(
            objective, params, batches(own, 0, len(weights)), weights
        ),
    )


def workers_at_once(params: PyTree, data: WorkerData) -> int:
    """How many workers' gradients are best computed at a time where not all need be kept."""
    size = max(1, sum(leaf.size for leaf in jax.tree.leaves(params)))
    return min(_EXAMPLES_AT_ONCE // _num_rows(data), _NUMBERS_AT_ONCE // size)


def _even_parts(n: int, limit: int) -> int:
    """How many workers at a time: all n if they fit, else an even number up to the limit, or 2.

    A divisor of n, which leaves no remainder to compile apart, if one is above half the limit.
    """
    if limit >= n:
        return n
    limit = max(2, limit - limit % 2)
    divisors = (part for part in range(limit, limit // 2, -2) if n % part == 0)
    return next(divisors, limit)


def take_workers(data: WorkerData, first: int | Int[Array, ""], count: int) -> WorkerData:
    """The data of `count` of the workers from `first` on."""
    if count == len(data.sizes):
        return data
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, first, count), data)


def sample_batches(
    data: WorkerData,
    batch_size: int,
    key: Key[Array, ""],
    places: Int[Array, " m"],
    workers: Int[Array, " m"] | None = None,
) -> WorkerData:
    """Mini-batches of some of the workers, each drawn with replacement from its own examples.

    A worker's draw is a function of the key and its index, whoever else draws.

    Args:
        data: the examples.
        batch_size: how many to draw.
        key: the step's.
        places: whose rows of the data to draw from.
        workers: the indices of these workers, if they aren't the places.

    Raises:
        ValueError: if the batch is larger than the largest worker's number of examples.
    """
    rows = _num_rows(data)
    if batch_size > rows:
        raise ValueError(
            f"batch_size {batch_size} is more than the {rows} examples of the largest worker"
        )

    def draw(place: Array, worker: Array) -> Array:
        worker_key = jax.random.fold_in(key, worker)
        return jax.random.randint(worker_key, (batch_size,), 0, data.sizes[place])

    drawn = jax.vmap(draw)(places, places if workers is None else workers)
    batches = jax.tree.map(lambda array: array[places[:, None], drawn], data.examples)
    return WorkerData(batches, jnp.full(places.shape, batch_size, jnp.int32))


def _num_rows(data: WorkerData) -> int:
    return jax.tree.leaves(data.examples)[0].shape[1]
