"""Momentum that each worker keeps and sends in place of its gradient."""

import optax
from jaxtyping import Array, Float

from medjax._engine import checks
from medjax._engine.precision import in_float32
from medjax.workers._per_worker import per_worker


def worker_momentum(
    beta: float | Float[Array, ""], num_workers: int, *, damped: bool = True
) -> optax.GradientTransformationExtraArgs:
    """Replace each worker's gradient by its momentum, m_i ← β m_i + (1 - β) g_i.

    Momentum averages mini-batch noise over about 1/(1 - β) steps. Honest workers then lie close
    together, and a robust rule can tell which ones don't (Karimireddy et al., 2021). Undamped
    momentum is m_i ← β m_i + g_i (El Mhamdi et al., 2021), which is 1/(1 - β) times as long. All
    m_i start at 0. A worker's NaN or ±∞ stays in its momentum forever, but in no other worker's.

    Args:
        beta: β in [0, 1), a number; may be traced.
        num_workers: n.
        damped: whether to multiply the gradient by 1 - β.

    Returns:
        A transform of stacked updates, leaves (n, *shape) to (n, *shape). Momenta are kept in
        float32 at least, and sent in the updates' dtypes.

    Raises:
        ValueError: if β is out of range, or `num_workers` is below 1. While tracing, if it isn't
            the number of workers in the updates.
        TypeError: if β isn't a number or `num_workers` isn't a static integer.

    >>> import jax.numpy as jnp
    >>> tx = worker_momentum(0.5, num_workers=2)
    >>> state = tx.init(jnp.zeros(1))
    >>> for _ in range(2):
    ...     sent, state = tx.update(jnp.array([[4.0], [8.0]]), state)
    >>> print(sent.ravel())
    [3. 6.]
    """
    checks.fraction("beta", beta, below_one=True)

    momentum = optax.ema(beta, debias=False) if damped else optax.trace(beta)
    return per_worker(in_float32(momentum), num_workers)
