"""Inverse error function for noise: faster than XLA's on the CPU and more accurate in the tails."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# Giles, "Approximating the erfinv function" (2012), table 5: coefficients of the powers of w - 2.5
# for w < 5, else of sqrt(w) - 3, the highest power first.
_CENTRAL = (
    *(2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087),
    *(-0.00125372503, -0.00417768164, 0.246640727, 1.50140941),
)
_TAIL = (
    *(-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773),
    *(-0.0076224613, 0.00943887047, 1.00167406, 2.83297682),
)

# Moshier, Cephes library, logf: (log(1 + x) - x + x²/2)/x³ for sqrt(1/2) <= 1 + x < sqrt(2), the
# highest power first.
_LOG = (
    *(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1),
    *(-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
)
_BITS_OF_SQRT_HALF = 0x3F3504F3


def erf_inv(u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return x with erf(x) = u, for -1 < u < 1; float64 is left to XLA."""
    if u.dtype != jnp.float32:
        return lax.erf_inv(u)
    # (1 - u)(1 + u) rather than 1 - u², because 1 - u is exact for u near 1. For u near 0, log1p
    # would give w more digits, but the result doesn't depend on them there.
    w = -_log((1 - u) * (1 + u))
    central = w < 5
    w = jnp.where(central, w - 2.5, jnp.sqrt(w) - 3)
    result = jnp.zeros_like(w)
    for a, b in zip(_CENTRAL, _TAIL, strict=True):
        result = result * w + jnp.where(central, np.float32(a), np.float32(b))
    return result * u


def _log(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return log(x) for positive normal numbers, without the special cases of `jnp.log`."""
    # Split x into 2^exponent and a mantissa from sqrt(1/2) to sqrt(2), the range of the series.
    bits = lax.bitcast_convert_type(x, jnp.int32)
    exponent = (bits - _BITS_OF_SQRT_HALF) >> 23
    x = lax.bitcast_convert_type(bits - (exponent << 23), jnp.float32) - 1
    series = jnp.full_like(x, _LOG[0])
    for coefficient in _LOG[1:]:
        series = series * x + np.float32(coefficient)
    square = x * x
    log_of_mantissa = x + (x * square * series - 0.5 * square)
    return log_of_mantissa + exponent.astype(x.dtype) * np.float32(np.log(2))
