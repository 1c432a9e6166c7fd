"""Compressors that send one bit for each coordinate."""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax._engine import checks
from medjax._engine.kernels.signs import draw_sign
from medjax.compressors._compressor import SCALE_BITS, Compressor, total_size
from medjax.compressors._coordinatewise import Word, coordinatewise, max_norm, total

Zero: TypeAlias = Literal["plus", "random"]


def sign(zero: Zero = "plus") -> Compressor:
    """The sign of each coordinate, ±1 (Bernstein et al., 2018). Biased.

        sign(g_j).

    A message takes d bits. One bit can't represent 0, so an exact 0 is sent as +1 or -1. For a vote
    in which some workers should abstain, leave the compressor out: `rules.majority_vote` takes the
    signs itself. A NaN has no sign and is sent like a 0; ±∞ is sent like any other number.

    Args:
        zero: +1 for an exact 0 ("plus"), or +1 or -1 with even odds ("random").

    Raises:
        ValueError: if the option isn't one of these.

    >>> print(sign().compress(jnp.array([3.0, -0.5, 0.0])))
    [ 1. -1.  1.]
    """
    checks.option("zero", zero, ("plus", "random"))
    return coordinatewise(
        f"sign(zero={zero})",
        lambda leaves: [jnp.float32(1)] * len(leaves),
        lambda x, scale, word: _sign(x, word),
        total_size,
        unbiased=False,
        needs_key=zero == "random",
    )


def scaled_sign(zero: Zero = "plus") -> Compressor:
    """The sign of each coordinate, times the mean magnitude: (‖g‖₁/d)·sign(g). Biased.

    A message takes d + 32 bits: the scale is one float32 for all leaves. The compressor is a
    contraction, whatever is sent for 0: ‖C(g) - g‖² = (1 - ‖g‖₁²/(d‖g‖²))·‖g‖² (Karimireddy et al.,
    2019, lemma 8). With a NaN or ±∞ anywhere, none of the output is finite.

    Args:
        zero: as in `sign`.

    Raises:
        ValueError: if the option isn't one of these.

    >>> print(scaled_sign().compress(jnp.array([3.0, -0.5, -1.0])))
    [ 1.5 -1.5 -1.5]
    """
    checks.option("zero", zero, ("plus", "random"))

    def scale(leaves: list[Array]) -> list[Array]:
        return [total(jnp.abs, leaves) / total_size(leaves)] * len(leaves)

    return coordinatewise(
        f"scaled_sign(zero={zero})",
        scale,
        lambda x, scale, word: scale * _sign(x, word),
        lambda leaves: total_size(leaves) + SCALE_BITS,
        unbiased=False,
        needs_key=zero == "random",
    )


def stochastic_sign(bound: float | Float[Array, ""] | None = None) -> Compressor:
    """A random sign, times B: +B with probability (1 + g_j/B)/2, else -B.

    With B = ‖g‖∞, which is sent along, it is unbiased and a message takes d + 32 bits. The variance
    of a coordinate is B² - g_j². For a majority vote, Jin et al. (2020) send the sign alone, with a
    B that everyone knows: d bits. That is unbiased only while no |g_j| is above B, so it is marked
    as biased. (Safaryan and Richtárik, 2021, take B = ‖g‖₂.)

    With a NaN or ±∞ anywhere, none of the output is finite. With a given B, however, they are sent
    like 0 and ±B.

    Args:
        bound: B > 0; may be traced. None means ‖g‖∞.

    Raises:
        TypeError: if B isn't a real number.
        ValueError: if B isn't positive and finite.
    """
    if bound is not None:
        checks.real("bound", bound, minimum=0.0, exclusive=True)
    text = "" if bound is None else "bound" if isinstance(bound, jax.Array) else f"bound={bound:g}"

    def scale(leaves: list[Array]) -> list[Array]:
        b = jnp.asarray(max_norm(leaves) if bound is None else bound)
        return [b] * len(leaves)

    def draw(x: Array, scale: Array, word: Word) -> Array:
        assert word is not None
        mean = x / jnp.where(scale > 0, scale, 1)
        return scale * draw_sign(jnp.where(jnp.isnan(mean), 0, mean), word, x)

    return coordinatewise(
        f"stochastic_sign({text})",
        scale,
        draw,
        lambda leaves: total_size(leaves) + (SCALE_BITS if bound is None else 0),
        unbiased=bound is None,
        needs_key=True,
    )


def _sign(x: Array, word: Word) -> Array:
    """Return the signs, ±1; a coordinate without one gets +1 or, given words, a random sign."""
    if word is None:
        return jnp.where(x < 0, -1, 1).astype(x.dtype)
    return draw_sign(jnp.where(x > 0, 1, jnp.where(x < 0, -1, 0)).astype(x.dtype), word, x)
