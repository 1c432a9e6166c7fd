"""A model for each worker, kept near the others: a baseline for a common model."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from medjax._engine import checks
from medjax._engine.precision import at_least_float32
from medjax._engine.random import Seed, stage_key
from medjax._engine.stacked import PyTree, Stacked
from medjax.objectives import Objective, Stateful
from medjax.partition import WorkerData
from medjax.rules import mean
from medjax.training._gradients import local_gradients
from medjax.training._local import Local, draws, sample_batches


class MultitaskResult(NamedTuple):
    """The result of `multitask`.

    Attributes:
        models: the workers' parameters w_i after the last step, leaves (n, *shape).
        metrics: by name, (n,), at these: `loss`, f_i(w_i) over all of worker i's examples, the
            objective's other metrics likewise, and `spread`, ‖w_i - w̄‖.
        model_state: each worker's model state, leaves (n, ...); None without any.
    """

    models: Stacked
    metrics: dict[str, Float[Array, " n"]]
    model_state: PyTree = None


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

    It minimises Σ_i f_i(w_i) + (λ/2) Σ_i ‖w_i - w̄‖², where f_i is the average loss of worker i's
    own examples and w̄ = (1/n) Σ_i w_i. λ = 0 gives n independent models, λ → ∞ the one model that
    `simulate` trains with `mean_sgd`. A step is one of gradient descent on the losses,
    v_i = w_i - η ∇f_i(w_i), and then the exact minimum of the other term, which moves the v_i
    towards their mean: w_i ← v̄ + (v_i - v̄)/(1 + ηλ). So a larger λ needs no smaller η.

    This is the mean-regularised case of multi-task learning (Evgeniou and Pontil, 2004), which
    Smith et al. (2017) generalise in MOCHA. MOCHA also has learned relations Ω between the tasks
    (equal here), a dual method for convex losses, and stragglers who solve their part of a step
    roughly or not at all.

    Args:
        objective: (params, batch) to the examples' losses and metrics; see `medjax.objectives`.
        params: where all models start.
        data: each worker's examples; see `stack_workers`.
        regularization: λ ≥ 0; may be traced.
        learning_rate: η > 0; may be traced.
        num_steps: the number of steps.
        key: a JAX key or an integer seed, for the mini-batches and the objective.
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
    n, key = data.num_workers, stage_key(key, "multitask")
    pull = learning_rate * regularization
    workers = jnp.arange(n)
    every = Local(*jax.tree.map(lambda x: x[:n], (data.examples, data.sizes)))

    def step(t: Array, carry: tuple[Stacked, PyTree]) -> tuple[Stacked, PyTree]:
        models, states = carry
        local, step_key = every, jax.random.fold_in(key, t)
        if batch_size is not None:
            local = sample_batches(data, batch_size, step_key, workers)
        if draws(objective):
            base = stage_key(step_key, "objective")
            local = local._replace(keys=jax.vmap(lambda i: jax.random.fold_in(base, i))(workers))
        found = local_gradients(
            objective, models, local._replace(states=states), at_own_params=True
        )

        def descend(w: Array, g: Array) -> Array:
            wide = at_least_float32(w.dtype)
            return w.astype(wide) - learning_rate * g.astype(wide)

        moved = jax.tree.map(descend, models, found.updates)

        def approach(w: Array, v: Array, centre: Array) -> Array:
            return (v - pull / (1 + pull) * (v - centre[None])).astype(w.dtype)

        return jax.tree.map(approach, models, moved, mean()(moved)), found.states

    def copies(x: Array) -> Array:
        x = jnp.asarray(x, jnp.result_type(x))
        return jnp.broadcast_to(x, (n, *x.shape))

    states = jax.tree.map(copies, objective.state) if isinstance(objective, Stateful) else None
    models, states = lax.fori_loop(0, num_steps, step, (jax.tree.map(copies, params), states))
    measured = local_gradients(objective, models, every._replace(states=states), at_own_params=True)
    return MultitaskResult(models, measured.metrics | {"spread": _spread(models)}, states)


def _spread(models: Stacked) -> Float[Array, " n"]:
    """Return ‖w_i - w̄‖."""

    def squares(w: Array) -> Array:
        w = w.astype(at_least_float32(w.dtype))
        return jnp.sum((w - mean()(w)[None]) ** 2, axis=tuple(range(1, w.ndim)))

    return jnp.sqrt(sum(map(squares, jax.tree.leaves(models)), jnp.zeros(())))
