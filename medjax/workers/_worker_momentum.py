"""Momentum that each worker keeps, before it sends anything."""

import optax
from jaxtyping import Array, Float

from medjax._engine import checks
from medjax._engine.precision import in_float32
from medjax.workers._per_worker import per_worker


def worker_momentum(
    beta: float | Float[Array, ""], num_workers: int, *, damped: bool = True
) -> optax.GradientTransformationExtraArgs:
    """Each worker sends its momentum, m_i ← β m_i + (1 - β) g_i, in place of its gradient.

    It averages a worker's mini-batch noise away over about 1/(1 - β) steps, so that honest workers
    lie close together and a robust rule can tell who doesn't (Karimireddy et al., 2021). Undamped
    it is m_i ← β m_i + g_i (El Mhamdi et al., 2021), which is 1/(1 - β) times as long. All m_i
    start at 0. A worker's NaN or ±∞ stays in its own momentum for good.

    Args:
        beta: β in [0, 1), a number, perhaps traced.
        num_workers: n.
        damped: whether the gradient is multiplied by 1 - β.

    Returns:
        A transform of stacked updates, leaves (n, *shape) to (n, *shape). Momenta are kept in
        float32 at least, and sent in the updates' dtypes.

    Raises:
        ValueError: if β is out of range, if `num_workers` is below 1 or, when traced, isn't that of
            the updates.
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
