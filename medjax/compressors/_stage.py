"""Compression as a stage of a chain, with or without memory of what was not sent."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key

from medjax._engine import checks
from medjax._engine.chunks import map_each
from medjax._engine.kernels.sums import Row, Worker
from medjax._engine.lazy import as_lazy
from medjax._engine.marks import apply_stage
from medjax._engine.mesh import over_shards, spread
from medjax._engine.participation import check_cohort, put, take
from medjax._engine.precision import at_least_float32
from medjax._engine.random import Seed, stage_key, worker_keys
from medjax._engine.stacked import Stacked, Updates, count_workers
from medjax.compressors._compressor import Compressor, PlainCompressor, as_compressor


class CompressState(NamedTuple):
    """The step and the key: whatever is drawn is a function of both."""

    step: Int[Array, ""]
    key: Key[Array, ""]


class ErrorFeedbackState(NamedTuple):
    """The step, the key, and the part that each worker hasn't sent yet, leaves (n, *shape)."""

    step: Int[Array, ""]
    key: Key[Array, ""]
    error: Stacked


def compress(
    compressor: Compressor | PlainCompressor, key: Seed | None = None
) -> optax.GradientTransformation:
    """Replace each worker's update by what the server decodes of its message.

    Whatever worker i draws at step t, the seeds that it sends among it, is a pure function of
    (key, t, i, coordinate): workers draw independently. Before an additive rule the messages are
    decoded and summed a few at a time.

    A vote after it takes the signs of the decoded vectors. That makes sense of `sign` and, with a
    given bound, of `stochastic_sign` (Jin et al., 2020). After other compressors it isn't refused,
    as stages see arrays alone, but they send more than the one bit that a vote uses.

    Args:
        compressor: one of `medjax.compressors`, such as `compressors.qsgd(4)`; or any function of
            one worker's vector (d,), and a key if it has an argument called `key`, to the decoded
            vector (d,) and the message's length in bits.
        key: a JAX key or an integer seed, for a compressor that draws random numbers. A second
            such stage in the same chain needs another key.

    Returns:
        A transform of stacked updates, leaves (n, *shape) to (n, *shape).

    Raises:
        ValueError: if the compressor draws random numbers and no key is given; when traced, if its
            settings don't suit the updates' size.
        TypeError: if `compressor` isn't one (`compressors.sign()`, not `compressors.sign`).

    >>> tx = compress(lambda vector: (jnp.round(vector), 8 * vector.size))
    >>> print(tx.update(jnp.array([[1.2], [2.6]]), tx.init(jnp.zeros(1)))[0].ravel())
    [1. 3.]
    """
    built = as_compressor(compressor)
    base = _base_key("compress", built, key)

    def init(params: optax.Params) -> CompressState:
        del params
        return CompressState(jnp.zeros([], jnp.int32), base())

    def update(
        updates: Stacked, state: Any, params: optax.Params | None = None
    ) -> tuple[Any, CompressState]:
        del params
        lazy = as_lazy(updates)
        keys = worker_keys(jax.random.fold_in(state.key, state.step), lazy.num_workers)

        def send(row: Row, worker: Worker) -> Row:
            decoded = built.compress(lazy.unflatten(row), keys[worker.index])
            return [x.reshape(-1) for x in jax.tree.leaves(decoded)]

        sent = apply_stage(built.name, send, updates, in_turn=True)
        return sent, CompressState(state.step + 1, state.key)

    return optax.GradientTransformation(init, update)


def error_feedback(
    compressor: Compressor | PlainCompressor, num_workers: int, key: Seed | None = None
) -> optax.GradientTransformationExtraArgs:
    """Compress, and add what was left out to the next message: send C(p_i), p_i = g_i + e_i.

    Each worker keeps e_i ← p_i - C(p_i), from e_i = 0 (Seide et al., 2014; Karimireddy et al.,
    2019). After every step, what it has sent and e_i add up to the sum of its g_i. Here e_i is the
    error of the gradient; in the paper it is that of the step, γ g_i. With a constant step size γ
    after this stage both are the same; for another, put `optax.scale_by_schedule` in front.

    The memory is in float32 at least. A NaN or ±∞ stays in it, and spoils the worker's messages
    from then on.

    Args:
        compressor: as in `compress`. Convergence is proven for contractions: the scaled sign,
            top-k.
        num_workers: n.
        key: as in `compress`.

    Returns:
        A transform of stacked updates, leaves (n, *shape) to (n, *shape). Given the extra argument
        `workers`, as by `simulate`, it transforms the updates of these alone; the others keep what
        they have not sent.

    Raises:
        ValueError: if n is below 1 or, when traced, isn't that of the updates; or as `compress`.
        TypeError: if n isn't a static integer, or as `compress`.
    """
    built = as_compressor(compressor)
    base = _base_key("error_feedback", built, key)
    n = checks.integer("num_workers", num_workers, minimum=1)

    def init(params: optax.Params) -> ErrorFeedbackState:
        def zeros(x: Any) -> Array:
            dtype = at_least_float32(jnp.result_type(x))
            return jnp.zeros((n, *jnp.shape(x)), dtype)

        error = spread(jax.tree.map(zeros, params))
        return ErrorFeedbackState(jnp.zeros([], jnp.int32), base(), error)

    def update(
        updates: Stacked,
        state: Any,
        params: optax.Params | None = None,
        *,
        workers: Int[Array, " m"] | None = None,
        num_workers: int = n,
        **extra_args: Any,
    ) -> tuple[Stacked, ErrorFeedbackState]:
        del params, extra_args
        check_cohort("error_feedback", n, num_workers)
        count_workers(updates, expected=n if workers is None else len(workers))

        def send(gradient: Updates, error: Updates, key: Array) -> tuple[Updates, Updates]:
            wished = jax.tree.map(lambda g, e: g.astype(e.dtype) + e, gradient, error)
            message = jax.tree.map(lambda p, g: p.astype(g.dtype), wished, gradient)
            sent = built.compress(message, key)
            return sent, jax.tree.map(lambda p, q: p - q.astype(p.dtype), wished, sent)

        keys = worker_keys(jax.random.fold_in(state.key, state.step), n)
        errors, keys = take((state.error, keys), workers)

        def send_one(gradient: Updates, error: Updates, key_data: Array) -> tuple[Updates, Updates]:
            return send(gradient, error, jax.random.wrap_key_data(key_data, impl=impl))

        impl = jax.random.key_impl(keys)
        with jax.named_scope("error_feedback"):
            sent, error = over_shards(
                lambda local, *_: map_each(send_one, *local),
                (as_lazy(updates).inputs, errors, jax.random.key_data(keys)),
                len(keys),
                "workers",
            )
        error = put(state.error, workers, error)
        return sent, ErrorFeedbackState(state.step + 1, state.key, error)

    return optax.GradientTransformationExtraArgs(init, update)


def _base_key(stage: str, compressor: Compressor, key: Seed | None) -> Callable[[], Key[Array, ""]]:
    """Return what makes the stage's key, after checking that there is one if it is needed."""
    if compressor.needs_key and key is None:
        raise ValueError(f"{compressor.name} draws random numbers: give {stage} a key")
    return lambda: stage_key(0 if key is None else key, stage)
