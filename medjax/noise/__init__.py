"""Noise for the workers' gradients: distributions, and the two stages that draw from them.

Every distribution is symmetric and unimodal with mean 0 and variance 1, as Chen et al. (2020)
assume. A factory builds a `Noise` with `sample(key, shape, dtype)`, `cdf(x)` and `mean_sign(x)`:

>>> import jax
>>> from medjax import noise
>>> float(noise.laplace().cdf(0.0))
0.5
>>> noise.laplace().sample(jax.random.key(0), (2, 3)).shape
(2, 3)

All but Student's t are drawn by inverting the distribution function at one uniform number per
coordinate, from counter-based bits: coordinate j of a draw depends on the key and on j alone.
`medjax.perturb` adds the noise; `medjax.noisy_sign` draws the sign of the noisy value directly.
"""

from collections.abc import Callable, Mapping

from medjax.noise._distributions import Noise as Noise
from medjax.noise._distributions import Sample as Sample
from medjax.noise._distributions import laplace as laplace
from medjax.noise._distributions import logistic as logistic
from medjax.noise._distributions import normal as normal
from medjax.noise._distributions import student_t as student_t
from medjax.noise._distributions import triangular as triangular
from medjax.noise._distributions import uniform as uniform
from medjax.noise._noisy_sign import noisy_sign as noisy_sign
from medjax.noise._perturb import AdaptiveScale as AdaptiveScale
from medjax.noise._perturb import NoiseScale as NoiseScale
from medjax.noise._perturb import PerturbState as PerturbState
from medjax.noise._perturb import adaptive_scale as adaptive_scale
from medjax.noise._perturb import perturb as perturb

NOISES: Mapping[str, Callable[..., Noise]] = {
    "normal": normal,
    "laplace": laplace,
    "logistic": logistic,
    "uniform": uniform,
    "triangular": triangular,
    "student_t": student_t,
}
"""Every distribution's factory by its name."""
