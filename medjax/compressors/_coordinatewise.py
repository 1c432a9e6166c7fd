"""Compressors that send each coordinate separately, along with one or more scales."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from medjax._engine.kernels.threefry import random_bits
from medjax._engine.random import MaybeKey
from medjax.compressors._compressor import Compressor, Leaves

Word: TypeAlias = UInt32[Array, " d"] | None
"""A random word per coordinate, or None if nothing is drawn."""


def coordinatewise(
    name: str,
    scales: Callable[[Leaves], list[Float[Array, ""]]],
    decode: Callable[[Float[Array, " d"], Float[Array, ""], Word], Float[Array, " d"]],
    length: Callable[[list[jax.ShapeDtypeStruct]], int],
    *,
    unbiased: bool,
    needs_key: bool,
) -> Compressor:
    """Build a compressor whose output at a coordinate depends on it, a scale and a random word.

    Args:
        name: the name with the settings.
        scales: the leaves to one scale per leaf. It is rounded to float32, as it would be sent.
        decode: (a flat leaf, its scale, a word per coordinate or None) to the decoded leaf.
        length: as in `Compressor`.
        unbiased: as in `Compressor`.
        needs_key: as in `Compressor`.
    """

    def send(leaves: Leaves, key: MaybeKey) -> Leaves:
        sent = []
        for i, (x, scale) in enumerate(zip(leaves, scales(leaves), strict=True)):
            word = None if key is None else random_bits(jax.random.fold_in(key, i), x.size)
            scale = jnp.asarray(scale, jnp.float32).astype(x.dtype)
            sent.append(decode(x.reshape(-1), scale, word).reshape(x.shape))
        return sent

    return Compressor(name, send, length, unbiased, needs_key)


def total(f: Callable[[Array], Array], leaves: Leaves) -> Float[Array, ""]:
    """Return Σ_j f(g_j) over all leaves."""
    return jnp.sum(jnp.stack([jnp.sum(f(x)) for x in leaves]))


def max_norm(leaves: Leaves) -> Float[Array, ""]:
    """Return ‖g‖∞ over all leaves, or NaN if one of them has a NaN."""
    return jnp.max(jnp.stack([jnp.max(jnp.abs(x), initial=0) for x in leaves]))


def round_randomly(x: Float[Array, " d"], word: UInt32[Array, " d"]) -> Float[Array, " d"]:
    """Return ⌊x⌋ + 1 with probability x - ⌊x⌋, else ⌊x⌋."""
    # Signed integers are converted to floats faster than unsigned ones.
    bits = jax.lax.bitcast_convert_type(word >> 8, jnp.int32)
    below = jnp.floor(x)
    return below + (bits.astype(x.dtype) * 2**-24 < x - below).astype(x.dtype)
