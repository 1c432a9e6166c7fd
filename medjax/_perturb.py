"""The paper's mechanism: noise added to every local gradient, before the sign or the median."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from medjax import _checks
from medjax import noise as _noise
from medjax._kernels.sums import Worker
from medjax._promised import Promised, Row, promise
from medjax._random import Seed, stage_key, worker_keys
from medjax._stacked import Stacked


@dataclass(frozen=True)
class AdaptiveScale:
    """A noise scale that follows each tensor's largest local gradient. See `adaptive_scale`."""

    fraction: float | Float[Array, ""]


NoiseScale: TypeAlias = float | Float[Array, ""] | optax.Schedule | AdaptiveScale
"""b: a number (perhaps traced), an optax schedule of the step, or an adaptive scale."""


def adaptive_scale(fraction: float | Float[Array, ""] = 0.1) -> AdaptiveScale:
    """The paper's per-tensor scale b_W = fraction · max_i max_j |g_{i,W,j}|, its CIFAR-10 setting.

    The maximum is over all workers i and coordinates j of the parameter tensor W; non-finite
    entries are left out of it.

    Args:
        fraction: 0.1 in the paper; may be traced.

    Raises:
        ValueError: if the fraction is negative or not finite.
    """
    _checks.real("fraction", fraction, minimum=0.0)
    return AdaptiveScale(fraction)


class PerturbState(NamedTuple):
    """The step and the key: the noise is a function of both."""

    step: Int[Array, ""]
    key: Key[Array, ""]


def perturb(
    b: NoiseScale, noise: _noise.Noise | None = None, key: Seed = 0
) -> optax.GradientTransformation:
    """Add noise to each worker's vector: g_i + b ξ_i, every coordinate of every ξ_i independent.

    The noise of worker i at step t in leaf l is a pure function of (key, t, l, i, coordinate): it
    doesn't depend on the number of workers, or on how the work is cut up; the sum g_i + b ξ_i may,
    in its last bit, as the compiler may fuse the two operations. Unlike
    `optax.add_noise`, b is a standard deviation, not a variance, and workers draw independently.

    Chen et al. (2020), algorithms 3 and 4.

    Args:
        b: the standard deviation: a float, a traced value, an optax schedule, or the paper's
            `adaptive_scale`.
        noise: a distribution of `medjax.noise`; standard normal by default.
        key: a JAX key or an integer seed; a second `perturb` in the same chain needs another.

    Returns:
        A transform of stacked updates, leaves (n, *shape) to (n, *shape).

    Raises:
        ValueError: if b is negative or not finite.
        TypeError: if b isn't a number, a schedule or an adaptive scale, or if `noise` isn't a
            `Noise` (`noise.normal()`, not `noise.normal`).
    """
    distribution = check_noise(b, noise)

    def add(x: Array, scale: Array, keys: Key[Array, " n"], worker: Worker) -> Array:
        xi = distribution.sample(keys[worker.index], x.shape, x.dtype)
        return x + scale.astype(x.dtype) * xi

    return noise_stage("perturb", b, key, prepare=worker_keys, draw=add)


def noise_stage(
    kind: str,
    b: NoiseScale,
    key: Seed,
    *,
    prepare: Callable[[Key[Array, ""], int], Any],
    draw: Callable[[Array, Array, Any, Worker], Array],
) -> optax.GradientTransformation:
    """A worker stage that draws noise of scale b, a function of (key, step, leaf, worker).

    Args:
        kind: folded into the key, so that stages of different kinds draw apart.
        b: the scale, checked.
        key: a JAX key or an integer seed.
        prepare: (a leaf's key at this step, n) to what `draw` is given of it.
        draw: (a worker's flat leaf, the leaf's scale, what is prepared, the worker) to what the
            worker sends.
    """

    def init(params: optax.Params) -> PerturbState:
        del params
        return PerturbState(jnp.zeros([], jnp.int32), stage_key(key, kind))

    def update(
        updates: Promised | Stacked, state: Any, params: optax.Params | None = None
    ) -> tuple[Any, PerturbState]:
        del params
        promised = promise(updates)
        scales = _scales(b, state.step, updates, len(jax.tree.leaves(promised.like)))
        step_key = jax.random.fold_in(state.key, state.step)
        prepared = [
            prepare(jax.random.fold_in(step_key, leaf), promised.num_workers)
            for leaf in range(len(scales))
        ]

        def stage(row: Row, worker: Worker) -> Row:
            return [draw(*leaf, worker) for leaf in zip(row, scales, prepared, strict=True)]

        sent = promised.then(stage)
        state = PerturbState(state.step + 1, state.key)
        return (sent if promised is updates else sent.stacked()), state

    return optax.GradientTransformation(init, update)


def check_noise(b: NoiseScale, noise: _noise.Noise | None) -> _noise.Noise:
    """The distribution, the normal one by default, once it and the scale have been checked.

    Raises:
        ValueError: if b is negative or not finite.
        TypeError: if b isn't a number, a schedule or an adaptive scale, or if `noise` isn't a
            `Noise` (`noise.normal()`, not `noise.normal`).
    """
    distribution = _noise.normal() if noise is None else noise
    if not isinstance(distribution, _noise.Noise):
        raise TypeError(
            f"noise must be a distribution such as medjax.noise.normal(), got {noise!r}"
        )
    if not callable(b) and not isinstance(b, AdaptiveScale):
        _checks.real("b", b, minimum=0.0)
    return distribution


def _scales(
    b: NoiseScale, step: Int[Array, ""], updates: Promised | Stacked, num_leaves: int
) -> list[Float[Array, ""]]:
    """The scale of each leaf's noise at this step."""
    if isinstance(b, AdaptiveScale):
        return [
            jnp.asarray(b.fraction)
            * jnp.max(jnp.where(jnp.isfinite(leaf), jnp.abs(leaf), 0), initial=0)
            for leaf in jax.tree.leaves(updates)
        ]
    return [jnp.asarray(b(step) if callable(b) else b)] * num_leaves
