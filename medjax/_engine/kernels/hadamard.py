"""The fast Walsh-Hadamard transform."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# The matrix of 2ᵐ is the Kronecker product of smaller ones. A product with one of 16 takes the
# place of four passes of sums and differences, each of which would move the whole vector.
_LARGEST = 4


def hadamard(x: Float[Array, " d"]) -> Float[Array, " d"]:
    """H x/√d for the Hadamard matrix H_ij = (-1)^popcount(i & j); it is its own inverse.

    O(d log d) for d a power of two.
    """
    exponent = x.size.bit_length() - 1
    while exponent > 0:
        # Along the last axis, which then becomes the first: after all of them, each is in place.
        matrix = jnp.asarray(_matrix(min(exponent, _LARGEST)), x.dtype)
        columns = x.reshape(-1, len(matrix)).T
        x = jnp.dot(matrix, columns, precision=lax.Precision.HIGHEST).reshape(-1)
        exponent -= _LARGEST
    return x


def _matrix(exponent: int) -> np.ndarray:
    matrix = np.ones((1, 1))
    for _ in range(exponent):
        matrix = np.kron(matrix, np.array([[1, 1], [1, -1]]) / np.sqrt(2))
    return matrix
