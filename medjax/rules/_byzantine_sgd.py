"""ByzantineSGD: a filter of the workers by everything they have sent so far."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from medjax._engine import checks
from medjax._engine.gram import dot
from medjax._engine.lazy import as_lazy
from medjax._engine.precision import common_dtype
from medjax._engine.settings import Real, settings_text
from medjax._engine.stacked import Stacked, Updates, count_workers
from medjax._engine.vectors import Vectors, vectors_of
from medjax.rules._rule import StatefulRule, zero_state
from medjax.rules._selection import mean_of, middle


class ByzantineSGDState(NamedTuple):
    """The server's memory of the earlier steps, in float32 at least.

    Attributes:
        step: the number of earlier steps.
        start: x_1, the parameters at the first step.
        products: A_i = Σ_t ⟨g_i, x_t - x_1⟩.
        sums: B_i = Σ_t g_i, leaves (n, *shape).
        good: the mask of the workers that are still trusted.
    """

    step: Int[Array, ""]
    start: Updates
    products: Float[Array, " n"]
    sums: Stacked
    good: Bool[Array, " n"]


def byzantine_sgd(
    num_byzantine: int,
    num_workers: int,
    gradient_bound: Real,
    product_threshold: Real,
    sum_threshold: Real,
) -> StatefulRule:
    """The mean over the workers that have stayed near the majority at every step so far.

    This is Algorithm 1 of Alistarh, Allen-Zhu and Li (2018), "Byzantine stochastic gradient
    descent". At the parameters x_t, worker i sends g_i. With A_i = Σ_t ⟨g_i, x_t - x_1⟩ and
    B_i = Σ_t g_i, summed over all steps so far, worker i is dropped for good unless

        |A_i - median_j A_j| ≤ T_A,  ‖B_i - B_med‖ ≤ T_B  and  ‖g_i - g_med‖ ≤ 4V.

    B_med is the first B_j with more than half of the B_i, itself included, within T_B, or else the
    first one with the most B_i within T_B. g_med is chosen likewise among the g_j, with 2V for T_B.
    The result is the mean of the g_i over the remaining workers (the paper divides by n), or 0 if
    none remains.

    A worker that sends NaN or ±∞ is dropped at once; the result is always finite.

    Args:
        num_byzantine: f, with 2f < n. It is only checked: the rule doesn't depend on it.
        num_workers: n.
        gradient_bound: V > 0, the largest distance from an honest worker's gradient to the true
            one; may be traced.
        product_threshold: T_A > 0, in the theory of the order of D V √(T log(nT)) for T steps in a
            domain of diameter D; may be traced.
        sum_threshold: T_B > 0, in the theory of the order of V √(T log(nT)); may be traced.

    Returns:
        A stateful rule, whose update must be given the parameters.

    Raises:
        TypeError: if a number of workers isn't a static integer, or another setting isn't a real
            number.
        ValueError: if a setting is out of range, or if 2f >= n; when called, if the updates come
            from another number of workers, or if no parameters are given.
    """
    f = checks.integer("num_byzantine", num_byzantine, minimum=0)
    n = checks.integer("num_workers", num_workers, minimum=1)
    bounds = {
        "gradient_bound": gradient_bound,
        "product_threshold": product_threshold,
        "sum_threshold": sum_threshold,
    }
    for key, value in bounds.items():
        checks.real(key, value, minimum=0.0, exclusive=True)
    name = f"byzantine_sgd({settings_text(num_byzantine=f, num_workers=n, **bounds)})"
    checks.honest_majority(name, f, n)

    def init(params: Updates) -> ByzantineSGDState:
        start = zero_state(params)
        return ByzantineSGDState(
            step=jnp.zeros([], jnp.int32),
            start=start,
            products=jnp.zeros(n, common_dtype(*jax.tree.leaves(start))),
            sums=zero_state(params, n),
            good=jnp.ones(n, bool),
        )

    def update(
        updates: Stacked, state: ByzantineSGDState, params: Updates | None
    ) -> tuple[Updates, ByzantineSGDState]:
        if params is None:
            raise ValueError(f"{name} needs the parameters: give them to update")
        count_workers(updates, expected=n)
        lazy = as_lazy(updates)
        vectors = vectors_of(lazy)
        # `init` may have been given shapes alone, so x_1 is stored at the first update.
        start = jax.tree.map(
            lambda p, x: jnp.where(state.step == 0, p.astype(x.dtype), x), params, state.start
        )
        displacement = jax.tree.leaves(
            jax.tree.map(lambda p, x: (p.astype(x.dtype) - x).reshape(-1), params, start)
        )
        products = state.products
        for x, y in zip(vectors.rows, displacement, strict=True):
            products += dot(x, y).astype(products.dtype)
        sums = jax.tree.map(lambda b, g: b + g.astype(b.dtype), state.sums, updates)
        good = (
            state.good
            & vectors.finite
            & (jnp.abs(products - middle(products)) <= product_threshold)
            & _near_median(vectors_of(as_lazy(sums)), sum_threshold, sum_threshold)
            & _near_median(vectors, 2 * gradient_bound, 4 * gradient_bound)
        )
        mean = vectors.weighted_sum(mean_of(good, vectors.dtype))
        return lazy.unflatten(mean), ByzantineSGDState(state.step + 1, start, products, sums, good)

    return StatefulRule(name, init, update, knows_workers=True)


def _near_median(vectors: Vectors, near: Real, reach: Real) -> Bool[Array, " n"]:
    """Return the mask of the vectors within `reach` of their median.

    The median is the first vector with more than half of all within `near`, or else the first one
    with the most.
    """
    distances = jnp.sqrt(vectors.squared_distances)
    n = len(distances)
    count = jnp.where(vectors.finite, jnp.sum(distances <= near * vectors.unit, axis=1), 0)
    median = jnp.argmax(jnp.where(2 * count > n, n + 1, count))
    return distances[median] <= reach * vectors.unit
