"""Bulyan: a coordinate-wise rule of the vectors that Krum's scores select."""

import jax.numpy as jnp
from jaxtyping import Array

from medjax import _checks
from medjax._kernels import order_statistics
from medjax._kernels.nearest import mean_nearest
from medjax._vectors import Vectors
from medjax.mixing import Draw, Mixing
from medjax.rules._coordinatewise import CoordinateWise
from medjax.rules._krum import lowest_scores
from medjax.rules._premixed import Premixed


class Bulyan(Premixed):
    """A selection and a coordinate-wise rule after it, under one name."""

    @property
    def name(self) -> str:
        """The name of the selection."""
        return self.mixings[0].name


def bulyan(num_byzantine: int) -> Premixed:
    """Bulyan: select n - 2f vectors, then per coordinate average the n - 4f nearest their median.

        (1/(n - 4f)) Σ_{i ∈ T} x_i, T the n - 4f of S nearest median_{j ∈ S} x_j.

    Those with the lowest scores of `krum` are selected, all by the same scores (that of
    El Mhamdi et al., 2018, computes them anew after each one). A vector with NaN or ±∞ is
    infinitely far from all, so that none is selected while at most f are non-finite.

    Args:
        num_byzantine: f, with n >= 4f + 3.

    Raises:
        TypeError: if f isn't a static integer.
        ValueError: if f is negative, or, when traced, if n < 4f + 3.

    >>> x = jnp.array([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [99.0]])
    >>> print(bulyan(1)(x))
    [3.]
    """
    f = _checks.integer("num_byzantine", num_byzantine, minimum=0)
    name = f"bulyan(num_byzantine={f})"

    def select(vectors: Vectors, key: Draw) -> Array:
        del key
        n = vectors.num_workers
        if n < 4 * f + 3:
            raise ValueError(f"{name} needs n >= 4f + 3, got f = {f} and n = {n} workers")
        chosen = lowest_scores(name, vectors, f, None, n - 2 * f)
        return (jnp.arange(n) == chosen[:, None]).astype(vectors.dtype)

    def reduce(x: Array) -> Array:
        return mean_nearest(x, order_statistics.median(x), len(x) - 2 * f)

    return Bulyan(CoordinateWise(name, reduce), (Mixing(name, select),))
