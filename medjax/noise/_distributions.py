"""Symmetric, unimodal distributions with mean 0 and variance 1."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy import special
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Key, UInt32

from medjax._engine import checks
from medjax._engine.kernels.erf_inv import erf_inv
from medjax._engine.kernels.threefry import random_words
from medjax._engine.plain import check_function, name_of
from medjax._engine.precision import at_least_float32
from medjax._engine.settings import static_real


@runtime_checkable
class Sample(Protocol):
    """Draws independent numbers of variance 1; any such function is a noise."""

    def __call__(
        self, key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
    ) -> Float[Array, "..."]:
        """Return an array of the shape and dtype.

        The library's own draw float32 for narrower dtypes and round it.
        """
        ...


@dataclass(frozen=True)
class Noise:
    """A symmetric unimodal distribution of mean 0 and variance 1.

    Attributes:
        name: the distribution with its settings.
        sample: (key, shape, dtype=float32) to independent draws.
        cdf: x to P(ξ <= x) = F(x), elementwise; None if it isn't known.
        mean_sign: x to E[sign(x + ξ)] = 2 F(x) - 1, elementwise; None if it isn't known. Near 0 it
            keeps the digits that subtracting from F(x) would lose.
        support: the half-width of the support, P(|ξ| <= support) = 1; ∞ unless it is bounded.
    """

    name: str
    sample: Sample
    cdf: Callable[[ArrayLike], Float[Array, "..."]] | None = None
    mean_sign: Callable[[ArrayLike], Float[Array, "..."]] | None = None
    support: float = math.inf


def as_noise(noise: Noise | Sample | None) -> Noise:
    """Return a built distribution as it is, a plain function as one, and the normal one for None.

    Raises:
        TypeError: if it is neither (`noise.normal` in place of `noise.normal()`).
    """
    if noise is None:
        return normal()
    if isinstance(noise, Noise):
        return noise
    check_function("noise", noise, 3, "medjax.noise.normal()")

    def sample(
        key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
    ) -> Array:
        drawn = jnp.asarray(noise(key, shape, dtype))
        if drawn.shape != shape:
            raise ValueError(
                f"noise {name_of(noise)} must draw shape {shape}, got shape {drawn.shape}"
            )
        return drawn.astype(dtype)

    return Noise(name_of(noise), sample)


Words = tuple[UInt32[Array, " d"], UInt32[Array, " d"]]
"""Two random 32-bit words for each number."""


def normal() -> Noise:
    """The standard normal distribution, F(x) = Φ(x).

    The draws are those of `jax.random.normal`, up to rounding in the inverse error function, but
    several times faster.
    """
    return _by_inversion(
        "normal",
        lambda u: math.sqrt(2) * erf_inv(u),
        special.ndtr,
        lambda x: lax.erf(x / math.sqrt(2)),
    )


def laplace() -> Noise:
    """The Laplace distribution with scale 1/√2: F(x) = exp(√2 x)/2 for x <= 0."""

    def cdf(x: Array) -> Array:
        tail = 0.5 * jnp.exp(-math.sqrt(2) * jnp.abs(x))
        return jnp.where(x > 0, 1 - tail, tail)

    return _by_inversion(
        "laplace",
        lambda u: -jnp.sign(u) * jnp.log1p(-jnp.abs(u)) / math.sqrt(2),
        cdf,
        lambda x: -jnp.sign(x) * jnp.expm1(-math.sqrt(2) * jnp.abs(x)),
    )


def logistic() -> Noise:
    """The logistic distribution with scale s = √3/π: F(x) = 1/(1 + exp(-x/s))."""
    scale = math.sqrt(3) / math.pi
    return _by_inversion(
        "logistic",
        lambda u: scale * (jnp.log1p(u) - jnp.log1p(-u)),
        lambda x: special.expit(x / scale),
        lambda x: jnp.tanh(x / (2 * scale)),
    )


def uniform() -> Noise:
    """The uniform distribution on [-√3, √3]: F(x) = (1 + x/√3)/2 there."""
    return _by_inversion(
        "uniform",
        lambda u: math.sqrt(3) * u,
        lambda x: jnp.clip(0.5 + x / (2 * math.sqrt(3)), 0, 1),
        lambda x: jnp.clip(x / math.sqrt(3), -1, 1),
        support=math.sqrt(3),
    )


def triangular() -> Noise:
    """The triangular distribution on [-√6, √6]: F(x) = (1 + x/√6)²/2 for -√6 <= x <= 0."""

    def relative_size(x: Array) -> Array:
        return jnp.clip(jnp.abs(x) / math.sqrt(6), 0, 1)

    def cdf(x: Array) -> Array:
        tail = 0.5 * (1 - relative_size(x)) ** 2
        return jnp.where(x > 0, 1 - tail, tail)

    return _by_inversion(
        "triangular",
        lambda u: jnp.sign(u) * math.sqrt(6) * (1 - jnp.sqrt(1 - jnp.abs(u))),
        cdf,
        lambda x: jnp.sign(x) * relative_size(x) * (2 - relative_size(x)),
        support=math.sqrt(6),
    )


def student_t(df: float = 5.0) -> Noise:
    """Student's t-distribution with df degrees of freedom, scaled by √((df - 2)/df).

        f(x) ∝ (1 + x²/(df - 2))^(-(df + 1)/2).

    It is drawn by the polar method of Bailey (1994): t = √(df (U^(-2/df) - 1)) cos(2πV), with
    uniform U and V. Beyond a million degrees of freedom, the normal distribution takes its place:
    they agree to the last digit of float32.

    Args:
        df: the degrees of freedom, above 2 so that the variance is finite.

    Raises:
        ValueError: if df isn't a finite number above 2.
        TypeError: if it isn't a static number.
    """
    checks.real("df", df, minimum=2.0, exclusive=True)
    df = static_real("df", df)
    name = f"student_t(df={df:g})"
    if df > 1e6:
        return replace(normal(), name=name)
    scale = math.sqrt((df - 2) / df)

    def sample(
        key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
    ) -> Array:
        working = at_least_float32(dtype)
        # The 0.5 keeps U in (0, 1], so that the radius is finite.
        u, v = ((w.astype(working) + 0.5) * 2**-32 for w in random_words(key, math.prod(shape)))
        radius = jnp.sqrt(df * jnp.expm1(-2 / df * jnp.log(u)))
        return (scale * radius * jnp.cos(2 * math.pi * v)).reshape(shape).astype(dtype)

    def cdf(x: ArrayLike) -> Array:
        t, near, tail = _student_t(_as_floating(x) / scale, df)
        # Use the smaller of `near` and `tail`: subtracting nearly equal numbers loses digits.
        below = jnp.where(near < 0.5, 0.5 - 0.5 * near, 0.5 * tail)
        return jnp.where(t > 0, 1 - below, below)

    def mean_sign(x: ArrayLike) -> Array:
        t, near, tail = _student_t(_as_floating(x) / scale, df)
        return jnp.sign(t) * jnp.where(near < 0.5, near, 1 - tail)

    return Noise(name, sample, cdf, mean_sign)


def _student_t(t: Array, df: float) -> tuple[Array, Array, Array]:
    """Return t, P(|T| < |t|) and P(|T| > |t|), unscaled, accurate to t's dtype even near 0."""
    # Without the limit, a t² that overflows would give ∞/∞ below.
    square = jnp.minimum(t * t, jnp.finfo(t.dtype).max)
    if df >= 30:
        # As df grows, the incomplete beta function loses digits, and Hill's expansion (1970) gains
        # them.
        a = df - 0.5
        z2 = a * jnp.log1p(square / df)
        second = (((4 * z2 + 33) * z2 + 240) * z2 + 855) / (10 * (48 * a * a + 0.8 * z2**2 + 100))
        z = jnp.sqrt(z2 / 2) * (1 + (z2 + 3 - second) / (48 * a * a))
        return t, lax.erf(z), lax.erfc(z)
    near = special.betainc(0.5, df / 2, square / (df + square))
    return t, near, special.betainc(df / 2, 0.5, df / (df + square))


def _by_inversion(
    name: str,
    quantile: Callable[[Array], Array],
    cdf: Callable[[Array], Array],
    mean_sign: Callable[[Array], Array],
    *,
    support: float = math.inf,
) -> Noise:
    """Build a distribution that is drawn by `quantile`, from u in (-1, 1) to F⁻¹((1 + u)/2)."""

    def sample(
        key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
    ) -> Array:
        # Draw a flat array: XLA doesn't vectorise the rounds of threefry over a short last axis.
        u = _symmetric_uniform(
            random_words(key, math.prod(shape)), jax.dtypes.canonicalize_dtype(dtype)
        )
        return quantile(u).astype(u.dtype).reshape(shape).astype(dtype)

    return Noise(
        name, sample, lambda x: cdf(_as_floating(x)), lambda x: mean_sign(_as_floating(x)), support
    )


def _symmetric_uniform(words: Words, dtype: jnp.dtype) -> Float[Array, " d"]:
    """Return uniform numbers in (-1, 1), bit for bit those that `jax.random.normal` starts from."""
    if dtype == jnp.float64:
        bits = words[0].astype(jnp.uint64) << 32 | words[1].astype(jnp.uint64)
        one_to_two = lax.bitcast_convert_type(bits >> 12 | np.uint64(0x3FF << 52), jnp.float64)
        low = np.nextafter(np.float64(-1), np.float64(0))
    else:
        bits = words[0] ^ words[1]
        one_to_two = lax.bitcast_convert_type(bits >> 9 | np.uint32(0x7F << 23), jnp.float32)
        low = np.nextafter(np.float32(-1), np.float32(0))
    return (one_to_two - 1) * (low.dtype.type(1) - low) + low


def _as_floating(x: ArrayLike) -> Array:
    return jnp.asarray(x, dtype=at_least_float32(jnp.result_type(x)))
