"""The geometric median: the point with the smallest sum of distances to the vectors."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from medjax import _checks
from medjax._vectors import Vectors, dot
from medjax.rules._geometric import Draw, Geometric
from medjax.rules._settings import Real, settings_text


def geometric_median(nu: Real = 0.1, num_steps: int = 3, tol: Real | None = None) -> Geometric:
    """The geometric median, by the smoothed Weiszfeld algorithm (Pillutla et al., 2022: RFA).

        z ← Σ_i β_i x_i / Σ_i β_i, β_i = 1/max(ν, ‖x_i - z‖), from z = 0.

    That is `num_steps` times. A vector with NaN or ±∞ is infinitely far: its β is 0.

    Args:
        nu: ν > 0, the distance below which vectors count as equally near; may be traced.
        num_steps: how often z is moved.
        tol: stop when z has moved by no more than tol · max(1, ‖z‖); may be traced. None for not
            before the last step.

    Raises:
        TypeError: if `nu` or `tol` isn't a real number, or `num_steps` not a static integer.
        ValueError: if ν isn't positive, `num_steps` below 1, or `tol` negative.

    >>> x = jnp.array([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0], [1000.0, 1000.0]])
    >>> print(geometric_median(num_steps=100)(x).round(1))
    [1.7 1.7]
    """
    _checks.real("nu", nu, minimum=0.0, exclusive=True)
    steps = _checks.integer("num_steps", num_steps, minimum=1)
    if tol is not None:
        _checks.real("tol", tol, minimum=0.0)
    name = f"geometric_median({settings_text(nu=nu, num_steps=steps, tol=tol)})"

    def weights(vectors: Vectors, key: Draw) -> Array:
        del key

        gram, norms = vectors.gram, vectors.squared_norms

        def step(w: Array) -> Array:
            shares = 1 / jnp.maximum(nu, distances_to(w, gram, norms))
            return shares / shares.sum()

        def goes_on(state: tuple[Array, Array, Array]) -> Array:
            count, before, w = state
            if tol is None:
                return count < steps
            moved, length = (jnp.sqrt(_squared_norm(x, gram)) for x in (w - before, w))
            return (count < steps) & (moved > tol * jnp.maximum(1, length))

        zeros = jnp.zeros_like(norms)
        start = (jnp.int32(1), zeros, step(zeros))
        return lax.while_loop(goes_on, lambda s: (s[0] + 1, s[2], step(s[2])), start)[2]

    return Geometric(name, weights)


def distances_to(
    weights: Float[Array, " n"], gram: Float[Array, "n n"], squared_norms: Float[Array, " n"]
) -> Float[Array, " n"]:
    """‖x_i - z‖ for z = Σ_j w_j x_j, from what `Vectors` gives; infinite where x_i isn't finite."""
    squares = squared_norms - 2 * dot(gram, weights) + _squared_norm(weights, gram)
    return jnp.sqrt(jnp.maximum(squares, 0))


def _squared_norm(weights: Float[Array, " n"], gram: Float[Array, "n n"]) -> Float[Array, ""]:
    return jnp.maximum(dot(weights, dot(gram, weights)), 0)
