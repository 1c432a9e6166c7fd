"""The paper's mechanism: noise added to every local gradient, before the sign or the median."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from medjax._engine import checks
from medjax._engine.kernels.sums import Row, Worker
from medjax._engine.marks import apply_stage
from medjax._engine.random import Seed, stage_key, worker_keys
from medjax._engine.stacked import Stacked, count_workers
from medjax.noise._distributions import Noise, Sample, as_noise


@dataclass(frozen=True)
class AdaptiveScale:
    """A noise scale that follows each tensor's largest local gradient. See `adaptive_scale`."""

    fraction: float | Float[Array, ""]


NoiseScale: TypeAlias = (
    float | Float[Array, ""] | Float[Array | np.ndarray, " n"] | optax.Schedule | AdaptiveScale
)
"""b: a number or one for each worker (perhaps traced), a schedule of either, or adaptive."""


def adaptive_scale(fraction: float | Float[Array, ""] = 0.1) -> AdaptiveScale:
    """Return the paper's per-tensor scale b_W = fraction · max_i max_j |g_{i,W,j}|.

    The maximum is over all workers i and coordinates j of the parameter tensor W, without
    non-finite entries. Chen et al. (2020) use it on CIFAR-10.

    Args:
        fraction: 0.1 in the paper; may be traced.

    Raises:
        ValueError: if the fraction is negative or not finite.
    """
    checks.real("fraction", fraction, minimum=0.0)
    return AdaptiveScale(fraction)


class PerturbState(NamedTuple):
    """The step and the key: the noise is a function of both."""

    step: Int[Array, ""]
    key: Key[Array, ""]


def perturb(
    b: NoiseScale, noise: Noise | Sample | None = None, *, key: Seed
) -> optax.GradientTransformationExtraArgs:
    """Add noise to each worker's vector: g_i + b ξ_i, every coordinate of every ξ_i independent.

    The noise of worker i at step t in leaf l is a pure function of (key, t, l, i, coordinate): it
    depends neither on the number of workers nor on how they are chunked or sharded. The sum
    g_i + b ξ_i may, in its last bit, as the compiler may fuse the two operations. Unlike in
    `optax.add_noise`, b is a standard deviation, not a variance, and workers draw independently.

    Chen et al. (2020), algorithms 3 and 4.

    Args:
        b: the standard deviation: a number, or an array (n,) with one for each worker, present or
            not (either may be traced); an optax schedule; or the paper's `adaptive_scale`.
        noise: a distribution of `medjax.noise`, standard normal by default; or any function
            (key, shape, dtype) to a sample of variance 1.
        key: a JAX key or an integer seed. A second `perturb` in the same chain needs another key.

    Returns:
        A transform of stacked updates, leaves (n, *shape) to (n, *shape).

    Raises:
        ValueError: if b is negative or not finite; when traced, if it has another number of scales
            than there are workers.
        TypeError: if b isn't a number, a schedule or an adaptive scale, or if `noise` isn't a
            distribution (`noise.normal()`, not `noise.normal`).

    >>> tx = perturb(jnp.array([0.0, 1.0]), key=0)  # the first worker sends its gradient
    >>> sent, _ = tx.update(jnp.zeros((2, 3)), tx.init(jnp.zeros(3)))
    >>> print((sent != 0).sum(axis=1))
    [0 3]
    """
    check_scale(b)
    distribution = as_noise(noise)

    def draw(leaf_key: Array, n: int) -> Callable[[Array, Array, Worker], Array]:
        keys = worker_keys(leaf_key, n)

        def add(x: Array, scale: Array, worker: Worker) -> Array:
            xi = distribution.sample(keys[worker.index], x.shape, x.dtype)
            return x + scale.astype(x.dtype) * xi

        return add

    return noise_stage("perturb", b, key, draw)


def noise_stage(
    kind: str,
    b: NoiseScale,
    key: Seed,
    draw: Callable[[Key[Array, ""], int], Callable[[Array, Array, Worker], Array]],
    *,
    in_pairs: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Build a worker stage that draws noise of scale b from (key, step, leaf, worker).

    Args:
        kind: folded into the key, so that stages of different kinds draw independently.
        b: the scale, checked.
        key: a JAX key or an integer seed.
        draw: (a leaf's key at this step, n) to a function of (a worker's flat leaf, its scale, the
            worker) to what the worker sends.
        in_pairs: whether it draws for both workers of a pair at once.
    """

    def init(params: optax.Params) -> PerturbState:
        del params
        return PerturbState(jnp.zeros([], jnp.int32), stage_key(key, kind))

    def update(
        updates: Stacked,
        state: Any,
        params: optax.Params | None = None,
        *,
        workers: Int[Array, " m"] | None = None,
        num_workers: int | None = None,
        **extra_args: Any,
    ) -> tuple[Any, PerturbState]:
        del params, extra_args
        n = count_workers(updates)
        scales = _scales(b, state.step, updates, num_workers or n)
        scales = [x[workers] if x.ndim and workers is not None else x for x in scales]
        # One small kernel for the keys of all leaves; one by one they would be several each.
        leaf_keys = worker_keys(jax.random.fold_in(state.key, state.step), len(scales))
        senders = [draw(leaf_key, n) for leaf_key in leaf_keys]

        def send(row: Row, worker: Worker) -> Row:
            return [
                send_leaf(x, scale[worker.index] if scale.ndim else scale, worker)
                for send_leaf, x, scale in zip(senders, row, scales, strict=True)
            ]

        return apply_stage(kind, send, updates, in_pairs=in_pairs), PerturbState(
            state.step + 1, state.key
        )

    return optax.GradientTransformationExtraArgs(init, update)


def check_scale(b: NoiseScale) -> None:
    """Check a noise scale, unless it is traced.

    Raises:
        ValueError: if b is negative, not finite, or an array of more than one axis.
        TypeError: if b isn't a number, an array, a schedule or an adaptive scale.
    """
    if not callable(b) and not isinstance(b, AdaptiveScale):
        checks.real("b", b, minimum=0.0, ndim=1 if np.ndim(b) else 0)


def _scales(
    b: NoiseScale, step: Int[Array, ""], updates: Stacked, num_workers: int
) -> list[Float[Array, ""] | Float[Array, " n"]]:
    """Return the scale of each leaf's noise at this step.

    Raises:
        ValueError: if there is one for each worker, but of another number of workers.
    """
    leaves = jax.tree.leaves(updates)
    if isinstance(b, AdaptiveScale):
        with jax.named_scope("adaptive_scale"):
            finite = (jnp.where(jnp.isfinite(leaf), jnp.abs(leaf), 0) for leaf in leaves)
            return [jnp.asarray(b.fraction) * jnp.max(x, initial=0) for x in finite]
    scale = jnp.asarray(b(step) if callable(b) else b)
    if scale.shape not in ((), (num_workers,)):
        raise ValueError(
            f"b must be one number or one for each of the {num_workers} workers, "
            f"got shape {scale.shape}"
        )
    return [scale] * len(leaves)
