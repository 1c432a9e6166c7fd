"""The workers' momenta, against the recursion in NumPy."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import per_worker, worker_momentum

N, STEPS = 4, 5
RNG = np.random.default_rng(0)
GRADIENTS = {
    "w": RNG.normal(size=(STEPS, N, 3, 2)).astype(np.float32),
    "c": RNG.normal(size=(STEPS, N)).astype(np.float32),
}


def run(tx: optax.GradientTransformation, gradients: Any) -> Any:
    """What is sent at each step, in a loop."""
    state = tx.init(jax.tree.map(lambda g: g[0, 0], gradients))
    return jax.lax.scan(lambda state, g: tx.update(g, state)[::-1], state, gradients)[1]


def by_hand(gradients: np.ndarray, beta: float, damped: bool) -> np.ndarray:
    m, sent = np.zeros(gradients.shape[1:]), []
    for g in gradients.astype(np.float64):
        m = beta * m + ((1 - beta) * g if damped else g)
        sent.append(m)
    return np.stack(sent)


@pytest.mark.parametrize("damped", [True, False])
@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_the_recursion(beta: float, damped: bool):
    sent = run(worker_momentum(beta, N, damped=damped), GRADIENTS)
    for name, g in GRADIENTS.items():
        np.testing.assert_allclose(sent[name], by_hand(g, beta, damped), rtol=1e-5, atol=1e-6)


def test_damped_is_the_default_and_the_first_is_a_tenth():
    sent = run(worker_momentum(0.9, N), GRADIENTS["c"])  # from 0, without a correction
    np.testing.assert_allclose(sent[0], 0.1 * GRADIENTS["c"][0], rtol=1e-5)


@pytest.mark.parametrize("damped", [True, False])
def test_in_float32_it_is_optaxs(damped: bool):
    inner = optax.ema(0.9, debias=False) if damped else optax.trace(0.9)
    actual, expected = (
        run(tx, GRADIENTS) for tx in (worker_momentum(0.9, N, damped=damped), per_worker(inner, N))
    )
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize("damped", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_beta_may_be_traced(damped: bool, dtype: Any):
    g, betas = jnp.asarray(GRADIENTS["c"], dtype), np.float32([0.0, 0.5, 0.99])
    swept = jax.vmap(lambda beta: run(worker_momentum(beta, N, damped=damped), g))(betas)
    assert swept.dtype == dtype
    for sent, beta in zip(swept, betas, strict=True):
        expected = by_hand(np.asarray(g, np.float32), float(beta), damped)
        tolerance = 1e-5 if dtype == np.float32 else 2**-8
        np.testing.assert_allclose(
            np.asarray(sent, np.float32), expected, rtol=tolerance, atol=1e-6
        )


def test_half_precision_remembers_in_float32():
    # m_t = 1 - β^t; in bfloat16 it would stop growing where 0.01 (1 - m) is half a 256th.
    g = jnp.ones((500, 1, 1), jnp.bfloat16)
    sent = run(worker_momentum(0.99, 1), g)
    assert sent.dtype == jnp.bfloat16
    np.testing.assert_allclose(float(sent[-1, 0, 0]), 1 - 0.99**500, rtol=2**-8)


def test_a_workers_nan_stays_with_the_worker():
    g = GRADIENTS["c"].copy()
    g[1, 2], g[1, 3] = np.nan, np.inf
    sent = np.asarray(run(worker_momentum(0.9, N), g))
    assert np.isfinite(sent[:, :2]).all()
    np.testing.assert_array_equal(np.isfinite(sent[:, 2:]), np.arange(STEPS)[:, None] < [[1, 1]])


def test_in_a_run():
    # f_i(x) = (x - a_i)²/2 and the median of the momenta.
    a = np.float32([1.0, 2.0, 10.0])
    data = medjax.stack_workers(a, [[0], [1], [2]])
    tx = optax.chain(worker_momentum(0.5, 3), medjax.median_sgd(0.5))
    run = medjax.simulate(lambda x, a: ((x - a) ** 2 / 2, {}), 0.0, data, tx, num_steps=4, key=0)
    x, m = 0.0, np.zeros(3)
    for _ in range(4):
        m = 0.5 * m + 0.5 * (x - a)
        x = x - 0.5 * np.median(m)
    np.testing.assert_allclose(run.params, x, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: worker_momentum(1.0, 3), ValueError, "beta must be below 1, got 1"),
        (lambda: worker_momentum(-0.1, 3), ValueError, "beta must be .* at least 0, got -0.1"),
        (lambda: worker_momentum(math.nan, 3), ValueError, "beta must be .*, got nan"),
        (lambda: worker_momentum("x", 3), TypeError, "beta must be a real number, got 'x'"),
        (lambda: worker_momentum(0.9, 0), ValueError, "num_workers must be at least 1, got 0"),
        (
            lambda: run(worker_momentum(0.9, 3), GRADIENTS),
            ValueError,
            "built for 3 workers, got updates stacked from 4",
        ),
    ],
)
def test_errors(make: Any, kind: type[Exception], message: str):
    with pytest.raises(kind, match=message):
        make()
