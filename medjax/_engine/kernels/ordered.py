"""Integers in the order of the floats, so that comparisons are exact and NaN has a place."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int


def to_ordered_integers(x: Float[Array, "..."]) -> Int[Array, "..."]:
    """Return signed integers in the order of the floats: -∞ < ... < -0 < +0 < ... < +∞ = NaN."""
    integer = jnp.int64 if x.dtype == jnp.float64 else jnp.int32
    # x != x rather than `jnp.isnan`, which a Pallas kernel can't lower.
    bits = lax.bitcast_convert_type(jnp.where(x != x, jnp.inf, x), integer)
    # The bits of negative floats are ordered by magnitude: all but the sign bit are flipped.
    return jnp.where(bits < 0, bits ^ jnp.iinfo(integer).max, bits)


def from_ordered_integers(bits: Int[Array, "..."], dtype: jnp.dtype) -> Float[Array, "..."]:
    """Invert `to_ordered_integers`."""
    return lax.bitcast_convert_type(
        jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits), dtype
    )


def clip(x: Float[Array, " d"], low: Float[Array, " d"], high: Float[Array, " d"]) -> Array:
    """Move a mean of numbers from low to high back into that range, if rounding pushed it out.

    The comparison is one of integers, because XLA's float arithmetic and comparisons on the CPU
    treat subnormal numbers as 0.
    """
    bounds = to_ordered_integers(low), to_ordered_integers(high)
    return from_ordered_integers(jnp.clip(to_ordered_integers(x), *bounds), x.dtype)
