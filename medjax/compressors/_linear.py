"""Compressors by a random linear map: a rotation, or a projection to a low rank."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from medjax._engine import checks
from medjax._engine.gram import dot
from medjax._engine.kernels.hadamard import hadamard
from medjax._engine.kernels.threefry import random_bits, random_words
from medjax._engine.random import MaybeKey
from medjax.compressors._compressor import (
    SCALE_BITS,
    SEED_BITS,
    Compressor,
    Leaves,
    value_bits,
    vector_compressor,
    widened,
)
from medjax.compressors._coordinatewise import round_randomly


def rotation_quantization(bits: int = 1) -> Compressor:
    """A random rotation, then 2ᵇ levels from the least coordinate to the greatest. Unbiased.

        D H ŷ/√D', with y = H D g/√D' and ŷ_j drawn from the two levels around y_j.

    g is the vector of all leaves, padded with zeros to the next power of two D' ≥ d, D is a
    diagonal of random signs, and H is a Hadamard matrix, applied in O(D' log D'). The expectation
    of ŷ_j is y_j, and the rotation makes max(y) - min(y) small for any g (Konečný et al., 2016;
    Suresh et al., 2017).

    A message takes bD' + 96 bits: a level for each rotated coordinate, the least and the greatest
    as float32, and the seed of the signs. With a NaN or ±∞ anywhere, the whole output is NaN.

    Args:
        bits: b, from 1 to 8.

    Raises:
        TypeError: if b isn't a static integer.
        ValueError: if b isn't in 1, ..., 8.
    """
    b = checks.integer("bits", bits, minimum=1)
    if b > 8:
        raise ValueError(f"bits must be at most 8, got {b}")

    def send(x: Array, key: MaybeKey) -> Array:
        assert key is not None
        # The server repeats the draw of the signs from the seed. The levels need words of their
        # own, independent of the signs.
        signs, levels = random_words(key, _padded_size(x.size))
        signs = jnp.where(signs >> 31, 1, -1).astype(x.dtype)
        rotated = hadamard(signs * jnp.pad(x, (0, signs.size - x.size)))
        low, high = _rounded_to_float32(jnp.min(rotated)), _rounded_to_float32(jnp.max(rotated))
        width = (high - low) / (2**b - 1)
        level = round_randomly((rotated - low) / jnp.where(width > 0, width, 1), levels)
        quantized = low + width * jnp.clip(level, 0, 2**b - 1)
        return (signs * hadamard(quantized))[: x.size]

    def length(d: int, dtype: jnp.dtype) -> int:
        del dtype
        return b * _padded_size(d) + 2 * SCALE_BITS + SEED_BITS

    name = f"rotation_quantization(bits={b})"
    return vector_compressor(name, send, length, unbiased=True, needs_key=True)


def low_rank(rank: int = 1) -> Compressor:
    """A Aᵀ G for each matrix G, with a random A: B = Aᵀ G, of r rows, is sent. Unbiased.

    A has r columns with entries ±1/√r, drawn from a seed, so that E[A Aᵀ] = I. The server's A B has
    rank at most r, and E‖A Aᵀ G - G‖² = (m - 1)/r·‖G‖² for m rows. This is the structured update of
    Konečný et al. (2016), as a sketch of an update that was computed without that structure.

    A tensor with two or more axes is a matrix with as many columns as its last axis is long. A
    vector, or a matrix with at most r rows, is sent as it is.

    A message takes 32 r bits for each column of each matrix in float32 (B is in float32 at least),
    the bits of the tensors that are sent as they are, and 32 bits for the seed. NaN or ±∞ in a
    matrix spoils the column that it is in.

    Args:
        rank: r.

    Raises:
        TypeError: if r isn't a static integer.
        ValueError: if r is below 1.
    """
    r = checks.integer("rank", rank, minimum=1)

    def send(leaves: Leaves, key: MaybeKey) -> Leaves:
        assert key is not None
        return [
            _project(x, r, jax.random.fold_in(key, i)) if _num_rows(x.shape) > r else x
            for i, x in enumerate(leaves)
        ]

    def length(leaves: list[jax.ShapeDtypeStruct]) -> int:
        total = SEED_BITS
        for x in leaves:
            if _num_rows(x.shape) > r:
                total += r * x.shape[-1] * value_bits(widened(x.dtype))
            else:
                total += x.size * value_bits(x.dtype)
        return total

    return Compressor(f"low_rank(rank={r})", send, length, unbiased=True, needs_key=True)


def _padded_size(d: int) -> int:
    """Return the least power of two that is at least d."""
    return 1 << (d - 1).bit_length()


def _rounded_to_float32(x: Array) -> Array:
    return x.astype(jnp.float32).astype(x.dtype)


def _num_rows(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-1])


def _project(x: Float[Array, "*shape"], rank: int, key: Key[Array, ""]) -> Float[Array, "*shape"]:
    matrix = x.reshape(_num_rows(x.shape), x.shape[-1])
    words = random_bits(key, len(matrix) * rank).reshape(-1, rank)
    a = jnp.where(words >> 31, 1, -1).astype(x.dtype) / math.sqrt(rank)
    return dot(a, dot(a.T, matrix)).reshape(x.shape)
