"""Attacks that go as far as they can without standing out by their distances to other vectors."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax._engine import checks
from medjax._engine.gram import dot
from medjax._engine.kernels.sums import Row
from medjax._engine.lazy import as_lazy
from medjax._engine.random import MaybeKey
from medjax._engine.vectors import Vectors, vectors_of
from medjax.attacks._attack import Attack, Byzantine, Honest
from medjax.attacks._statistics import mean, mean_and_std

Direction: TypeAlias = Literal["std", "unit", "sign"]


def min_max(direction: Direction = "std") -> Attack:
    """μ + γp with the largest γ that keeps it within one honest diameter of every honest vector.

        γ = max{γ : max_i ‖μ + γp - x_i‖ ≤ max_{i,j} ‖x_i - x_j‖}.

    The attack is from Shejwalkar & Houmansadr (2021), "Manipulating the Byzantine". The paper
    searches for γ by halving the step. Here γ is computed: each honest vector bounds it by the
    positive root of a quadratic equation, and γ is the least of these bounds. NaN and ±∞ of honest
    workers propagate to the forged vectors.

    Args:
        direction: p, computed from the coordinate-wise mean μ and sample standard deviation σ of
            the honest vectors: -σ ("std"), -μ/‖μ‖ ("unit") or -sign(μ) ("sign"). If p = 0, the
            workers send μ.

    Raises:
        ValueError: if the direction isn't one of these, or, when traced, if σ is needed and there
            is only one honest worker.
    """

    def solve(deviations: Vectors, projections: Array, squared_norm: Array) -> Array:
        # Solve ‖γp - c_i‖² <= D² for every c_i = x_i - μ. γ = 0 is always a solution, because μ is
        # the mean of the x_j, so the slack is negative only through rounding.
        squared_diameter = jnp.max(deviations.squared_distances) / deviations.unit**2
        slack = jnp.maximum(squared_diameter - deviations.norms**2, 0)
        return jnp.min(projections + jnp.sqrt(projections**2 + squared_norm * slack)) / squared_norm

    return _farthest_along("min_max", direction, solve)


def min_sum(direction: Direction = "std") -> Attack:
    """μ + γp with the largest γ that keeps its summed squared distances within the honest maximum.

        γ = max{γ : Σ_i ‖μ + γp - x_i‖² ≤ max_i Σ_j ‖x_i - x_j‖²}.

    The attack is from Shejwalkar & Houmansadr (2021). The paper searches for γ by halving the step.
    Because the deviations from the mean sum to 0, there is a closed form, which is used here:
    γ = max_i ‖x_i - μ‖/‖p‖. NaN and ±∞ of honest workers propagate to the forged vectors.

    Args:
        direction: p, as in `min_max`.

    Raises:
        ValueError: as for `min_max`.
    """

    def solve(deviations: Vectors, projections: Array, squared_norm: Array) -> Array:
        # With c_i = x_i - μ, the left side of the inequality is hγ²‖p‖² + Σ_j ‖c_j‖², and the right
        # side is max_i h‖c_i‖² + Σ_j ‖c_j‖².
        del projections
        return jnp.max(deviations.norms) / jnp.sqrt(squared_norm)

    return _farthest_along("min_sum", direction, solve)


def _farthest_along(
    kind: str,
    direction: Direction,
    solve: Callable[[Vectors, Float[Array, " h"], Float[Array, ""]], Float[Array, ""]],
) -> Attack:
    """Build the attack μ + γp with γ = solve(x_i - μ, ⟨p, x_i - μ⟩, ‖p‖²)."""
    checks.option("direction", direction, ("std", "unit", "sign"))
    name = f"{kind}(direction={direction})"

    def forge(honest: Honest, byzantine: Byzantine, key: MaybeKey) -> Row:
        del byzantine, key
        center, p = _mean_and_direction(name, direction, honest)
        # Solve with the deviations: where the vectors have much in common, rounding would drown
        # their differences in a Gram matrix of the vectors themselves.
        deviations = [x - m[None] for x, m in zip(honest, center, strict=True)]
        projections = sum(dot(x, q) for x, q in zip(deviations, p, strict=True))
        squared_norm = sum(dot(q, q) for q in p)
        gamma = solve(
            vectors_of(as_lazy(deviations)), jnp.asarray(projections), jnp.asarray(squared_norm)
        )
        gamma = jnp.where(squared_norm == 0, 0, gamma)
        return [m + gamma * q for m, q in zip(center, p, strict=True)]

    return Attack(name, forge, reads_own=False)


def _mean_and_direction(name: str, direction: Direction, honest: Honest) -> tuple[Row, Row]:
    """Return μ and p."""
    if direction == "std":
        center, std = mean_and_std(name, honest)
        return center, [-s for s in std]
    center = mean(honest)
    if direction == "sign":
        return center, [-jnp.sign(m) for m in center]
    norm = jnp.sqrt(jnp.asarray(sum(dot(m, m) for m in center)))
    return center, [-m / jnp.where(norm == 0, 1, norm) for m in center]
