"""Metrics of a run: the honest workers' losses, and how their gradients differ."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from medjax._engine.precision import at_least_float32, common_dtype
from medjax._engine.stacked import PyTree, nonfinite_rows
from medjax.attacks import AttackState
from medjax.objectives import Objective
from medjax.partition import WorkerData
from medjax.rules import mean, median
from medjax.training._chunks import gradient_chunk
from medjax.training._gradients import map_workers, worker_gradient
from medjax.training._local import Local

# The median needs all workers' numbers at a coordinate. So many numbers, 512 MiB of float32, exist
# at a time; if there are more, the gradients are computed again for each part of the coordinates.
_MEDIAN_NUMBERS = 1 << 27


class Split(NamedTuple):
    """The honest workers, and the attacks of the others.

    Attributes:
        honest: a slice or indices (h,), in order.
        attacks: the states of the attacks on vectors, each with the indices of its workers.
    """

    honest: slice | Int[Array | np.ndarray, " h"]
    attacks: list[tuple[AttackState, Any]]


def split_workers(opt_state: optax.OptState, data: WorkerData, always: int | None) -> Split:
    """Tell honest workers from Byzantine ones, by the attacks in a chain's state and on the data.

    Args:
        opt_state: the optimizer's state.
        data: the workers' data.
        always: how many of the last workers take part in every step; None if all workers do. An
            attack by others isn't one by fixed workers, and all count as honest.

    Raises:
        ValueError: if nobody is honest.
    """
    n = data.num_workers
    states = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, AttackState))
    attacks = [x for x in states if isinstance(x, AttackState) and len(x.nonfinite)]
    if always is not None:
        attacks = [x for x in attacks if x.byzantine == "last" and len(x.nonfinite) <= always]
    placed = [(x, x.split(n)[1]) for x in attacks]
    known = np.zeros(n, bool)
    known[n - data.num_byzantine :] = data.num_byzantine > 0
    for _, byzantine in placed:
        if not isinstance(byzantine, Array):
            known[byzantine] = True
    num_honest = n - int(known.sum())
    if num_honest == 0:
        raise ValueError(f"metrics need an honest worker, the attacks are by all n = {n} workers")
    if not known[:num_honest].any():
        honest: Any = slice(num_honest)
    else:
        honest = np.flatnonzero(~known)
    drawn = [byzantine for _, byzantine in placed if isinstance(byzantine, Array)]
    if drawn:
        mask = jnp.asarray(known)
        for byzantine in drawn:
            mask = mask.at[byzantine].set(True)
        # How many they are must be static. Where two attacks draw the same worker, as many honest
        # ones are left out.
        num_honest = max(1, num_honest - sum(len(x) for x in drawn))
        honest = jnp.sort(jnp.argsort(mask, stable=True)[:num_honest])
    return Split(honest, placed)


def measure_workers(
    objective: Objective, params: PyTree, data: WorkerData, states: PyTree, split: Split
) -> dict[str, Float[Array, ""] | Bool[Array, " n"]]:
    """Average the honest workers' losses and metrics, and compare their gradients.

    Args:
        objective: the objective.
        params: the common parameters.
        data: the workers' examples, all of which are used.
        states: the workers' model states, leaves (n, ...), or None.
        split: who is honest.

    Returns:
        `train_loss` and the like; `grad_norm`, ‖(1/h) Σ_i g_i‖, and `median_mean_gap`,
        ‖median_i g_i - (1/h) Σ_i g_i‖, over the h honest workers; and `nonfinite_workers`, the
        honest workers whose gradient has a NaN or ±∞ and the Byzantine ones who sent such numbers.
    """
    n = data.num_workers
    every = Local(data.examples, data.sizes, None, states)
    local = jax.tree.map(lambda x: x[split.honest], every)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    parts = max(1, -(-len(local.sizes) * size // _MEDIAN_NUMBERS))
    width = -(-size // parts)
    chunk = gradient_chunk(objective, params, local)

    def measure(part: Int[Array, ""]) -> tuple[dict[str, Array], Array, Array, Array]:
        def columns(worker: Local) -> tuple[dict[str, Array], Array]:
            found = worker_gradient(objective, params, worker)
            leaves = jax.tree.leaves(found.updates)
            dtype = at_least_float32(common_dtype(*leaves))
            flat = jnp.concatenate([x.reshape(-1).astype(dtype) for x in leaves])
            # Columns of zeros beyond the last add nothing to a norm.
            flat = jnp.pad(flat, (0, parts * width - size))
            return found.metrics, lax.dynamic_slice_in_dim(flat, part * width, width)

        metrics, gradients = map_workers(columns, local, chunk)
        true_mean = mean()(gradients)
        gap = median()(gradients) - true_mean
        return metrics, jnp.sum(true_mean**2), jnp.sum(gap**2), nonfinite_rows(gradients)

    metrics, squared_norms, squared_gaps, nonfinite = lax.map(measure, jnp.arange(parts))
    everyone = jnp.zeros(n, bool).at[split.honest].set(nonfinite.any(axis=0))
    for state, byzantine in split.attacks:
        everyone = everyone.at[byzantine].max(state.nonfinite)
    return {f"train_{name}": values[0].mean() for name, values in metrics.items()} | {
        "grad_norm": jnp.sqrt(squared_norms.sum()),
        "median_mean_gap": jnp.sqrt(squared_gaps.sum()),
        "nonfinite_workers": everyone,
    }


def average_state(states: PyTree, split: Split) -> PyTree:
    """Average the honest workers' model states; integers are those of the first."""

    def average(x: Array) -> Array:
        x = x[split.honest]
        return x.mean(axis=0) if jnp.issubdtype(x.dtype, jnp.floating) else x[0]

    return jax.tree.map(average, states)
