"""Attacks that search a line for the vector that does most harm to a known rule."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from medjax._engine import checks
from medjax._engine.kernels.sums import Row
from medjax._engine.random import MaybeKey
from medjax._engine.settings import Real
from medjax.attacks._attack import Attack, Byzantine, Honest, Place
from medjax.attacks._shifts import Line, along_mean, along_std
from medjax.rules import Rule
from medjax.rules._rule import as_rule_without_memory


def optimal_ipm(
    rule: Rule, max_tau: Real = 10.0, num_points: int = 8, num_rounds: int = 3
) -> Attack:
    """-τμ with the τ that moves the rule under attack farthest from μ.

    The vector is that of `ipm` (Xie et al., 2020). Searching for τ against a known rule is the idea
    of Shejwalkar & Houmansadr (2021).

    The search maximises ‖rule(x_1, ..., x_h, -τμ, ..., -τμ) - μ‖, where the rule gets the vectors
    in the order of the workers, whichever of them are Byzantine. The first round tries `num_points`
    values of τ in geometric progression from above max_tau/100 to max_tau, the next round as many
    between the neighbours of the best one so far, and so on. Each value costs one aggregation. The
    best of all is taken; ties go to the earlier round and, within it, to the lowest τ. A distance
    of NaN counts as ∞. The distance may have several peaks and jumps: more points find more of
    them.

    Args:
        rule: the rule under attack, from `medjax.rules`, or `mixing.premixed(...)` if vectors are
            mixed before it. A rule that draws gets one key for all τ, which isn't the server's. A
            `StatefulRule` is rejected, because its output depends on earlier steps.
        max_tau: the end of the search, positive; may be traced.
        num_points: k, the number of τ per round, at least 3. The first round tries
            max_tau · 100^(i/k-1) for i = 1, ..., k.
        num_rounds: the number of rounds; each spaces the τ k/2 times more closely.

    Raises:
        TypeError: if `rule` isn't a rule without memory, `max_tau` isn't a real number, or another
            setting isn't a static integer.
        ValueError: if a setting is out of range, or, when traced, if the rule can't take so many
            workers.
    """
    return _optimal_along("optimal_ipm", along_mean, rule, max_tau, num_points, num_rounds)


def optimal_alie(
    rule: Rule, max_tau: Real = 10.0, num_points: int = 8, num_rounds: int = 3
) -> Attack:
    """μ + τσ with the τ that moves the rule under attack farthest from μ.

    The vector is that of `alie` (Baruch et al., 2019) with τ > 0, and the idea of the search is
    that of Shejwalkar & Houmansadr (2021). The search, its settings and its errors are those of
    `optimal_ipm`. At least two honest workers are needed.
    """
    return _optimal_along("optimal_alie", along_std, rule, max_tau, num_points, num_rounds)


def _optimal_along(
    kind: str,
    line: Callable[[str, Honest], Line],
    rule: Rule,
    max_tau: Real,
    num_points: int,
    num_rounds: int,
) -> Attack:
    rule = as_rule_without_memory(rule)
    checks.real("max_tau", max_tau, minimum=0.0, exclusive=True)
    points = checks.integer("num_points", num_points, minimum=3)
    rounds = checks.integer("num_rounds", num_rounds, minimum=1)
    name = f"{kind}({rule.name})"

    def forge(honest: Honest, byzantine: Byzantine, key: MaybeKey) -> Callable[[Place], Row]:
        del byzantine
        center, vector_at = line(name, honest)

        def search(place: Place) -> Row:
            def squared_distance(tau: Float[Array, ""]) -> Float[Array, ""]:
                # The barrier keeps XLA from fusing the forged vectors into the rule: fused into a
                # sorting network, they take minutes to compile.
                moved = rule(lax.optimization_barrier(place(vector_at(tau))), key)
                square = sum(jnp.sum((a - m) ** 2) for a, m in zip(moved, center, strict=True))
                return jnp.where(jnp.isnan(square), jnp.inf, square).astype(jnp.float32)

            # log10(τ/max_tau) is searched; the first round covers (-2, 0].
            exponent = search_largest(
                lambda exponent: squared_distance(max_tau * 10**exponent), -2.0, 0.0, points, rounds
            )
            return vector_at(max_tau * 10**exponent)

        return search

    return Attack(name, forge, rule.needs_key, reads_own=False)


def search_largest(
    score: Callable[[Array], Array], low: float, high: float, points: int, rounds: int
) -> Float[Array, ""]:
    """Return the number of (low, high] with the largest score, by the search of `optimal_ipm`."""
    offsets = jnp.asarray(np.linspace(-1, 1, points + 1)[1:], jnp.float32)

    def search(carry: tuple[Array, Array, Array], _: None) -> tuple[Any, None]:
        best, half_width, largest = carry
        tried = jnp.minimum(best + half_width * offsets, high)
        # A loop, not `vmap`, so that only one number's stacked vectors are in memory at a time.
        scores = lax.map(score, tried)
        i = jnp.argmax(scores)
        better = scores[i] > largest
        best = jnp.where(better, tried[i], best)
        largest = jnp.where(better, scores[i], largest)
        return (best, half_width * (2 / points), largest), None

    start = jnp.float32((low + high) / 2), jnp.float32((high - low) / 2), jnp.float32(-jnp.inf)
    (best, _, _), _ = lax.scan(search, start, length=rounds)
    return best
