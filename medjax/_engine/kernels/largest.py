"""Find the k largest numbers of a vector.

XLA's top-k took about 50 times as long on two CPU cores (JAX 0.10.2, d = 101,770, k = 1,000).
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from medjax._engine.kernels import radix


def largest(x: Int[Array, " d"], k: int) -> Bool[Array, " d"]:
    """Return a mask of the k largest numbers. Ties go to the lowest indices.

    Args:
        x: non-negative integers.
        k: static, in [1, d].
    """
    by_bisection, by_radix = partial(_by_bisection, k=k), partial(_by_radix, k=k)
    return lax.platform_dependent(x, cpu=by_bisection, default=by_radix)


def _by_radix(x: Int[Array, " d"], k: int) -> Bool[Array, " d"]:
    """Select the bound, and then the last index of those equal to it, in as many passes for all x.

    A GPU waits for the host wherever a loop's end depends on the data.
    """
    index = lax.iota(jnp.int32, x.size)
    bound = radix.select(x[:, None], x.size - k, unroll=False)[0]
    above, equal = x > bound, x == bound
    missing = k - jnp.sum(above, dtype=jnp.int32)
    candidates = jnp.where(equal, index, x.size)
    last = radix.select(candidates[:, None], missing - 1, unroll=False)[0]
    return above | (equal & (index <= last))


def _by_bisection(x: Int[Array, " d"], k: int) -> Bool[Array, " d"]:
    # The highest bound that k numbers reach. If they are fewer than k above it, the rest are the
    # first ones equal to it, up to an index found by a second bisection. Without ties that one has
    # next to nothing to do.
    bound = _bisect(lambda t: _count(x >= t), k, jnp.iinfo(x.dtype).max, x.dtype)
    above, equal = x > bound, x == bound
    index = lax.iota(jnp.int32, x.size)
    # The index is counted from the end, because `_bisect` looks for the highest argument.
    missing = k - _count(above)
    left_out = _bisect(lambda m: _count(equal & (index < x.size - m)), missing, x.size, index.dtype)
    return above | (equal & (index < x.size - left_out))


def _bisect(
    count: Callable[[Array], Int[Array, ""]], target: int | Array, stop: int, dtype: jnp.dtype
) -> Int[Array, ""]:
    """Return an m in [0, stop] with count(m) = target, or else the last with a greater count.

    `count` must not increase with m, and count(0) must be at least the target.
    """

    def halve(bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = high - (high - low) // 2
        counted = count(middle)
        # Any exact match will do: both bounds move to it, which ends the loop early.
        last = jnp.where(counted == target, middle, jnp.where(counted > target, high, middle - 1))
        return jnp.where(counted >= target, middle, low), last

    bounds = jnp.zeros([], dtype), jnp.full([], stop, dtype)
    return lax.while_loop(lambda bounds: bounds[0] < bounds[1], halve, bounds)[0]


def _count(mask: Bool[Array, " d"]) -> Array:
    # XLA on the CPU sums floats faster than integers. In float32 the count is exact up to 2²⁴.
    exact = mask.size <= 1 << 24
    return jnp.sum(mask.astype(jnp.float32 if exact else jnp.int32)).astype(jnp.int32)
