"""Several steps of each worker on its own between two aggregations."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from medjax._engine import checks
from medjax._engine.precision import at_least_float32
from medjax._engine.random import stage_key
from medjax._engine.stacked import PyTree, Stacked
from medjax.objectives import Objective
from medjax.training._gradients import local_gradients
from medjax.training._local import Local


def local_updates(
    objective: Objective,
    params: PyTree,
    batches: Callable[[int | Int[Array, ""]], Local],
    num_workers: int,
    *,
    num_steps: int,
    learning_rate: float | Float[Array, ""],
) -> tuple[Stacked, PyTree]:
    """Return what each worker sends after K steps of local SGD from the common parameters x.

    With x_i^0 = x and x_i^{k+1} = x_i^k - γ g_i^k, where g_i^k is worker i's gradient at x_i^k on
    its k-th batch, it sends (x - x_i^K)/γ = Σ_k g_i^k. For K = 1 that is its gradient.

    Args:
        objective: the objective.
        params: x.
        batches: k to the workers' batches at their k-th local step, with the states that they had
            before the first.
        num_workers: how many workers there are in a batch.
        num_steps: K.
        learning_rate: γ.

    Returns:
        The sums, leaves (num_workers, *shape), and the workers' new model states.
    """
    first = batches(0)
    if num_steps == 1:
        gradients = local_gradients(objective, params, first)
        return gradients.updates, gradients.states

    # The sum is kept, in float32 at least, and x_i^k made from it. Nothing is lost by taking a
    # difference of models, nor by steps too small for half precision.
    def step(k: Array, carry: tuple[Stacked, PyTree]) -> tuple[Stacked, PyTree]:
        sums, states = carry
        at = jax.tree.map(lambda x, s: (x[None] - learning_rate * s).astype(x.dtype), params, sums)
        local = batches(k)._replace(states=states)
        found = local_gradients(objective, at, local, at_own_params=True)
        return jax.tree.map(lambda s, g: s + g.astype(s.dtype), sums, found.updates), found.states

    def zeros(x: Array) -> Array:
        return jnp.zeros((num_workers, *x.shape), at_least_float32(x.dtype))

    start = (jax.tree.map(zeros, params), first.states)
    sums, states = lax.fori_loop(0, num_steps, step, start)
    return jax.tree.map(lambda s, x: s.astype(x.dtype), sums, params), states


def batch_key(
    key: Key[Array, ""], step: Int[Array, ""], local_step: int | Int[Array, ""]
) -> Key[Array, ""]:
    """Return the mini-batches' key at a local step; the first doesn't depend on K."""
    later = jax.random.fold_in(stage_key(key, "local_steps"), step)
    return jnp.where(
        local_step == 0, jax.random.fold_in(key, step), jax.random.fold_in(later, local_step)
    )


def check_local_steps(
    local_steps: int | None, local_lr: float | Float[Array, ""] | None
) -> tuple[int, float | Float[Array, ""]]:
    """Check K and γ; one step, of any length, where none are asked for.

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
