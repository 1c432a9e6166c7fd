"""Draw the sign of a noisy value directly, without drawing and adding the noise itself."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt32


def draw_sign(
    mean: Float[Array, " d"], word: UInt32[Array, " d"], undecided: Float[Array, " d"]
) -> Float[Array, " d"]:
    """Return +1 with probability (1 + mean)/2, else -1; `undecided` where the mean is NaN.

    The word is compared as a signed integer, which float32 represents most finely around 0. So
    probabilities near 1/2, where a small gradient differs from a zero one, are resolved to 2⁻³²,
    and 1/2 itself is exact.
    """
    # A little more than 2³¹, so that means of ±1 are certain although converting the word rounds.
    threshold = mean * (2.0**31 * (1 + 2.0**-22))
    signed = lax.bitcast_convert_type(word, jnp.int32).astype(mean.dtype)
    # Neither comparison holds for NaN. A test for NaN on its own is one that XLA for GPUs makes in
    # a kernel of its own, which reads all gradients once more.
    below, above = signed < threshold, signed >= threshold
    return jnp.where(below, 1, jnp.where(above, -1, undecided)).astype(undecided.dtype)
