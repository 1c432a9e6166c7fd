"""Worker stage that runs any optax transform once per worker."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from medjax._engine import checks
from medjax._engine.mesh import spread
from medjax._engine.participation import check_cohort, put, take
from medjax._engine.precision import as_optax_promotes
from medjax._engine.stacked import Stacked, count_workers


def per_worker(
    inner: optax.GradientTransformation, num_workers: int
) -> optax.GradientTransformationExtraArgs:
    """Run an optax transform on each worker's updates, with a separate state for each worker.

    Every transform with a state (`trace`, `scale_by_adam`) needs this before the aggregation: optax
    initialises a chain from the unstacked parameters, so that a bare transform would start with a
    state of the wrong shape. Typed random keys in the inner state are folded with the worker's
    index, so that workers draw independently. Raw uint32 keys aren't, because they can't be told
    from numbers.

    Where only some workers take part in a step (`participants` of `simulate`), the extra argument
    `workers` has their indices (m,), and the updates are those of these workers only. The states of
    the others don't change.

    Args:
        inner: any optax transform; it sees one worker's updates and the common parameters.
        num_workers: n, the number of all workers, present or not.

    Returns:
        A transform of stacked updates, leaves (n, *shape) to (n, *shape).

    Raises:
        ValueError: if `num_workers` is below 1. While tracing, if it isn't the number of workers in
            the updates or, where only some take part, in the data.
        TypeError: if `num_workers` isn't a static integer.
    """
    n = checks.integer("num_workers", num_workers, minimum=1)
    inner_update = optax.with_extra_args_support(inner).update

    def init(params: optax.Params) -> optax.OptState:
        def init_worker(worker: Array) -> optax.OptState:
            def fold_key(leaf: Any) -> Any:
                is_key = jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)
                return jax.random.fold_in(leaf, worker) if is_key else leaf

            return jax.tree.map(fold_key, inner.init(params))

        return spread(jax.vmap(init_worker)(jnp.arange(n)))

    def update(
        updates: Stacked,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        workers: Int[Array, " m"] | None = None,
        num_workers: int = n,
        **extra_args: Any,
    ) -> tuple[Stacked, optax.OptState]:
        check_cohort("per_worker", n, num_workers)
        count_workers(updates, expected=n if workers is None else len(workers))

        def update_worker(
            worker_updates: optax.Updates, worker_state: optax.OptState
        ) -> tuple[optax.Updates, optax.OptState]:
            with as_optax_promotes():
                return inner_update(worker_updates, worker_state, params, **extra_args)

        with jax.named_scope("per_worker"):
            sent, new_states = jax.vmap(update_worker)(updates, take(state, workers))
        return sent, put(state, workers, new_states)

    return optax.GradientTransformationExtraArgs(init, update)
