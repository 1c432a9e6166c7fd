"""State in half precision: momenta, memories, private moves; settings of other dtypes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import medjax
from medjax import algorithms, compressors

pytestmark = pytest.mark.slow
HALF = jnp.bfloat16


def _after(algorithm: Any, slopes: Any, num_steps: int, state: Any = None) -> Any:
    """The state after steps with constant gradients, one number of each worker."""
    parts = medjax.simulation(lambda x, batch: (x * batch.astype(x.dtype), {}), algorithm)
    data = medjax.stack_workers(np.array(slopes, np.float32), np.arange(len(slopes))[:, None])

    @jax.jit
    def advance(state: Any) -> Any:
        return parts.advance(state, data, num_steps)

    return advance(parts.init(jnp.zeros((), HALF), 0, len(slopes)) if state is None else state)


@pytest.mark.parametrize(
    "algorithm",
    [algorithms.signum(0.0, beta=0.999), algorithms.distributed_lion(0.0, beta2=0.999)],
    ids=["signum", "distributed_lion"],
)
def test_slow_momenta_turn_round(algorithm: Any):
    # In bfloat16, 0.999 is 1: the momentum would keep its first sign for ever.
    state = _after(algorithm, [-0.5, -0.5], 3000, _after(algorithm, [1, 1], 300))
    wanted = -0.5 + 0.999**3000 * (1 - 0.999**300 + 0.5)
    np.testing.assert_allclose(state.worker_state, [wanted, wanted], rtol=1e-3)


def test_settings_of_other_dtypes_change_nothing():
    makers = (
        lambda beta: algorithms.signum(0.1, beta=beta),
        lambda beta: algorithms.distributed_lion(0.1, beta2=beta),
        lambda beta: algorithms.mime(1, 0.1, beta=beta),
        lambda beta: algorithms.storm(0.1, beta),
        lambda beta: algorithms.diana(0.1, compressors.sign(), alpha=beta),
    )
    known = jnp.float32(0.5)  # in a trace, comparisons of it are traced too
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        doubles = jnp.array([0.5])
        for make in makers:
            traced = jax.jit(jax.vmap(lambda b, make=make: _after(make(b), [1, -3], 2).params))
            closed = jax.jit(lambda make=make: _after(make(known), [1, -3], 2).params)
            expected = _after(make(0.5), [1, -3], 2).params
            np.testing.assert_array_equal(np.asarray(traced(doubles)[0], float), expected)
            np.testing.assert_array_equal(np.asarray(closed(), float), expected)


def test_servers_memory_is_the_mean_of_the_workers():
    algorithm = algorithms.ef21(1e-3, lambda x: (0.3 * x, 32 * x.size))
    state = _after(algorithm, [0.11, 0.37, -0.83], 300)
    kept = float(state.worker_state.mean())
    assert kept == pytest.approx((0.11 + 0.37 - 0.83) / 3, rel=0.01)
    (memory, *_) = state.opt_state
    assert float(memory.memory.mean) == pytest.approx(kept, rel=0.01)


def test_no_private_move_is_longer_than_c():
    private = algorithms.dp_fedavg(1, 1.0, clip=1.0, noise_multiplier=0.0, key=0)
    sent = medjax.simulation(lambda x, batch: (batch.astype(HALF) @ x, {}), private)

    def move(data: Any) -> Any:
        return sent.advance(sent.init(jnp.zeros(3, HALF), 0, 1), data, 1).params

    slopes = 10 * np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    data = medjax.stack_workers(slopes, np.arange(300)[:, None])
    alone = jax.tree.map(lambda x: x[:, None], data)  # 300 runs of one worker
    moves = np.asarray(jax.jit(jax.vmap(move))(alone), float)
    assert 0.98 < np.linalg.norm(moves, axis=1).max() <= 1
