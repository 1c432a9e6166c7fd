"""Compressors that send one of a few levels for each coordinate."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from medjax._engine import checks
from medjax.compressors._compressor import SCALE_BITS, Compressor, total_size
from medjax.compressors._coordinatewise import Word, coordinatewise, max_norm, round_randomly, total


def qsgd(levels: int = 1) -> Compressor:
    """QSGD: each |g_j|/‖g‖ is rounded at random to a multiple of 1/s next to it. Unbiased.

        ‖g‖ · sign(g_j) · ℓ_j/s, ℓ_j = ⌊s|g_j|/‖g‖⌋, plus 1 with the remainder as probability.

    The error is bounded by E‖Q(g) - g‖² ≤ min(d/s², √d/s)·‖g‖² (Alistarh et al., 2017).

    A message takes 32 + d(1 + ⌈log₂(s + 1)⌉) bits: the norm of all leaves together, then a sign and
    a level of fixed length for each coordinate. (The paper's Elias code is shorter, but its length
    is random.) With a NaN or ±∞ anywhere, or if ‖g‖² overflows, none of the output is finite.

    Args:
        levels: s, the number of levels above 0.

    Raises:
        TypeError: if s isn't a static integer.
        ValueError: if s is below 1.
    """
    s = checks.integer("levels", levels, minimum=1)

    return coordinatewise(
        f"qsgd(levels={s})",
        lambda leaves: [jnp.sqrt(total(jnp.square, leaves))] * len(leaves),
        lambda x, scale, word: _draw_level(x, scale, word, s),
        lambda leaves: SCALE_BITS + total_size(leaves) * (1 + s.bit_length()),
        unbiased=True,
        needs_key=True,
    )


def terngrad() -> Compressor:
    """TernGrad: s·sign(g_j) with probability |g_j|/s, else 0, with s = max|g| of the tensor.

    It is unbiased, and the variance of a coordinate is s|g_j| - g_j² (Wen et al., 2017, without
    their clipping of the gradient). As in the paper, each tensor has its own scale.

    A message takes 8⌈d/5⌉ bits, and 32 for each tensor: a byte holds five ternary values, as
    3⁵ ≤ 2⁸, which is within 1 % of log₂ 3 bits per coordinate. With a NaN or ±∞ in a tensor, none
    of that tensor's output is finite.
    """

    def length(leaves: list[jax.ShapeDtypeStruct]) -> int:
        return 8 * -(-total_size(leaves) // 5) + SCALE_BITS * len(leaves)

    return coordinatewise(
        "terngrad",
        lambda leaves: [max_norm([x]) for x in leaves],
        lambda x, scale, word: _draw_level(x, scale, word, 1),
        length,
        unbiased=True,
        needs_key=True,
    )


def _draw_level(x: Array, scale: Array, word: Word, levels: int) -> Array:
    """Round x at random to one of the two multiples of scale/levels around it."""
    assert word is not None
    share = jnp.abs(x) / jnp.where(scale > 0, scale, 1)
    # Rounding errors may bring the share above 1.
    level = jnp.minimum(round_randomly(levels * share, word), levels)
    return scale / levels * jnp.sign(x) * level
