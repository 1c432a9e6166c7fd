"""The worker stage of noisy signSGD: the sign of the noisy gradient, one bit per coordinate."""

from collections.abc import Callable

import jax.numpy as jnp
import optax
from jaxtyping import Array

from medjax._engine.kernels.signs import draw_sign
from medjax._engine.kernels.sums import Worker
from medjax._engine.kernels.threefry import pair_words
from medjax._engine.precision import at_least_float32
from medjax._engine.random import Seed, worker_keys
from medjax.noise._distributions import Noise, Sample, as_noise
from medjax.noise._perturb import NoiseScale, check_scale, noise_stage


def noisy_sign(
    b: NoiseScale, noise: Noise | Sample | None = None, *, key: Seed
) -> optax.GradientTransformationExtraArgs:
    """Draw each worker's sign(g_i + b ξ_i) directly: +1 with probability F(g_i/b), else -1.

    Before a majority vote, which looks at the sign alone, it is the same in distribution as
    `perturb(b, noise)` and several times faster: the noise's distribution function F takes the
    place of the noise. Where b is 0 it gives the sign of g_i, 0 for an exact 0; NaN stays NaN, and
    abstains. A plain function for a noise has no F: its noise is drawn and added.

    The draws of worker i at step t in leaf l are a pure function of (key, t, l, i, coordinate), as
    in `perturb`, but they aren't those of `perturb` with the same key.

    Chen et al. (2020), algorithm 3; Jin et al. (2020) study the like as stochastic-sign SGD.

    Args:
        b: the standard deviation of the noise, as in `perturb`.
        noise: a distribution of `medjax.noise` or a plain function, as in `perturb`.
        key: a JAX key or an integer seed. A second `noisy_sign` in the same chain needs another.

    Returns:
        A transform of stacked updates, leaves (n, *shape), to signs of the same shapes and dtypes.

    Raises:
        ValueError, TypeError: as `perturb`.
    """
    check_scale(b)
    distribution = as_noise(noise)

    def draw(leaf_key: Array, n: int) -> Callable[[Array, Array, Worker], Array]:
        del n
        mean_sign = distribution.mean_sign
        assert mean_sign is not None

        def sign(x: Array, scale: Array, worker: Worker) -> Array:
            working = at_least_float32(x.dtype)
            # 0 · (1/0) is NaN, which is undecided: without noise a 0 stays 0, and NaN stays NaN.
            mean = mean_sign(x.astype(working) * (1 / jnp.abs(scale.astype(working))))
            # One block of random words serves two workers, a word each. Where `second` is a
            # constant XLA computes the block once for both.
            first, second = pair_words(leaf_key, worker.pair, x.size)
            return draw_sign(mean, jnp.where(worker.second, second, first), 0 * x)

        return sign

    def draw_and_add(leaf_key: Array, n: int) -> Callable[[Array, Array, Worker], Array]:
        keys = worker_keys(leaf_key, n)

        def sign(x: Array, scale: Array, worker: Worker) -> Array:
            xi = distribution.sample(keys[worker.index], x.shape, x.dtype)
            return jnp.sign(x + scale.astype(x.dtype) * xi)

        return sign

    if distribution.mean_sign is None:
        return noise_stage("noisy_sign", b, key, draw_and_add)
    return noise_stage("noisy_sign", b, key, draw, in_pairs=True)
