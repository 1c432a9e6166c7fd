"""What is measured of a run: the workers' losses, and how their gradients lie to each other."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from medjax.training.gradients import map_workers, workers_at_once
from medjax._engine.stacked import Updates, nonfinite_rows
from medjax.partition._worker_data import WorkerData
from medjax.objectives import Objective
from medjax.rules import mean, median

# The median needs all workers' numbers at a coordinate: of so many numbers (512 MiB of float32) at
# a time. If there are more, the gradients are computed again for each part of the coordinates.
_NUMBERS_AT_ONCE = 1 << 27


def measure_workers(
    objective: Objective, params: PyTree, data: WorkerData
) -> dict[str, Float[Array, ""] | Bool[Array, " n"]]:
    """Averages over the workers of their losses and metrics, and how their gradients are.

    Returns:
        `train_loss` and the like, `grad_norm` ‖(1/n) Σ_i g_i‖ and `median_mean_gap`
        ‖median_i g_i - (1/n) Σ_i g_i‖, of the gradients of all examples; and
        `nonfinite_workers`, whose gradient has a NaN or ±∞.
    """
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    parts = max(1, -(-len(data.sizes) * size // _NUMBERS_AT_ONCE))
    width = -(-size // parts)

    def measure(part: Int[Array, ""]) -> tuple[dict[str, Array], Array, Array, Array]:
        def columns(metrics: dict[str, Array], gradient: Updates) -> tuple[dict[str, Array], Array]:
            flat = jnp.concatenate([x.reshape(-1) for x in jax.tree.leaves(gradient)])
            # Columns of zeros beyond the last add nothing to a norm.
            flat = jnp.pad(
                flat.astype(jnp.promote_types(flat.dtype, jnp.float32)), (0, parts * width - size)
            )
            return metrics, lax.dynamic_slice_in_dim(flat, part * width, width)

        at_once = workers_at_once(params, data)
        metrics, gradients = map_workers(columns, objective, params, data, at_once=at_once)
        true_mean = mean()(gradients)
        gap = median()(gradients) - true_mean
        return metrics, jnp.sum(true_mean**2), jnp.sum(gap**2), nonfinite_rows(gradients)

    metrics, squared_norms, squared_gaps, nonfinite = lax.map(measure, jnp.arange(parts))
    return {f"train_{name}": values[0].mean() for name, values in metrics.items()} | {
        "grad_norm": jnp.sqrt(squared_norms.sum()),
        "median_mean_gap": jnp.sqrt(squared_gaps.sum()),
        "nonfinite_workers": nonfinite.any(axis=0),
    }
