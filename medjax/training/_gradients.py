"""The workers' gradients: all of them, some of them, or only their weighted sum."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from medjax._engine.chunks import Chunk, by_chunk
from medjax._engine.mesh import over_shards
from medjax._engine.precision import at_least_float32
from medjax._engine.stacked import PyTree, Updates
from medjax.objectives import Objective
from medjax.training._chunks import activation_chunk, cut_rows, example_chunk, rows_at_a_time
from medjax.training._local import Local, count, evaluate_examples, num_rows


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

    one = jax.tree.map(lambda x: x[0], params) if at_own_params else params
    chunk = activation_chunk(objective, one, local)
    return map_workers(compute, (params if at_own_params else None, local), chunk)


def map_workers(f: Callable[[Any], PyTree], inputs: PyTree, chunk: Chunk) -> PyTree:
    """Apply f to each worker's part of the inputs, and stack the results.

    Whatever f doesn't return is never held for all workers.

    Args:
        f: a function of one worker's inputs.
        inputs: leaves (n, ...).
        chunk: how many workers to vmap over.
    """

    def in_chunks(size: int, inputs: PyTree) -> PyTree:
        if size >= count(inputs):
            return jax.vmap(f)(inputs)
        # A batch of one would make batched products of plain ones, which are faster.
        return lax.map(f, inputs, batch_size=size if size > 1 else None)

    def local(inputs: PyTree, *_: Any) -> PyTree:
        return by_chunk(in_chunks, chunk.up_to(count(inputs)), inputs)

    return over_shards(local, inputs, count(inputs), "workers")


def worker_gradient(
    objective: Objective, params: PyTree, local: Local, counts: Bool[Array, " m"] | None = None
) -> LocalGradients:
    """Compute one worker's average metrics over its batch, and the gradient of its loss.

    Args:
        objective: the objective.
        params: one model's parameters.
        local: the worker's batch.
        counts: which rows count; None for the first `local.sizes`. Whichever do, their sum is
            divided by `local.sizes`: averages over parts of a batch add up to that over all of it.
    """
    rows = num_rows(local.examples, axis=0)
    if counts is None:
        counts = jnp.arange(rows, dtype=local.sizes.dtype) < local.sizes
    # What is drawn, or what a state becomes, belongs to the batch as a whole.
    if local.keys is not None or local.states is not None:
        return _gradient(objective, params, local, counts)
    stacked = jax.eval_shape(lambda tree: jax.tree.map(lambda x: x[None], tree), local)
    chunk = rows_at_a_time(objective, params, stacked)
    in_slices = functools.partial(_gradient_in_slices, objective)
    return by_chunk(in_slices, chunk, params, local, counts)


def _gradient_in_slices(
    objective: Objective, size: int, params: PyTree, local: Local, counts: Bool[Array, " m"]
) -> LocalGradients:
    """Add up the gradients of slices of the batch, in float32 at least."""
    slices = cut_rows(len(counts), size)
    if slices.number == 1:
        return _gradient(objective, params, local, counts)
    like = jax.eval_shape(functools.partial(_gradient, objective), params, local, counts)

    def add(k: Array, total: LocalGradients) -> LocalGradients:
        examples = jax.tree.map(lambda x: slices.cut(x, k), local.examples)
        some = slices.of(k)[0] & slices.cut(counts, k)
        part = _gradient(objective, params, local._replace(examples=examples), some)
        return jax.tree.map(lambda x, y: x + y.astype(x.dtype), total, part)

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, at_least_float32(x.dtype)), like)
    total = lax.fori_loop(0, slices.number, add, zeros)
    return jax.tree.map(lambda x, y: x.astype(y.dtype), total, like)


def _gradient(
    objective: Objective, params: PyTree, local: Local, counts: Bool[Array, " m"]
) -> LocalGradients:
    def average(values: Array) -> Array:
        total = jnp.sum(jnp.where(counts, values, 0))
        return total / jnp.maximum(local.sizes, 1).astype(total.dtype)

    def average_loss(params: PyTree) -> tuple[Array, tuple[dict[str, Array], PyTree]]:
        metrics, state = evaluate_examples(
            objective, params, local.examples, local.keys, local.states
        )
        averages = {name: average(values) for name, values in metrics.items()}
        return averages["loss"], (averages, state)

    gradient, (averages, state) = jax.grad(average_loss, has_aux=True)(params)
    return LocalGradients(averages, gradient, state)


def weighted_gradient(
    objective: Objective, params: PyTree, local: Local, weights: Float[Array, " n"]
) -> Updates:
    """Compute ∇ Σ_i w_i f_i, the gradient of one loss over all workers' examples.

    One backward pass over the joined batch costs less than n gradients. It is right only where no
    example affects another's loss, and no worker has a key or a state of its own.
    """
    n, rows = len(local.sizes), num_rows(local.examples)
    counts = jnp.arange(rows, dtype=local.sizes.dtype)[None] < local.sizes[:, None]
    shares = weights / jnp.maximum(local.sizes, 1).astype(weights.dtype)
    shares = jnp.where(counts, shares[:, None], 0).reshape(-1)
    examples = jax.tree.map(lambda x: x.reshape(n * rows, *x.shape[2:]), local.examples)

    def gradient(examples: PyTree, shares: Array) -> Updates:
        def loss(params: PyTree) -> Array:
            losses = evaluate_examples(objective, params, examples)[0]["loss"]
            return jnp.sum(losses * shares.astype(losses.dtype))

        return jax.grad(loss)(params)

    def in_chunks(size: int, examples: PyTree, shares: Array) -> Updates:
        # The total isn't rounded to half precision before it is complete.
        def add(total: Updates, start: int | Array, size: int) -> Updates:
            part, weights = jax.tree.map(
                lambda x: lax.dynamic_slice_in_dim(x, start, size), (examples, shares)
            )
            return jax.tree.map(lambda t, g: t + g.astype(t.dtype), total, gradient(part, weights))

        def zeros(p: Array) -> Array:
            return jnp.zeros(p.shape, at_least_float32(p.dtype))

        chunks, rest = divmod(n * rows, size)
        if chunks == 1 and not rest:
            return gradient(examples, shares)
        total = lax.fori_loop(
            0, chunks, lambda k, total: add(total, k * size, size), jax.tree.map(zeros, params)
        )
        total = add(total, n * rows - rest, rest) if rest else total
        return jax.tree.map(lambda x, p: x.astype(p.dtype), total, params)

    chunk = example_chunk(objective, params, local).up_to(n * rows)
    return by_chunk(in_chunks, chunk, examples, shares)
