"""Compression as a stage of a chain, with or without memory of what was not sent."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key, PyTree

from medjax import _checks, _stacked
from medjax._kernels.sums import Worker
from medjax._participation import check_cohort, put, take
from medjax._promised import Promised, Row, promise
from medjax._random import Seed, stage_key, worker_keys
from medjax._shards import over_shards, spread
from medjax._stacked import Stacked, Updates
from medjax.compressors import Compressor


class CompressState(NamedTuple):
    """The step and the key: what is drawn is a function of both."""

    step: Int[Array, ""]
    key: Key[Array, ""]


class ErrorFeedbackState(NamedTuple):
    """The step, the key, and what each worker hasn't sent yet, leaves (n, *shape)."""

    step: Int[Array, ""]
    key: Key[Array, ""]
    error: PyTree[Float[Array, "n ..."]]


def compress(compressor: Compressor, key: Seed | None = None) -> optax.GradientTransformation:
    """What the server decodes of each worker's message: stacked updates to stacked updates.

    What worker i draws at step t is a pure function of (key, t, i, coordinate), and so are the
    seeds that are sent: workers draw independently. Before an additive rule the messages are
    decoded and summed a few at a time.

    A vote after it takes the signs of what is decoded, which makes sense of `sign` and, with a
    given bound, of `stochastic_sign` (Jin et al., 2020); of others it is nowhere refused, as stages
    see arrays alone, but more than a vote's one bit is sent for nothing.

    Args:
        compressor: one of `medjax.compressors`, such as `compressors.qsgd(4)`.
        key: a JAX key or an integer seed, for a compressor that draws random numbers; a second one
            in the same chain needs another.

    Returns:
        A transform of stacked updates, leaves (n, *shape) to (n, *shape).

    Raises:
        ValueError: if the compressor draws random numbers and no key is given; when traced, if its
            settings don't suit the updates' size.
        TypeError: if `compressor` isn't one (`compressors.sign()`, not `compressors.sign`).
    """
    base = _base_key("compress", compressor, key)

    def init(params: optax.Params) -> CompressState:
        del params
        return CompressState(jnp.zeros([], jnp.int32), base())

    def update(
        updates: Promised | Stacked, state: Any, params: optax.Params | None = None
    ) -> tuple[Any, CompressState]:
        del params
        promised = promise(updates)
        keys = worker_keys(jax.random.fold_in(state.key, state.step), promised.num_workers)

        def stage(row: Row, worker: Worker) -> Row:
            decoded = compressor.compress(promised.unflatten(row), keys[worker.index])
            return [x.reshape(-1) for x in jax.tree.leaves(decoded)]

        sent = promised.one_by_one(stage)
        state = CompressState(state.step + 1, state.key)
        return (sent if promised is updates else sent.stacked()), state

    return optax.GradientTransformation(init, update)


def error_feedback(
    compressor: Compressor, num_workers: int, key: Seed | None = None
) -> optax.GradientTransformationExtraArgs:
    """Compression that makes up for what it left out: each worker sends C(p_i), p_i = g_i + e_i.

    e_i ← p_i - C(p_i) is kept by the worker, from e_i = 0 (Seide et al., 2014; Karimireddy et al.,
    2019): after every step, what has been sent and e_i add up to the sum of the g_i. Here it is the
    error of the gradient itself; the paper's is that of the step, γ g_i. With a constant step size
    γ after this stage both are the same; with another put `optax.scale_by_schedule` in front.

    The memory is of float32 at least. A NaN or ±∞ once in it stays there, and the worker's messages
    are spoilt from then on.

    Args:
        compressor: one of `medjax.compressors`, such as `compressors.scaled_sign()`. Convergence is
            proven for contractions: the scaled sign, top-k.
        num_workers: n.
        key: as in `compress`.

    Returns:
        A transform of stacked updates, leaves (n, *shape) to (n, *shape); or of those of the
        `workers`, if it is given their indices, as `simulate` gives them: the others keep what they
        have not sent.

    Raises:
        ValueError: if n is below 1 or, when traced, isn't that of the updates; or as `compress`.
        TypeError: if n isn't a static integer, or as `compress`.
    """
    base = _base_key("error_feedback", compressor, key)
    n = _checks.integer("num_workers", num_workers, minimum=1)

    def init(params: optax.Params) -> ErrorFeedbackState:
        def zeros(x: Any) -> Array:
            dtype = jnp.promote_types(jnp.result_type(x), jnp.float32)
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
        stacked = promise(updates).stacked()
        _stacked.num_workers(stacked, expected=n if workers is None else len(workers))

        def send(gradient: Updates, error: Updates, key: Array) -> tuple[Updates, Updates]:
            wished = jax.tree.map(jnp.add, gradient, error)
            message = jax.tree.map(lambda p, g: p.astype(g.dtype), wished, gradient)
            sent = compressor.compress(message, key)
            return sent, jax.tree.map(jnp.subtract, wished, sent)

        keys = worker_keys(jax.random.fold_in(state.key, state.step), n)
        present = take((state.error, keys), workers)
        # One worker at a time, as in `Promised.one_by_one`.
        errors, keys = present

        def send_one(each: tuple[Updates, Updates, Array]) -> tuple[Updates, Updates]:
            gradient, error, key_data = each
            key = jax.random.wrap_key_data(key_data, impl=jax.random.key_impl(keys))
            return send(gradient, error, key)

        sent, error = over_shards(
            lambda own, *_: lax.map(send_one, own),
            (stacked, errors, jax.random.key_data(keys)),
            len(keys),
            "workers",
        )
        error = put(state.error, workers, error)
        return sent, ErrorFeedbackState(state.step + 1, state.key, error)

    return optax.GradientTransformationExtraArgs(init, update)


def _base_key(stage: str, compressor: Compressor, key: Seed | None) -> Callable[[], Key[Array, ""]]:
    """What makes the stage's key, once compressor and key have been checked."""
    if not isinstance(compressor, Compressor):
        raise TypeError(
            f"compressor must be built, such as medjax.compressors.sign(); got {compressor!r}"
        )
    if compressor.needs_key and key is None:
        raise ValueError(f"{compressor.name} draws random numbers: give {stage} a key")
    return lambda: stage_key(0 if key is None else key, stage)
