"""The paper's mechanism: noise added to every local gradient, before the sign or the median."""

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from medjax import _checks
from medjax import noise as _noise
from medjax._random import Seed, stage_key, worker_keys
from medjax._stacked import Stacked, flatten


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
    doesn't depend on the number of workers, or on how the work is cut up. Unlike
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
    distribution = _noise.normal() if noise is None else noise
    if not isinstance(distribution, _noise.Noise):
        raise TypeError(
            f"noise must be a distribution such as medjax.noise.normal(), got {noise!r}"
        )
    if not callable(b) and not isinstance(b, AdaptiveScale):
        _checks.real("b", b, minimum=0.0)

    def init(params: optax.Params) -> PerturbState:
        del params
        return PerturbState(jnp.zeros([], jnp.int32), stage_key(key, "perturb"))

    def update(
        updates: Stacked, state: Any, params: optax.Params | None = None
    ) -> tuple[Stacked, PerturbState]:
        del params
        n, leaves, treedef = flatten(updates)
        step_key = jax.random.fold_in(state.key, state.step)

        def perturb_leaf(index: int, leaf: Array) -> Array:
            keys = worker_keys(jax.random.fold_in(step_key, index), n)
            rows = leaf.reshape(n, -1)
            xi = jax.vmap(lambda k: distribution.sample(k, rows.shape[1:], leaf.dtype))(keys)
            scale = _scale(b, state.step, leaf).astype(leaf.dtype)
            return (rows + scale * xi).reshape(leaf.shape)

        perturbed = [perturb_leaf(i, leaf) for i, leaf in enumerate(leaves)]
        state = PerturbState(state.step + 1, state.key)
        return jax.tree.unflatten(treedef, perturbed), state

    return optax.GradientTransformation(init, update)


def _scale(b: Any, step: Int[Array, ""], leaf: Array) -> Array:
    if isinstance(b, AdaptiveScale):
        magnitude = jnp.where(jnp.isfinite(leaf), jnp.abs(leaf), 0)
        return jnp.asarray(b.fraction) * jnp.max(magnitude, initial=0)
    return jnp.asarray(b(step) if callable(b) else b)
