"""The directed deviation attack."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from medjax._engine import checks
from medjax._engine.kernels.threefry import random_bits
from medjax._engine.random import MaybeKey, worker_keys
from medjax.attacks._attack import Attack, Honest, Byzantine, Sent
from medjax.attacks._statistics import total_and_range
from medjax._engine.settings import Real, settings_text


def fang(factor: Real = 2.0) -> Attack:
    """Beyond all honest values, against the sign of their mean (Fang et al., 2020, section 4.3).

        Uniform in [min, min/b] or [b·min, min] where μ ≥ 0, else in [max, b·max] or [max/b, max].

    The directed deviation attack on coordinate-wise rules, of those who know all honest vectors.
    Where μ >= 0 each Byzantine worker draws its coordinate uniformly from [min, min/b] or
    [b·min, min], whichever lies below the least honest value min, and else from [max, b·max] or
    [max/b, max], whichever lies above the greatest: independently for every worker and coordinate.
    NaN and ±∞ of honest workers pass into what is sent.

    (The paper's attack on Krum is another one: `optimal_ipm(rules.krum(f))` is of its kind.)

    Args:
        factor: b > 1, 2 in the paper; may be traced.

    Raises:
        TypeError: if the factor isn't a real number.
        ValueError: if it isn't above 1, or not finite.
    """
    checks.real("factor", factor, minimum=1.0, exclusive=True)

    def forge(honest: Honest, byzantine: Byzantine, key: MaybeKey) -> Sent:
        assert key is not None
        f = byzantine[0].shape[0]
        return [
            _beyond(x, factor, worker_keys(jax.random.fold_in(key, leaf), f))
            for leaf, x in enumerate(honest)
        ]

    return Attack(f"fang({settings_text(factor=factor)})", forge, needs_key=True)


def _beyond(x: Array, factor: Real, keys: Array) -> Array:
    total, low, high = total_and_range(x)
    down = total >= 0
    edge = jnp.where(down, low, high)
    # Away from 0 if the edge is on that side of it, else towards 0.
    limit = jnp.where((edge > 0) == down, edge / factor, edge * factor)
    uniform = jax.vmap(lambda k: (random_bits(k, edge.size) >> 8).astype(x.dtype) * 2**-24)(keys)
    return edge + uniform * (limit - edge)
