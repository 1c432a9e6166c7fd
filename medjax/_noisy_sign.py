"""What a worker of noisy signSGD sends: the sign of its noisy gradient, one bit per coordinate."""

import jax.numpy as jnp
import optax
from jaxtyping import Array

from medjax import noise as _noise
from medjax._kernels.signs import draw_sign
from medjax._kernels.sums import Worker
from medjax._kernels.threefry import pair_words
from medjax._perturb import NoiseScale, check_noise, noise_stage
from medjax._random import Seed


def noisy_sign(
    b: NoiseScale, noise: _noise.Noise | None = None, key: Seed = 0
) -> optax.GradientTransformation:
    """Each worker's sign(g_i + b ξ_i), drawn directly: +1 with probability F(g_i/b), else -1.

    The same in distribution as `perturb(b, noise)` before a majority vote, which looks at the sign
    alone, and several times faster: F, the noise's distribution function, takes the place of the
    noise. Where b is 0 it is the sign of g_i, 0 for an exact 0; NaN stays NaN, and abstains.

    The draws of worker i at step t in leaf l are a pure function of (key, t, l, i, coordinate), as
    in `perturb`, but they aren't those of `perturb` with the same key.

    Chen et al. (2020), algorithm 3; Jin et al. (2020) study the like as stochastic-sign SGD.

    Args:
        b: the standard deviation of the noise, as in `perturb`.
        noise: a distribution of `medjax.noise`; standard normal by default.
        key: a JAX key or an integer seed; a second `noisy_sign` in the same chain needs another.

    Returns:
        A transform of stacked updates, leaves (n, *shape), to signs of the same shapes and dtypes.

    Raises:
        ValueError, TypeError: as `perturb`.
    """
    distribution = check_noise(b, noise)

    def sign(x: Array, scale: Array, key: Array, worker: Worker) -> Array:
        working = jnp.promote_types(x.dtype, jnp.float32)
        # 0 · (1/0) is NaN: undecided, so that without noise a 0 stays 0, and NaN is NaN.
        mean = distribution.mean_sign(x.astype(working) * (1 / jnp.abs(scale.astype(working))))
        first, second = pair_words(key, worker.pair, x.size)
        word = second if worker.second is True else first
        if isinstance(worker.second, Array):
            word = jnp.where(worker.second, second, first)
        return draw_sign(mean, word, 0 * x)

    return noise_stage("noisy_sign", b, key, prepare=lambda leaf_key, n: leaf_key, draw=sign)
