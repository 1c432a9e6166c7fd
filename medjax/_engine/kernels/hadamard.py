"""Fast Walsh-Hadamard transform."""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# The Hadamard matrix of size 2ᵐ is the Kronecker product of smaller ones. A product with one of
# size 2⁴ takes the place of four passes of sums and differences, each of which would move the whole
# vector. On two CPU cores (JAX 0.10.2, d = 2¹⁷) sizes 2³ to 2⁶ take about the same time, and single
# passes more than four times as long. A GPU's arithmetic is cheaper beside its memory.
_MAX_EXPONENT = 4
_MAX_EXPONENT_ON_ACCELERATOR = 7


def hadamard(x: Float[Array, " d"]) -> Float[Array, " d"]:
    """Return H x/√d for the Hadamard matrix H_ij = (-1)^popcount(i & j).

    The transform is its own inverse. It takes O(d log d) operations; d must be a power of two.
    """
    return lax.platform_dependent(
        x,
        cpu=partial(_transform, max_exponent=_MAX_EXPONENT),
        default=partial(_transform, max_exponent=_MAX_EXPONENT_ON_ACCELERATOR),
    )


def _transform(x: Float[Array, " d"], *, max_exponent: int) -> Float[Array, " d"]:
    exponent = x.size.bit_length() - 1
    while exponent > 0:
        # Each product transforms the last axis and makes it the first, so that after all of them
        # every axis is back in its place.
        matrix = jnp.asarray(_matrix(min(exponent, max_exponent)), x.dtype)
        columns = x.reshape(-1, len(matrix)).T
        # Full precision, because accelerators round float32 factors to fewer bits by default.
        x = jnp.dot(matrix, columns, precision=lax.Precision.HIGHEST).reshape(-1)
        exponent -= max_exponent
    return x


def _matrix(exponent: int) -> np.ndarray:
    """Return the Hadamard matrix of size 2^exponent, divided by the root of its size."""
    matrix = np.ones((1, 1))
    for _ in range(exponent):
        matrix = np.kron(matrix, np.array([[1, 1], [1, -1]]) / np.sqrt(2))
    return matrix
