from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from medjax import aggregate, compress, compressors, error_feedback, rules

SCALED = compressors.scaled_sign()


def run(tx: optax.GradientTransformation, gradients: Any, params: Any) -> tuple[Any, Any]:
    """What is sent at each step, and the last state. Gradients have the steps in front."""

    def step(state: Any, stacked: Any) -> tuple[Any, Any]:
        sent, state = tx.update(stacked, state, params)
        return state, sent

    state, sent = jax.jit(lambda x: lax.scan(step, tx.init(params), x))(gradients)
    return sent, state


def test_by_hand():
    # One worker, g = (3, -1) twice. p = (3, -1): the scale is 2, (2, -2) is sent, e = (1, 1).
    # p = (4, 0): the scale is 2, a 0 is sent as +: (2, 2), e = (2, -2).
    gradients = jnp.tile(jnp.array([3.0, -1.0]), (2, 1, 1))
    sent, state = run(error_feedback(SCALED, 1), gradients, jnp.zeros(2))
    np.testing.assert_array_equal(sent, [[[2, -2]], [[2, 2]]])
    np.testing.assert_array_equal(state.error, [[2, -2]])
    assert state.step == 2


def top_2(p: np.ndarray) -> np.ndarray:
    sent = np.zeros_like(p)
    largest = np.argsort(-np.abs(p), kind="stable")[:2]
    sent[largest] = p[largest]
    return sent


def scaled(p: np.ndarray) -> np.ndarray:
    return np.abs(p).mean() * np.where(p < 0, -1, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compressor", "reference"), [(compressors.top_k(2), top_2), (SCALED, scaled)]
)
def test_of_several_workers(
    compressor: compressors.Compressor, reference: Callable[[np.ndarray], np.ndarray]
):
    g = np.random.default_rng(0).normal(size=(6, 3, 7)).astype(np.float32)
    expected, error = np.zeros(g.shape), np.zeros((3, 7))
    for t in range(6):
        for i in range(3):
            p = g[t, i] + error[i]
            expected[t, i] = reference(p)
            error[i] = p - expected[t, i]
    params = {"w": jnp.zeros((2, 2)), "b": jnp.zeros(3)}
    tree = {"w": g[..., 3:].reshape(6, 3, 2, 2), "b": g[..., :3]}
    sent, state = run(error_feedback(compressor, 3), tree, params)
    np.testing.assert_allclose(sent["b"], expected[..., :3], atol=1e-5)
    np.testing.assert_allclose(sent["w"].reshape(6, 3, 4), expected[..., 3:], atol=1e-5)
    np.testing.assert_allclose(state.error["b"], error[:, :3], atol=1e-5)
    np.testing.assert_allclose(state.error["w"].reshape(3, 4), error[:, 3:], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_nothing_is_lost(dtype: Any):
    # What has been sent and what is kept add up to the gradients, whatever is drawn.
    g = jnp.asarray(np.random.default_rng(1).normal(size=(20, 2, 9)), dtype)
    tx = error_feedback(compressors.random_mask(0.3), 2, key=0)
    sent, state = run(tx, g, jnp.zeros(9, dtype))
    assert sent.dtype == dtype
    assert state.error.dtype == jnp.float32
    total = np.asarray(sent, np.float64).sum(axis=0) + np.asarray(state.error)
    # Scaled up by 3 at every step, the memory grows, and with it its rounding.
    size = np.abs(np.asarray(sent, np.float64)).max()
    np.testing.assert_allclose(total, np.asarray(g, np.float64).sum(axis=0), atol=1e-6 * size)


@pytest.mark.slow
def test_workers_and_steps_draw_apart():
    tx = error_feedback(compressors.random_k(5), 3, key=0)
    stacked = jnp.ones((3, 40))
    first, state = jax.jit(tx.update)(stacked, tx.init(jnp.zeros(40)))
    second, _ = jax.jit(tx.update)(stacked, state)
    masks = np.concatenate([first, second]) != 0
    assert len(np.unique(masks, axis=0)) == 6


EPSILON = 0.5
A = jnp.array([[1 + EPSILON, -1 + EPSILON], [-1 + EPSILON, 1 + EPSILON]])


def minimise(stage: optax.GradientTransformation) -> np.ndarray:
    """x after 3000 steps on f_i(x) = ⟨a_i, x⟩²/2 from (1, 1), of two workers."""
    tx = optax.chain(stage, aggregate(rules.mean()), optax.sgd(0.02))

    def step(carry: Any, _: None) -> tuple[Any, None]:
        x, state = carry
        updates, state = tx.update(A * (A @ x)[:, None], state, x)
        return (optax.apply_updates(x, updates), state), None

    x = jnp.ones(2)
    (x, _), _ = jax.jit(lambda start: lax.scan(step, start, length=3000))((x, tx.init(x)))
    return np.asarray(x)


@pytest.mark.slow
def test_counterexample_of_karimireddy_et_al():
    # Their counterexample 3, its two terms as two workers: a = ±(1, -1) + ε(1, 1), so that the
    # sign of a_i ⟨a_i, x⟩ is ±(1, -1) for both. Whatever is sent, and however it is scaled, x moves
    # along (1, -1) alone, and x_1 + x_2 remains 2, as at the start. With u = x_1 - x_2
    # f(x) = ((u + 2ε)² + (-u + 2ε)²)/4 = u²/2 + 2ε²: never below 1/2, of a minimum 0 at 0.
    # (A 0 would be sent as +1 for both: ⟨a_i, x⟩ isn't 0 on the way.)
    for compressor in (compressors.sign(), SCALED):
        x = minimise(compress(compressor))
        np.testing.assert_allclose(x.sum(), 2, atol=1e-3)
        assert 0.5 * np.sum((np.asarray(A) @ x) ** 2) > 0.49
    # With memory both coordinates converge; and so they do with nothing compressed.
    for stage in (error_feedback(SCALED, 2), error_feedback(compressors.top_k(1), 2)):
        np.testing.assert_allclose(minimise(stage), [0, 0], atol=1e-4)


@pytest.mark.slow
def test_wrong_way_of_the_sign():
    # Their counterexample 1: f(x) = x/4 on [-1, 1], g = 4 with probability 1/4, else -1. The mean
    # of the sign is 1/4 - 3/4 = -1/2: it leads away from the minimum. With memory what is sent
    # is ±1 too, but adds up to the gradients.
    rng = np.random.default_rng(0)
    g = jnp.asarray(np.where(rng.random((4000, 1, 1)) < 0.25, 4.0, -1.0), jnp.float32)
    plain, _ = run(compress(compressors.sign()), g, jnp.zeros(1))
    sent, state = run(error_feedback(compressors.sign(), 1), g, jnp.zeros(1))
    assert plain.mean() < -0.4
    np.testing.assert_array_equal(np.abs(sent), 1)
    assert sent.mean() > 0.1
    assert sent.sum() + state.error.sum() == g.sum()


def test_errors():
    with pytest.raises(TypeError, match="compressor must be built"):
        error_feedback(compressors.sign, 2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="num_workers must be at least 1, got 0"):
        error_feedback(SCALED, 0)
    with pytest.raises(ValueError, match="draws random numbers: give error_feedback a key"):
        error_feedback(compressors.qsgd(1), 2)
    tx = error_feedback(SCALED, 2)
    with pytest.raises(ValueError, match="built for 2 workers, got updates stacked from 3"):
        tx.update(jnp.ones((3, 4)), tx.init(jnp.ones(4)))
