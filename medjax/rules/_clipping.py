"""Centred clipping: the mean of the differences from a centre, each clipped."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from medjax._engine import checks
from medjax._engine.lazy import as_lazy
from medjax._engine.random import MaybeKey, Seed
from medjax._engine.stacked import Stacked, Updates
from medjax._engine.vectors import Vectors
from medjax.rules._geometric import Geometric
from medjax.rules._geometric_median import distances_to, zero_about_pivot
from medjax.rules._rule import StatefulRule, zero_state
from medjax._engine.settings import Real, settings_text


@dataclass(frozen=True, eq=False)
class Shifted:
    """A rule of how far the vectors are from a start, to which the result is added.

    Attributes:
        rule: the rule, which draws nothing.
        start: one vector, in the shapes of the aggregate.
    """

    rule: Geometric
    start: Updates

    @property
    def name(self) -> str:
        """The rule's."""
        return f"{self.rule.name.removesuffix(')')}, start)"

    @property
    def needs_key(self) -> bool:
        """Nothing is drawn."""
        return False

    def __call__(self, updates: Stacked, key: Seed | None = None) -> Updates:
        """The aggregate of the stacked updates.

        Raises:
            ValueError, TypeError: as the rule, or if the start isn't of the aggregate's shapes.
        """
        del key
        lazy = as_lazy(updates)
        shapes = [jax.tree.map(jnp.shape, x) for x in (self.start, lazy.like)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"start must be of shape {shapes[1]}, got {shapes[0]}")
        moved = _moved(self.rule, self.start, updates)
        return jax.tree.map(lambda x, like: x.astype(like.dtype), moved, lazy.like)


def _moved(rule: Geometric, start: Updates, updates: Stacked) -> Updates:
    """From v on the x_i is as from 0 on the x_i - v."""
    moved = rule(jax.tree.map(jnp.subtract, updates, start))
    return jax.tree.map(jnp.add, start, moved)


def centered_clipping(
    tau: Real, num_steps: int = 1, start: Updates | Literal[0] = 0
) -> Geometric | Shifted:
    """Centred clipping from v = 0: v ← v + mean_i (x_i - v) · min(1, τ/‖x_i - v‖).

    By Karimireddy et al. (2021), "Learning from history for Byzantine robust optimization". A
    vector with NaN or ±∞ has no direction: its clipped difference counts as 0.

    Args:
        tau: τ > 0, the length that differences are clipped to; may be traced.
        num_steps: how often v is moved.
        start: where v is at first: 0, or a vector, in the shapes of the aggregate; may be traced.
            `centered_clipping_from_last` has it from step to step.

    Raises:
        TypeError: if τ isn't a real number, or `num_steps` not a static integer.
        ValueError: if τ isn't positive and finite, or `num_steps` below 1; when called, if the
            start is of other shapes than the aggregate.

    >>> x = jnp.array([[1.0], [2.0], [300.0]])
    >>> print(centered_clipping(tau=3.0)(x), centered_clipping(3.0, start=jnp.array([3.0]))(x))
    [2.] [3.]
    """
    from_0 = _from_0(tau, num_steps)
    return from_0 if isinstance(start, int) and start == 0 else Shifted(from_0, start)


def _from_0(tau: Real, num_steps: int) -> Geometric:
    checks.real("tau", tau, minimum=0.0, exclusive=True)
    steps = checks.integer("num_steps", num_steps, minimum=1)

    def weights(vectors: Vectors, key: MaybeKey) -> Array:
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

    return Geometric(f"centered_clipping({settings_text(tau=tau, num_steps=steps)})", weights)


class CenteredClippingFromLastState(NamedTuple):
    """The last aggregate, in float32 at least."""

    last: Updates


def centered_clipping_from_last(tau: Real, num_steps: int = 1) -> StatefulRule:
    """Centred clipping that starts at its last aggregate, and at first at 0.

        v ← v + mean_i (x_i - v) · min(1, τ/‖x_i - v‖).

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
    from_0 = _from_0(tau, num_steps)

    def init(params: Updates) -> CenteredClippingFromLastState:
        return CenteredClippingFromLastState(zero_state(params))

    def update(
        updates: Stacked, state: CenteredClippingFromLastState, params: Updates | None
    ) -> tuple[Updates, CenteredClippingFromLastState]:
        del params
        moved = _moved(from_0, state.last, updates)
        last = jax.tree.map(lambda v, x: x.astype(v.dtype), state.last, moved)
        out = jax.tree.map(lambda v, x: v.astype(x.dtype), last, updates)
        return out, CenteredClippingFromLastState(last)

    name = from_0.name.replace("centered_clipping", "centered_clipping_from_last")
    return StatefulRule(name, init, update)
