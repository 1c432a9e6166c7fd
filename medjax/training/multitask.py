"""A model for each worker, kept near the others': what a common model can be measured against."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree

from medjax._engine import checks
from medjax.training.gradients import own_gradients, sample_batches
from medjax._engine.random import Seed, stage_key
from medjax._engine.stacked import Stacked
from medjax.partition._worker_data import WorkerData
from medjax.objectives import Objective
from medjax.rules import mean


class MultitaskResult(NamedTuple):
    """What `multitask` gives.

    Attributes:
        models: the workers' parameters w_i after the last step, leaves (n, *shape).
        metrics: by name, (n,), at these: `loss`, f_i(w_i) of all of worker i's examples, the
            objective's other metrics likewise, and `spread`, ‖w_i - w̄‖.
    """

    models: Stacked
    metrics: dict[str, Float[Array, " n"]]


def multitask(
    objective: Objective,
    params: PyTree,
    data: WorkerData,
    *,
    regularization: float | Float[Array, ""],
    learning_rate: float | Float[Array, ""],
    num_steps: int,
    key: Seed,
    batch_size: int | None = None,
) -> MultitaskResult:
    """Train a model for each worker, all held together by their mean.

    minimises Σ_i f_i(w_i) + (λ/2) Σ_i ‖w_i - w̄‖², where f_i is the average loss of worker i's own
    examples and w̄ = (1/n) Σ_i w_i. λ = 0 gives n models that know nothing of each other, λ → ∞ the
    one model that `simulate` trains with `sgd`. A step is one of gradient descent for the losses,
    v_i = w_i - η ∇f_i(w_i), and then the exact minimum of the other term, by which the v_i
    approach their mean: w_i ← v̄ + (v_i - v̄)/(1 + ηλ). So η needn't be the smaller the larger λ is.

    It is the mean-regularised case of multi-task learning (Evgeniou and Pontil, 2004) that Smith et
    al. (2017) generalise in MOCHA. Left out of MOCHA: the relations Ω between the tasks, which are
    learned there and equal here; its dual method, for convex losses; and its stragglers, who solve
    their part of a step more roughly or not at all.

    Args:
        objective: (params, batch) to the examples' losses and metrics; see `medjax.objectives`.
        params: where all models start.
        data: each worker's examples; see `stack_workers`.
        regularization: λ ≥ 0; may be traced.
        learning_rate: η > 0; may be traced.
        num_steps: the number of steps.
        key: a JAX key or an integer seed, for the mini-batches.
        batch_size: how many of its examples each worker draws at each step, with replacement; None
            for all of them.

    Raises:
        ValueError: if a setting is out of range.
        TypeError: if a setting isn't a number, or a size isn't a static integer.
    """
    checks.real("regularization", regularization, minimum=0.0)
    checks.real("learning_rate", learning_rate, minimum=0.0, exclusive=True)
    num_steps = checks.integer("num_steps", num_steps, minimum=0)
    if batch_size is not None:
        batch_size = checks.integer("batch_size", batch_size, minimum=1)
    n, key = len(data.sizes), stage_key(key, "multitask")

    def step(t: Array, models: Stacked) -> Stacked:
        batches = data
        if batch_size is not None:
            batches = sample_batches(data, batch_size, jax.random.fold_in(key, t), jnp.arange(n))
        _, gradients = own_gradients(objective, models, batches)

        def descend(w: Array, g: Array) -> Array:
            return w - learning_rate * g.astype(jnp.promote_types(g.dtype, jnp.float32))

        moved = jax.tree.map(descend, models, gradients)

        pull = learning_rate * regularization

        def approach(w: Array, v: Array, centre: Array) -> Array:
            return (v - pull / (1 + pull) * (v - centre)).astype(w.dtype)

        return jax.tree.map(approach, models, moved, mean()(moved))

    def copies(x: Array) -> Array:
        x = jnp.asarray(x, jnp.result_type(x))
        return jnp.broadcast_to(x, (n, *x.shape))

    models = lax.fori_loop(0, num_steps, step, jax.tree.map(copies, params))
    metrics, _ = own_gradients(objective, models, data)
    return MultitaskResult(models, metrics | {"spread": _spread(models)})


def _spread(models: Stacked) -> Float[Array, " n"]:
    """‖w_i - w̄‖."""

    def squares(w: Array) -> Array:
        w = w.astype(jnp.promote_types(w.dtype, jnp.float32))
        return jnp.sum((w - mean()(w)) ** 2, axis=tuple(range(1, w.ndim)))

    return jnp.sqrt(sum(map(squares, jax.tree.leaves(models)), jnp.zeros(())))
