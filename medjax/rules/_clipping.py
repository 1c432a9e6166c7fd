"""Centred clipping: move a centre by the mean of the clipped differences from it."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from medjax._engine import checks
from medjax._engine.lazy import as_lazy
from medjax._engine.precision import common_dtype
from medjax._engine.random import MaybeKey, Seed
from medjax._engine.settings import Real, settings_text
from medjax._engine.stacked import Stacked, Updates
from medjax._engine.vectors import Vectors
from medjax.rules._geometric import Geometric
from medjax.rules._geometric_median import distances_to, zero_about_pivot
from medjax.rules._rule import StatefulRule, zero_state


# Compared by identity: == of the arrays in `start` isn't one bool.
@dataclass(frozen=True, eq=False)
class Shifted:
    """A rule applied to the vectors' differences from a start, which is added to its result.

    Attributes:
        rule: a rule that draws no random numbers.
        start: one vector, in the shapes of the aggregate.
    """

    rule: Geometric
    start: Updates

    @property
    def name(self) -> str:
        """The name of the rule with its settings."""
        return f"{self.rule.name.removesuffix(')')}, start)"

    @property
    def needs_key(self) -> bool:
        """False: nothing is drawn."""
        return False

    def __call__(self, updates: Stacked, key: Seed | None = None) -> Updates:
        """Aggregate the stacked updates; `key` isn't used.

        Raises:
            ValueError, TypeError: as `rule` does, or if the start's shapes aren't the aggregate's.
        """
        del key
        lazy = as_lazy(updates)
        shapes = [jax.tree.map(jnp.shape, x) for x in (self.start, lazy.like)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"start must be of shape {shapes[1]}, got {shapes[0]}")
        moved = _apply_from(self.start, self.rule, updates)
        return jax.tree.map(lambda x, like: x.astype(like.dtype), moved, lazy.like)


def _apply_from(start: Updates, rule: Geometric, updates: Stacked) -> Updates:
    """Return start + rule(updates - start)."""

    def difference(x: Array, origin: Array) -> Array:
        dtype = common_dtype(x, origin)
        return jnp.asarray(x, dtype) - jnp.asarray(origin, dtype)[None]

    moved = rule(jax.tree.map(difference, updates, start))
    return jax.tree.map(lambda origin, x: jnp.asarray(origin, x.dtype) + x, start, moved)


def centered_clipping(
    tau: Real, num_steps: int = 1, start: Updates | Literal[0] = 0
) -> Geometric | Shifted:
    """Centred clipping from v = 0: v ← v + mean_i (x_i - v) · min(1, τ/‖x_i - v‖).

    The rule is from Karimireddy et al. (2021), "Learning from history for Byzantine robust
    optimization". A vector with NaN or ±∞ has no direction, so its clipped difference
    counts as 0; so does that of one whose square overflows (from a length of 10^16 to 10^18 on in
    float32, by n), where most vectors' don't.

    Args:
        tau: τ > 0, the length that differences are clipped to; may be traced.
        num_steps: the number of times v is moved.
        start: the initial v: 0, or a vector in the shapes of the aggregate; may be traced. To carry
            v from step to step, use `centered_clipping_from_last`.

    Raises:
        TypeError: if τ isn't a real number, or `num_steps` isn't a static integer.
        ValueError: if τ isn't positive and finite, or `num_steps` is below 1; when called, if the
            start's shapes aren't the aggregate's.

    >>> x = jnp.array([[1.0], [2.0], [300.0]])
    >>> print(centered_clipping(tau=3.0)(x), centered_clipping(3.0, start=jnp.array([3.0]))(x))
    [2.] [3.]
    """
    from_zero = _from_zero(tau, num_steps)
    return from_zero if isinstance(start, int) and start == 0 else Shifted(from_zero, start)


def _from_zero(tau: Real, num_steps: int) -> Geometric:
    """Build the rule that starts at v = 0."""
    checks.real("tau", tau, minimum=0.0, exclusive=True)
    steps = checks.integer("num_steps", num_steps, minimum=1)

    def weights(vectors: Vectors, key: MaybeKey) -> Array:
        del key
        gram, known, radius = vectors.gram, vectors.within_range, tau * vectors.unit

        def move(c: Array, distances: Array, radius: Array) -> Array:
            # v + mean_i f_i (x_i - v) = (1 - mean_i f_i) v + Σ_i (f_i/n) x_i
            factors = jnp.where(distances > radius, radius / distances, 1).astype(c.dtype)
            return (1 - factors.mean()) * c + jnp.append(factors / len(factors), 0)

        def step(_: Array, c: Array) -> Array:
            return move(c, distances_to(c, gram, known), radius)

        # The first step, from 0, uses the norms directly: if they were computed about the pivot,
        # a short vector's norm would be lost to rounding.
        norms = jnp.where(known, vectors.norms, jnp.inf)
        first = move(zero_about_pivot(gram), norms, jnp.asarray(tau))
        return lax.fori_loop(1, steps, step, first)[:-1]

    return Geometric(f"centered_clipping({settings_text(tau=tau, num_steps=steps)})", weights)


class CenteredClippingFromLastState(NamedTuple):
    """The last aggregate, in float32 at least."""

    last: Updates


def centered_clipping_from_last(tau: Real, num_steps: int = 1) -> StatefulRule:
    """Centred clipping from the last aggregate v, which is 0 at first.

        v ← v + mean_i (x_i - v) · min(1, τ/‖x_i - v‖).

    Karimireddy et al. (2021) use it this way. See `centered_clipping` for the settings, the errors
    and the effect of NaN and ±∞.

    >>> rule = centered_clipping_from_last(tau=1.0)
    >>> x, state = jnp.array([[2.0], [2.0]]), rule.init(jnp.zeros(1))
    >>> for _ in range(3):
    ...     out, state = rule.update(x, state, None)
    ...     print(out)
    [1.]
    [2.]
    [2.]
    """
    from_zero = _from_zero(tau, num_steps)

    def init(params: Updates) -> CenteredClippingFromLastState:
        return CenteredClippingFromLastState(zero_state(params))

    def update(
        updates: Stacked, state: CenteredClippingFromLastState, params: Updates | None
    ) -> tuple[Updates, CenteredClippingFromLastState]:
        del params
        moved = _apply_from(state.last, from_zero, updates)
        last = jax.tree.map(lambda v, x: x.astype(v.dtype), state.last, moved)
        out = jax.tree.map(lambda v, x: v.astype(x.dtype), last, updates)
        return out, CenteredClippingFromLastState(last)

    name = from_zero.name.replace("centered_clipping", "centered_clipping_from_last")
    return StatefulRule(name, init, update)
