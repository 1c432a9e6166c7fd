"""The n local gradients, in one vmapped computation."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key, PyTree

from medjax._random import worker_keys
from medjax._stacked import Stacked
from medjax._worker_data import WorkerData
from medjax.objectives import Objective

# More examples than this are taken worker by worker, or a few workers at a time: beyond it their
# activations fall out of cache, and a convolutional network's would fill the memory. (Those of one
# worker's examples have to fit, and those of the test data.)
_EXAMPLES_AT_ONCE = 8192


def local_gradients(
    objective: Objective, params: PyTree, data: WorkerData
) -> tuple[dict[str, Float[Array, " n"]], Stacked]:
    """Each worker's average loss and metrics over its own examples, and the gradient of the loss.

    Returns:
        The metrics, "loss" among them, each (n,), and the gradients, leaves (n, *shape).
    """

    def worker(
        examples_and_size: tuple[PyTree, Array],
    ) -> tuple[dict[str, Array], PyTree]:
        examples, size = examples_and_size
        rows = jax.tree.leaves(examples)[0].shape[0]
        own = jnp.arange(rows) < size

        def average(values: Array) -> Array:
            values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
            return jnp.sum(jnp.where(own, values, 0)) / size

        def average_loss(params: PyTree) -> tuple[Array, dict[str, Array]]:
            losses, others = objective(params, examples)
            if "loss" in others:
                raise ValueError('"loss" is the name of the loss itself, and no other metric')
            averages = {k: average(v) for k, v in ({"loss": losses} | others).items()}
            return averages["loss"], averages

        gradient, averages = jax.grad(average_loss, has_aux=True)(params)
        return averages, gradient

    n, rows = jax.tree.leaves(data.examples)[0].shape[:2]
    at_once = max(1, _EXAMPLES_AT_ONCE // rows)
    workers = (data.examples, data.sizes)
    if at_once >= n:
        return jax.vmap(worker)(workers)
    return lax.map(worker, workers, batch_size=at_once)


def sample_batches(data: WorkerData, batch_size: int, key: Key[Array, ""]) -> WorkerData:
    """Each worker's mini-batch, drawn independently and with replacement from its own examples.

    Raises:
        ValueError: if the batch is larger than the largest worker's number of examples.
    """
    n, rows = jax.tree.leaves(data.examples)[0].shape[:2]
    if batch_size > rows:
        raise ValueError(
            f"batch_size {batch_size} is more than the {rows} examples of the largest worker"
        )

    def draw(worker_key: Key[Array, ""], examples: PyTree, size: Array) -> PyTree:
        rows = jax.random.randint(worker_key, (batch_size,), 0, size)
        return jax.tree.map(lambda array: array[rows], examples)

    batches = jax.vmap(draw)(worker_keys(key, n), data.examples, data.sizes)
    return WorkerData(batches, jnp.full((n,), batch_size, jnp.int32))
