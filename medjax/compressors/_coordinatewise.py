"""Compressors that send each coordinate for itself, and a scale or some with them."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from medjax._engine.random import MaybeKey
from medjax._engine.kernels.threefry import random_bits
from medjax.compressors._compressor import Compressor, Leaves

Word: TypeAlias = UInt32[Array, " d"] | None


def coordinatewise(
    name: str,
    scales: Callable[[Leaves], list[Float[Array, ""]]],
    decoded: Callable[[Float[Array, " d"], Float[Array, ""], Word], Float[Array, " d"]],
    length: Callable[[list[jax.ShapeDtypeStruct]], int],
    *,
    unbiased: bool,
    needs_key: bool,
) -> Compressor:
    """A compressor that makes of each coordinate what depends on it, a scale, and a random word.

    Args:
        name: with the settings.
        scales: the leaves to a scale for each, which is sent as a float32 if it must be.
        decoded: (a flat leaf, its scale, a word for each coordinate or None) to what comes out.
        length: as in `Compressor`.
        unbiased: as in `Compressor`.
        needs_key: as in `Compressor`.
    """

    def send(leaves: Leaves, key: MaybeKey) -> Leaves:
        sent = []
        for i, (x, scale) in enumerate(zip(leaves, scales(leaves), strict=True)):
            word = None if key is None else random_bits(jax.random.fold_in(key, i), x.size)
            scale = jnp.asarray(scale, jnp.float32).astype(x.dtype)
            sent.append(decoded(x.reshape(-1), scale, word).reshape(x.shape))
        return sent

    return Compressor(name, send, length, unbiased, needs_key)


def total(f: Callable[[Array], Array], leaves: Leaves) -> Float[Array, ""]:
    """Σ_j f(g_j) over all leaves."""
    return jnp.sum(jnp.stack([jnp.sum(f(x)) for x in leaves]))


def max_norm(leaves: Leaves) -> Float[Array, ""]:
    """‖g‖∞ over all leaves; NaN if there is one."""
    return jnp.max(jnp.stack([jnp.max(jnp.abs(x), initial=0) for x in leaves]))


def round_randomly(x: Float[Array, " d"], word: UInt32[Array, " d"]) -> Float[Array, " d"]:
    """⌊x⌋ or the next above it, the latter with probability x - ⌊x⌋."""
    # As a signed integer, which is converted the faster.
    bits = jax.lax.bitcast_convert_type(word >> 8, jnp.int32)
    below = jnp.floor(x)
    return below + (bits.astype(x.dtype) * 2**-24 < x - below)
