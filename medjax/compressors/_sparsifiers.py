"""Compressors that send only some of the coordinates."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Key

from medjax._engine import checks
from medjax._engine.kernels.largest import largest
from medjax._engine.kernels.threefry import random_bits
from medjax._engine.random import MaybeKey
from medjax.compressors._compressor import (
    SEED_BITS,
    Compressor,
    Leaves,
    value_bits,
    vector_compressor,
)


def top_k(k: int | None = None, *, fraction: float | None = None) -> Compressor:
    """The k coordinates of largest magnitude, and 0 for the others. Biased.

        g_j for j ∈ S, else 0, S the k of largest |g_j|.

    All leaves are one vector, and ties go to the lowest index. The compressor is a contraction:
    ‖C(g) - g‖² ≤ (1 - k/d)·‖g‖² (Stich et al., 2018).

    A message takes k(32 + ⌈log₂ d⌉) bits in float32: the numbers as they are (in the dtype of the
    widest leaf) and their indices. NaN and ±∞ count as the largest and are sent as they are.

    Args:
        k: the number of coordinates to send, at most d.
        fraction: the share of d to send, in place of k; k is rounded, but is at least 1.

    Raises:
        TypeError: if k isn't a static integer, or the fraction isn't a static number.
        ValueError: unless exactly one of the two is given; if k is below 1 or the fraction isn't in
            (0, 1]; when traced, if k > d.

    >>> print(top_k(1).compress(jnp.array([1.0, -3.0, 2.0])))
    [ 0. -3.  0.]
    """
    name = _checked_name("top_k", k, fraction)

    def send(x: Array, key: MaybeKey) -> Array:
        del key
        magnitude = jnp.where(jnp.isnan(x), jnp.inf, jnp.abs(x))
        # Non-negative floats are ordered like their bits, read as integers.
        bits = lax.bitcast_convert_type(magnitude, _integer_dtype(x.dtype))
        return jnp.where(largest(bits, _num_kept(name, x.size, k, fraction)), x, 0)

    def length(d: int, dtype: jnp.dtype) -> int:
        return _num_kept(name, d, k, fraction) * (value_bits(dtype) + (d - 1).bit_length())

    return vector_compressor(name, send, length, unbiased=False)


def random_k(k: int | None = None, *, fraction: float | None = None) -> Compressor:
    """A uniformly random subset of k coordinates, times d/k, and 0 for the others. Unbiased.

        (d/k) g_j for j ∈ S, else 0, |S| = k.

    All leaves are one vector, and E‖Q(g) - g‖² = (d/k - 1)·‖g‖² (Stich et al., 2018; Wangni et al.,
    2018).

    A message takes 32k + 32 bits in float32: the numbers as they are (in the dtype of the widest
    leaf) and the seed of their indices. NaN and ±∞ are sent as they are if they are drawn.

    Args:
        k: as in `top_k`.
        fraction: as in `top_k`.

    Raises:
        TypeError, ValueError: as for `top_k`, including if k > d.
    """
    name = _checked_name("random_k", k, fraction)

    def send(x: Array, key: MaybeKey) -> Array:
        assert key is not None
        return _random_subset(x, _num_kept(name, x.size, k, fraction), key)

    def length(d: int, dtype: jnp.dtype) -> int:
        return _num_kept(name, d, k, fraction) * value_bits(dtype) + SEED_BITS

    return vector_compressor(name, send, length, unbiased=True, needs_key=True)


def random_mask(fraction: float) -> Compressor:
    """A random share of each tensor's coordinates, scaled up, and 0 for the others. Unbiased.

        (s/k_s) g_j for j ∈ S, else 0, |S| = k_s of s coordinates of a tensor.

    This is the random mask of Konečný et al. (2016), one for each tensor, scaled as in their
    subsampling. Unlike with `random_k`, no tensor can be left out: of a tensor's s coordinates,
    k_s = max(1, round(fraction·s)) are sent, times s/k_s.

    A message takes 32 Σ_s k_s + 32 bits in float32: the numbers as they are and the seed of the
    mask. NaN and ±∞ are sent as they are if they are drawn.

    Args:
        fraction: in (0, 1].

    Raises:
        TypeError: if the fraction isn't a static number.
        ValueError: if it isn't in (0, 1].
    """
    name = _checked_name("random_mask", None, fraction)

    def send(leaves: Leaves, key: MaybeKey) -> Leaves:
        assert key is not None
        masked = []
        for i, x in enumerate(leaves):
            k = _num_kept(name, x.size, None, fraction)
            masked.append(
                _random_subset(x.reshape(-1), k, jax.random.fold_in(key, i)).reshape(x.shape)
            )
        return masked

    def length(leaves: list[jax.ShapeDtypeStruct]) -> int:
        kept = [_num_kept(name, x.size, None, fraction) * value_bits(x.dtype) for x in leaves]
        return sum(kept) + SEED_BITS

    return Compressor(name, send, length, unbiased=True, needs_key=True)


def _random_subset(x: Array, k: int, key: Key[Array, ""]) -> Array:
    """Return a random k of the coordinates, scaled so that the expectation is x."""
    if k == x.size:
        return x
    # `largest` needs non-negative integers, so one bit of each word is dropped.
    words = lax.bitcast_convert_type(random_bits(key, x.size) >> 1, jnp.int32)
    return jnp.where(largest(words, k), x * (x.size / k), 0)


def _integer_dtype(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.dtype(f"int{jnp.finfo(dtype).bits}")


def _checked_name(kind: str, k: int | None, fraction: float | None) -> str:
    """Check the setting, and return the name with it."""
    if (k is None) == (fraction is None):
        if kind == "random_mask":
            raise ValueError("random_mask needs a fraction, got None")
        raise ValueError(f"{kind} needs either k or a fraction, got {k=} and {fraction=}")
    if k is not None:
        return f"{kind}(k={checks.integer('k', k, minimum=1)})"
    if isinstance(fraction, Tracer):
        raise TypeError("fraction changes how much is sent and must be static, got a traced value")
    checks.real("fraction", fraction, minimum=0.0, exclusive=True)
    if fraction is not None and fraction > 1:
        raise ValueError(f"fraction must be at most 1, got {fraction:g}")
    return f"{kind}(fraction={fraction:g})"


def _num_kept(name: str, d: int, k: int | None, fraction: float | None) -> int:
    """Return how many of d coordinates are sent.

    Raises:
        ValueError: if k > d.
    """
    if fraction is not None:
        return min(d, max(1, round(fraction * d)))
    assert k is not None
    if k > d:
        raise ValueError(f"{name} keeps {k} coordinates, got an update of d = {d}")
    return k
