"""Attacks that go as far as they can without standing out by their distances to the others."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax._engine.random import MaybeKey
from medjax._engine import checks
from medjax._engine.kernels.sums import Row
from medjax._engine.gram import dot
from medjax._engine.lazy import as_lazy
from medjax._engine.vectors import Vectors, vectors_of
from medjax.attacks._attack import Attack, Honest, Byzantine
from medjax.attacks._statistics import mean, mean_and_std

Direction: TypeAlias = Literal["std", "unit", "sign"]


def min_max(direction: Direction = "std") -> Attack:
    """μ + γp, as far along p as no honest vector is farther off than two honest ones are apart.

        γ = max{γ : max_i ‖μ + γp - x_i‖ ≤ max_{i,j} ‖x_i - x_j‖}.

    (Shejwalkar & Houmansadr, 2021, "Manipulating the Byzantine".) The paper halves the step of a
    search for γ; here it is solved for: each honest vector bounds γ by the positive root of a
    quadratic equation, and γ is the least of these. NaN and ±∞ of honest workers pass into what is
    sent.

    Args:
        direction: p, from the mean μ and the sample standard deviation σ of the honest vectors,
            per coordinate: -σ ("std"), -μ/‖μ‖ ("unit") or -sign(μ) ("sign"). Where p = 0, μ is
            sent.

    Raises:
        ValueError: if the direction isn't one of these, or, when traced, if there is only one
            honest worker to take σ of.
    """

    def solve(apart: Vectors, along: Array, length: Array) -> Array:
        # ‖γp - c_i‖² <= D² for c_i = x_i - μ. It holds at γ = 0: μ is a mean of the x_j.
        diameter = jnp.max(apart.squared_distances) / apart.unit**2
        slack = jnp.maximum(diameter - apart.norms**2, 0)
        return jnp.min(along + jnp.sqrt(along**2 + length * slack)) / length

    return _as_far("min_max", direction, solve)


def min_sum(direction: Direction = "std") -> Attack:
    """μ + γp, as far along p as its squared distances sum to no more than any honest vector's.

        γ = max{γ : Σ_i ‖μ + γp - x_i‖² ≤ max_i Σ_j ‖x_i - x_j‖²}.

    (Shejwalkar & Houmansadr, 2021.) The paper halves the step of a search for γ; as deviations from
    the mean sum to 0, it has a closed form: γ = max_i ‖x_i - μ‖/‖p‖. NaN and ±∞ of honest workers
    pass into what is sent.

    Args:
        direction: p, as in `min_max`.

    Raises:
        ValueError: as `min_max`.
    """

    def solve(apart: Vectors, along: Array, length: Array) -> Array:
        # For c_i = x_i - μ the left is hγ²‖p‖² + Σ_j ‖c_j‖², the right max_i h‖c_i‖² + Σ_j ‖c_j‖².
        del along
        return jnp.max(apart.norms) / jnp.sqrt(length)

    return _as_far("min_sum", direction, solve)


def _as_far(
    kind: str,
    direction: Direction,
    solve: Callable[[Vectors, Float[Array, " h"], Float[Array, ""]], Float[Array, ""]],
) -> Attack:
    """μ + γp, with γ = solve(x_i - μ, ⟨p, x_i - μ⟩, ‖p‖²)."""
    checks.option("direction", direction, ("std", "unit", "sign"))
    name = f"{kind}(direction={direction})"

    def forge(honest: Honest, byzantine: Byzantine, key: MaybeKey) -> Row:
        del byzantine, key
        center, p = _perturbation(name, direction, honest)
        # Of the deviations themselves: the Gram matrix of the vectors would lose to rounding what
        # they differ in, where they have much in common.
        apart = [x - m for x, m in zip(honest, center, strict=True)]
        along = sum(dot(x, q) for x, q in zip(apart, p, strict=True))
        length = sum(dot(q, q) for q in p)
        gamma = solve(vectors_of(as_lazy(apart)), jnp.asarray(along), jnp.asarray(length))
        gamma = jnp.where(length == 0, 0, gamma)
        return [m + gamma * q for m, q in zip(center, p, strict=True)]

    return Attack(name, forge)


def _perturbation(name: str, direction: Direction, honest: Honest) -> tuple[Row, Row]:
    """μ and p."""
    if direction == "std":
        center, std = mean_and_std(name, honest)
        return center, [-s for s in std]
    center = mean(honest)
    if direction == "sign":
        return center, [-jnp.sign(m) for m in center]
    norm = jnp.sqrt(jnp.asarray(sum(dot(m, m) for m in center)))
    return center, [-m / jnp.where(norm == 0, 1, norm) for m in center]
