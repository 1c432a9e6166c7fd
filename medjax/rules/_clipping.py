"""Centred clipping: the mean of the differences from a centre, each clipped."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from medjax import _checks
from medjax._stacked import Stacked, Updates
from medjax._vectors import Vectors
from medjax.rules._geometric import Draw, Geometric
from medjax.rules._geometric_median import distances_to, zero_about_pivot
from medjax.rules._rule import StatefulRule, zero_state
from medjax.rules._settings import Real, settings_text


def centered_clipping(tau: Real, num_steps: int = 1) -> Geometric:
    """Centred clipping from v = 0: v ← v + mean_i (x_i - v) · min(1, τ/‖x_i - v‖).

    By Karimireddy et al. (2021), "Learning from history for Byzantine robust optimization". A
    vector with NaN or ±∞ has no direction: its clipped difference counts as 0.

    Args:
        tau: τ > 0, the length that differences are clipped to; may be traced.
        num_steps: how often v is moved.

    Raises:
        TypeError: if τ isn't a real number, or `num_steps` not a static integer.
        ValueError: if τ isn't positive and finite, or `num_steps` below 1.

    >>> print(centered_clipping(tau=3.0)(jnp.array([[1.0], [2.0], [300.0]])))
    [2.]
    """
    steps, text = _check(tau, num_steps)

    def weights(vectors: Vectors, key: Draw) -> Array:
        del key
        gram, known, radius = vectors.gram, vectors.within_range, tau * vectors.unit

        def move(c: Array, distances: Array, radius: Array) -> Array:
            factors = jnp.where(distances > radius, radius / distances, 1).astype(c.dtype)
            return (1 - factors.mean()) * c + jnp.append(factors / len(factors), 0)

        def step(_: Array, c: Array) -> Array:
            return move(c, distances_to(c, gram, known), radius)

        # From 0 it takes the norms themselves: a short vector's is lost in those about a pivot.
        norms = jnp.where(known, vectors.norms, jnp.inf)
        first = move(zero_about_pivot(gram), norms, jnp.asarray(tau))
        return lax.fori_loop(1, steps, step, first)[:-1]

    return Geometric(f"centered_clipping({text})", weights)


class CenteredClippingFromLastState(NamedTuple):
    """The last aggregate, in float32 at least."""

    last: Updates


def centered_clipping_from_last(tau: Real, num_steps: int = 1) -> StatefulRule:
    """Centred clipping that starts at its last aggregate, and at first at 0.

    As Karimireddy et al. (2021) use it. For the settings, what is raised, and what vectors with NaN
    or ±∞ do, see `centered_clipping`.

    >>> rule = centered_clipping_from_last(tau=1.0)
    >>> x, state = jnp.array([[2.0], [2.0]]), rule.init(jnp.zeros(1))
    >>> for _ in range(3):
    ...     out, state = rule.update(x, state, None)
    ...     print(out)
    [1.]
    [2.]
    [2.]
    """
    clipped_mean = centered_clipping(tau, num_steps)

    def init(params: Updates) -> CenteredClippingFromLastState:
        return CenteredClippingFromLastState(zero_state(params))

    def update(
        updates: Stacked, state: CenteredClippingFromLastState, params: Updates | None
    ) -> tuple[Updates, CenteredClippingFromLastState]:
        del params
        # From v on the x_i is as from 0 on the x_i - v.
        moved = clipped_mean(jax.tree.map(jnp.subtract, updates, state.last))
        last = jax.tree.map(lambda v, d: v + d.astype(v.dtype), state.last, moved)
        out = jax.tree.map(lambda v, x: v.astype(x.dtype), last, updates)
        return out, CenteredClippingFromLastState(last)

    return StatefulRule(f"centered_clipping_from_last({_check(tau, num_steps)[1]})", init, update)


def _check(tau: Real, num_steps: int) -> tuple[int, str]:
    _checks.real("tau", tau, minimum=0.0, exclusive=True)
    steps = _checks.integer("num_steps", num_steps, minimum=1)
    return steps, settings_text(tau=tau, num_steps=steps)
