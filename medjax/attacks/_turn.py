"""An attack of vectors of honest length, turned from the mean as far as a known rule lets them."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from medjax._engine import checks
from medjax._engine.gram import dot
from medjax._engine.kernels.sums import Row
from medjax._engine.lazy import as_lazy
from medjax._engine.random import MaybeKey
from medjax._engine.vectors import vectors_of
from medjax.attacks._attack import Attack, Byzantine, Honest, Place
from medjax.attacks._optimal import search_largest
from medjax.attacks._statistics import mean, mean_and_std
from medjax.rules import Rule
from medjax.rules._rule import as_rule_without_memory
from medjax.rules._selection import middle

Towards: TypeAlias = Literal["spread", "std", "sign"]


def optimal_turn(
    rule: Rule, towards: Towards = "spread", num_points: int = 16, num_rounds: int = 2
) -> Attack:
    """The mean turned by the angle that does most harm to the rule, at the median honest length.

        M (cos θ · μ/‖μ‖ + sin θ · p), M = median_i ‖x_i‖, with the θ that makes ⟨rule, μ⟩ least.

    It is made against rules that clip lengths and look at directions, as
    `rules.clipped_clustering` (Li et al., 2023) does: a vector that is turned too far is left out
    and does no harm, so that the best θ is about the largest that the rule accepts. The attack is
    our own; a search against a known rule is the idea of Shejwalkar & Houmansadr (2021).

    Of the angles in (-π, π] the first round tries `num_points`, equally far apart, and the next as
    many between the neighbours of the best one, as `optimal_ipm` does. A result of NaN counts as
    the worst. Ties go to the earlier round and, within it, to the least θ. If μ = 0, or p is,
    as nothing varies, its term is 0.

    Args:
        rule: the rule under attack, as in `optimal_ipm`.
        towards: p, orthogonal to μ and of length 1: the part of this that is so. "spread" is the
            direction in which the honest vectors vary most, in which a vector is hidden best,
            "std" their coordinate-wise sample standard deviation, "sign" the signs of μ.
        num_points: k, the number of angles per round, at least 3.
        num_rounds: the number of rounds; each spaces the angles k/2 times more closely.

    Raises:
        TypeError: if `rule` isn't a rule without memory, or a number isn't a static integer.
        ValueError: if a setting is out of range, or, when traced, if the rule can't take so many
            workers, or there is only one honest worker for "std".
    """
    rule = as_rule_without_memory(rule)
    checks.option("towards", towards, ("spread", "std", "sign"))
    points = checks.integer("num_points", num_points, minimum=3)
    rounds = checks.integer("num_rounds", num_rounds, minimum=1)
    name = f"optimal_turn({rule.name}, towards={towards})"

    def forge(honest: Honest, byzantine: Byzantine, key: MaybeKey) -> Callable[[Place], Row]:
        del byzantine
        center, side = _plane(name, towards, honest)
        length = middle(vectors_of(as_lazy(honest)).norms)

        def vector_at(angle: Array) -> Row:
            along, across = length * jnp.cos(angle), length * jnp.sin(angle)
            return [
                (along * m + across * p).astype(m.dtype) for m, p in zip(center, side, strict=True)
            ]

        def search(place: Place) -> Row:
            def harm(angle: Float[Array, ""]) -> Float[Array, ""]:
                # The barrier is that of `optimal_ipm`.
                found = rule(lax.optimization_barrier(place(vector_at(angle))), key)
                product = sum(jnp.sum(a * m) for a, m in zip(found, center, strict=True))
                return -jnp.where(jnp.isnan(product), -jnp.inf, product).astype(jnp.float32)

            return vector_at(search_largest(harm, -np.pi, np.pi, points, rounds))

        return search

    return Attack(name, forge, rule.needs_key, reads_own=False)


def _plane(name: str, towards: Towards, honest: Honest) -> tuple[Row, Row]:
    """Return μ/‖μ‖ and p."""
    if towards == "std":
        center, direction = mean_and_std(name, honest)
    else:
        center = mean(honest)
        direction = [jnp.sign(m) for m in center]
    if towards == "spread":
        deviations = [x - m[None] for x, m in zip(honest, center, strict=True)]
        gram = jnp.asarray(sum(dot(x, x.T) for x in deviations))
        # The eigenvector of the Gram matrix has the weights of the deviations.
        weights = jnp.linalg.eigh(gram)[1][:, -1]
        # Either sense is as good, but ties between angles depend on it: take the longer tail's.
        weights *= jnp.where(jnp.sum(weights**3) < 0, -1, 1).astype(weights.dtype)
        direction = [dot(weights.astype(x.dtype), x) for x in deviations]
    center = _unit(center)
    along = jnp.asarray(sum(dot(p, m) for p, m in zip(direction, center, strict=True)))
    return center, _unit([p - along * m for p, m in zip(direction, center, strict=True)])


def _unit(row: Row) -> Row:
    """Scale to length 1; a zero vector stays one."""
    norm = jnp.sqrt(jnp.asarray(sum(dot(x, x) for x in row)))
    return [x / jnp.where(norm == 0, 1, norm).astype(x.dtype) for x in row]
