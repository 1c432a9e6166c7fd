"""The geometric median: the point with the smallest sum of distances to the vectors."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from medjax._engine import checks
from medjax._engine.gram import dot
from medjax._engine.random import MaybeKey
from medjax._engine.settings import Real, settings_text
from medjax._engine.vectors import Vectors
from medjax.rules._geometric import Geometric


def geometric_median(nu: Real = 0.1, num_steps: int = 3, tol: Real | None = None) -> Geometric:
    """The geometric median, by the smoothed Weiszfeld algorithm (Pillutla et al., 2022: RFA).

        z ← Σ_i β_i x_i / Σ_i β_i, β_i = 1/max(ν, ‖x_i - z‖), from z = 0.

    This step is taken `num_steps` times. A vector with NaN or ±∞ is infinitely far, so its β is 0;
    so is one whose square overflows (from a length of 10^16 to 10^18 on in float32, by n), where
    most vectors' don't.

    Args:
        nu: ν > 0, the distance below which vectors count as equally near; may be traced.
        num_steps: the number of times z is moved.
        tol: stop once a step moves z by no more than tol · max(1, ‖z‖); may be traced. None takes
            all steps.

    Raises:
        TypeError: if `nu` or `tol` isn't a real number, or `num_steps` isn't a static integer.
        ValueError: if ν isn't positive, `num_steps` is below 1, or `tol` is negative.

    >>> x = jnp.array([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0], [1000.0, 1000.0]])
    >>> print(geometric_median(num_steps=100)(x).round(1))
    [1.7 1.7]
    """
    checks.real("nu", nu, minimum=0.0, exclusive=True)
    steps = checks.integer("num_steps", num_steps, minimum=1)
    if tol is not None:
        checks.real("tol", tol, minimum=0.0)
    name = f"geometric_median({settings_text(nu=nu, num_steps=steps, tol=tol)})"

    def weights(vectors: Vectors, key: MaybeKey) -> Array:
        del key

        gram, known, unit = vectors.gram, vectors.within_range, vectors.unit

        def shares(distances: Array, radius: Array) -> Array:
            radii = jnp.maximum(radius, distances)
            inverses = radii.min() / radii  # 1 / radii might underflow
            return jnp.append(inverses / inverses.sum(), 0).astype(gram.dtype)

        def step(c: Array) -> Array:
            return shares(distances_to(c, gram, known), nu * unit)

        def is_unfinished(state: tuple[Array, Array, Array]) -> Array:
            count, before, c = state
            if tol is None:
                return count < steps
            moved, length = (_length(x, gram) for x in (c - before, c.at[-1].add(1)))
            return (count < steps) & (moved > tol * jnp.maximum(unit, length))

        # The first step, from 0, uses the norms directly: if they were computed about the pivot,
        # a short vector's norm would be lost to rounding.
        norms = jnp.where(known, vectors.norms, jnp.inf)
        start = (jnp.int32(1), zero_about_pivot(gram), shares(norms, jnp.asarray(nu)))
        return lax.while_loop(is_unfinished, lambda s: (s[0] + 1, s[2], step(s[2])), start)[2][:-1]

    return Geometric(name, weights)


def zero_about_pivot(gram: Float[Array, "m m"]) -> Float[Array, " m"]:
    """Return the point 0 = p - p as coefficients for `distances_to`."""
    return jnp.zeros(len(gram), gram.dtype).at[-1].set(-1)


def distances_to(
    point: Float[Array, " m"], gram: Float[Array, "m m"], within_range: Bool[Array, " n"]
) -> Float[Array, " n"]:
    """Return ‖x_i - z‖ in the unit of `Vectors`, infinite for vectors out of range.

    Args:
        point: the coefficients c of z = p + Σ_j c_j (x_j - p) + c_{n+1} p, for the pivot p.
        gram: `Vectors.gram`.
        within_range: `Vectors.within_range`.
    """
    along = dot(gram, point)
    squares = jnp.diagonal(gram) - 2 * along + dot(point, along)
    return jnp.where(within_range, jnp.sqrt(jnp.maximum(squares, 0))[:-1], jnp.inf)


def _length(point: Float[Array, " m"], gram: Float[Array, "m m"]) -> Float[Array, ""]:
    """Return ‖Σ_j c_j (x_j - p) + c_{n+1} p‖."""
    return jnp.sqrt(jnp.maximum(dot(point, dot(gram, point)), 0))
