"""The best attacks along a line against a known rule."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from medjax._engine.random import MaybeKey
from medjax._engine import checks
from medjax._engine.kernels.sums import Row
from medjax.attacks._attack import Attack, Honest, Byzantine, Place
from medjax.attacks._shifts import Line, along_mean, along_std
from medjax.rules import Rule
from medjax.rules._rule import as_rule_without_memory
from medjax._engine.settings import Real


def optimal_ipm(
    rule: Rule, max_tau: Real = 10.0, num_points: int = 8, num_rounds: int = 3
) -> Attack:
    """-τμ with the τ that moves the rule under attack farthest from μ.

    The vector is that of `ipm` (Xie et al., 2020); to search for how far to go against a rule that
    is known is the idea of Shejwalkar & Houmansadr (2021).

    What is as large as possible is ‖rule(x_1, ..., x_h, -τμ, ..., -τμ) - μ‖, with the vectors in
    the order of the workers, whoever of them is Byzantine. It is found by a search in rounds:
    `num_points` values of τ in geometric progression from above max_tau/100 to max_tau, then as
    many between the neighbours of the best one so far, and so on. Each costs one aggregation. The
    best of all is taken, the lowest of equal ones in a round; a distance of NaN counts as ∞. A
    rule's distance may have several peaks and jumps: more points find more of them.

    Args:
        rule: the rule under attack, of `medjax.rules`; `mixing.premixed(...)` if vectors are mixed
            before it. One that draws is given one key for all τ, not the server's. A
            `StatefulRule` isn't taken: what it gives depends on the steps before.
        max_tau: the end of the search, positive; may be traced.
        num_points: k, the number of τ in a round, at least 3. The first are max_tau · 100^(i/k-1)
            for i = 1, ..., k.
        num_rounds: how many rounds; each spaces them k/2 times more closely.

    Raises:
        TypeError: if `rule` isn't a rule without memory, or a setting isn't a number, or a static
            one.
        ValueError: if a setting is out of range, or, when traced, if the rule can't take so many
            workers.
    """
    return _optimal("optimal_ipm", along_mean, rule, max_tau, num_points, num_rounds)


def optimal_alie(
    rule: Rule, max_tau: Real = 10.0, num_points: int = 8, num_rounds: int = 3
) -> Attack:
    """μ + τσ with the τ that moves the rule under attack farthest from μ.

    The vector is that of `alie` (Baruch et al., 2019), here with τ > 0, and the idea of the search
    that of Shejwalkar & Houmansadr (2021). The search, its settings and its errors are those of
    `optimal_ipm`; there must be two honest workers.
    """
    return _optimal("optimal_alie", along_std, rule, max_tau, num_points, num_rounds)


def _optimal(
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
        center, sent = line(name, honest)

        def search(place: Place) -> Row:
            def squared_distance(tau: Float[Array, ""]) -> Float[Array, ""]:
                # Kept out of the rule: fused into a sorting network, it takes minutes to compile.
                moved = rule(lax.optimization_barrier(place(sent(tau))), key)
                square = sum(jnp.sum((a - m) ** 2) for a, m in zip(moved, center, strict=True))
                return jnp.where(jnp.isnan(square), jnp.inf, square).astype(jnp.float32)

            return sent(_farthest(squared_distance, max_tau, points, rounds))

        return search

    return Attack(name, forge, rule.needs_key)


def _farthest(
    distance: Callable[[Array], Array], max_tau: Real, points: int, rounds: int
) -> Float[Array, ""]:
    """The τ of the largest distance, as `optimal_ipm` searches it."""
    offsets = jnp.asarray(np.linspace(-1, 1, points + 1)[1:], jnp.float32)

    def tau_at(exponent: Array) -> Array:
        return max_tau * 10**exponent

    def search(carry: tuple[Array, Array, Array], _: None) -> tuple[Any, None]:
        best, half, most = carry
        exponents = jnp.minimum(best + half * offsets, 0)
        # One after the other: the stacked vectors of one τ exist at a time.
        distances = lax.map(lambda exponent: distance(tau_at(exponent)), exponents)
        i = jnp.argmax(distances)
        better = distances[i] > most
        best = jnp.where(better, exponents[i], best)
        return (best, half * (2 / points), jnp.where(better, distances[i], most)), None

    # At first the exponents from above -2 to 0.
    start = jnp.float32(-1), jnp.float32(1), jnp.float32(-jnp.inf)
    (best, _, _), _ = lax.scan(search, start, length=rounds)
    return tau_at(best)
