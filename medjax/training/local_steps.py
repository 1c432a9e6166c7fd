"""Several steps of each worker's own between two aggregations."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key, PyTree

from medjax._engine import checks
from medjax.training.gradients import own_gradients
from medjax._engine.lazy import Promised
from medjax._engine.random import stage_key
from medjax._engine.stacked import Stacked
from medjax.partition._worker_data import WorkerData
from medjax.objectives import Objective


def local_updates(
    objective: Objective,
    params: PyTree,
    batches: Callable[[Int[Array, ""]], WorkerData],
    num_workers: int,
    *,
    num_steps: int,
    learning_rate: float | Float[Array, ""],
) -> Stacked:
    """What each worker sends after K steps of local SGD from the common parameters x.

    With x_i^0 = x and x_i^{k+1} = x_i^k - γ g_i^k, where g_i^k is worker i's gradient at x_i^k of
    its k-th batch, it is (x - x_i^K)/γ = Σ_k g_i^k. That sum is what is kept, in float32 at least,
    and x_i^k = x - γ Σ_{j<k} g_i^j is made from it: nothing is lost by taking a difference, nor by
    steps too small for half precision.

    Args:
        objective: what to take the gradients of.
        params: x.
        batches: k to the workers' examples at their k-th local step.
        num_workers: how many workers there are in a batch.
        num_steps: K.
        learning_rate: γ.

    Returns:
        The sums, leaves (num_workers, *shape).
    """

    def step(k: Array, sums: Stacked) -> Stacked:
        own = jax.tree.map(lambda x, s: (x - learning_rate * s).astype(x.dtype), params, sums)
        _, gradients = own_gradients(objective, own, batches(k))
        return jax.tree.map(lambda s, g: s + g.astype(s.dtype), sums, gradients)

    def zeros(x: Array) -> Array:
        return jnp.zeros((num_workers, *x.shape), jnp.promote_types(x.dtype, jnp.float32))

    sums = lax.fori_loop(0, num_steps, step, jax.tree.map(zeros, params))
    return jax.tree.map(lambda s, x: s.astype(x.dtype), sums, params)


def with_local_steps(
    promised: Promised,
    objective: Objective,
    params: PyTree,
    batches: Callable[[PyTree, int | Int[Array, ""], int, Int[Array, ""]], WorkerData],
    *,
    num_steps: int,
    learning_rate: float | Float[Array, ""],
) -> Promised:
    """Promised gradients as promised sums of K: one local step leaves them as they are.

    Args:
        promised: the gradients.
        objective: what to take the gradients of.
        params: where the workers start.
        batches: (inputs, first, count, k) to the examples of `count` workers from `first` on at
            their k-th local step.
        num_steps: K.
        learning_rate: γ.
    """
    if num_steps == 1:
        return promised

    def compute(inputs: PyTree, first: int | Array, count: int) -> Stacked:
        return local_updates(
            objective,
            params,
            lambda k: batches(inputs, first, count, k),
            count,
            num_steps=num_steps,
            learning_rate=learning_rate,
        )

    return replace(promised, compute=compute, weighted=None)


def batch_key(
    key: Key[Array, ""], step: Int[Array, ""], local_step: int | Int[Array, ""]
) -> Key[Array, ""]:
    """The mini-batches' key at a local step; the first is the same whether or not others follow."""
    later = jax.random.fold_in(stage_key(key, "local_steps"), step)
    return jnp.where(
        local_step == 0, jax.random.fold_in(key, step), jax.random.fold_in(later, local_step)
    )


def check_local_steps(
    local_steps: int | None, local_lr: float | Float[Array, ""] | None
) -> tuple[int, float | Float[Array, ""]]:
    """K and γ, once checked; 1 step, of any length, where none are asked for.

    Raises:
        ValueError: if one is out of range, or is given without the other.
        TypeError: if the number of steps isn't a static integer, or γ isn't a number.
    """
    if local_steps is None and local_lr is None:
        return 1, 1.0
    if local_steps is None or local_lr is None:
        raise ValueError(
            "local_steps and local_lr are given together or not at all, "
            f"got local_steps = {local_steps} and local_lr = {local_lr}"
        )
    checks.real("local_lr", local_lr, minimum=0.0, exclusive=True)
    return checks.integer("local_steps", local_steps, minimum=1), local_lr
