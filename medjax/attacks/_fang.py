"""The directed deviation attack."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from medjax._engine import checks
from medjax._engine.kernels.threefry import random_bits
from medjax._engine.random import MaybeKey, worker_keys
from medjax._engine.settings import Real, settings_text
from medjax.attacks._attack import Attack, Byzantine, Honest, Sent
from medjax.attacks._statistics import total_and_range


def fang(factor: Real = 2.0) -> Attack:
    """Values beyond all honest ones, against the sign of their mean (Fang et al., 2020, sec. 3.3).

        Uniform in [min/b, min] or [b·min, min] where μ ≥ 0, else in [max, b·max] or [max, max/b].

    This is the directed deviation attack on coordinate-wise rules, by attackers who know all honest
    vectors. Where μ >= 0, each Byzantine worker draws its coordinate uniformly from [min/b, min] or
    [b·min, min], whichever lies below the least honest value, min. Elsewhere it draws from
    [max, b·max] or [max, max/b], whichever lies above the greatest honest value, max. The draws are
    independent for every worker and coordinate. NaN and ±∞ of honest workers propagate to the
    forged vectors.

    The paper has another attack for Krum, which `optimal_ipm(rules.krum(f))` resembles.

    Args:
        factor: b > 1, 2 in the paper; may be traced.

    Raises:
        TypeError: if the factor isn't a real number.
        ValueError: if it isn't finite or isn't above 1.
    """
    checks.real("factor", factor, minimum=1.0, exclusive=True)

    def forge(honest: Honest, byzantine: Byzantine, key: MaybeKey) -> Sent:
        assert key is not None
        f = byzantine[0].shape[0]
        return [
            _draw_beyond(x, factor, worker_keys(jax.random.fold_in(key, leaf), f))
            for leaf, x in enumerate(honest)
        ]

    return Attack(f"fang({settings_text(factor=factor)})", forge, needs_key=True, reads_own=False)


def _draw_beyond(x: Array, factor: Real, keys: Array) -> Array:
    total, low, high = total_and_range(x)
    downward = total >= 0
    edge = jnp.where(downward, low, high)
    # Dividing by the factor moves the edge towards 0, and multiplying away from 0. Take the one
    # that leaves the honest range.
    limit = jnp.where((edge > 0) == downward, edge / factor, edge * factor)
    # Draw 24 bits, as many as a float32 holds exactly.
    uniform = jax.vmap(lambda k: (random_bits(k, edge.size) >> 8).astype(x.dtype) * 2**-24)(keys)
    return edge[None] + uniform * (limit - edge)[None]
