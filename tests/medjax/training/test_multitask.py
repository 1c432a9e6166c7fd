"""A model for each worker, against closed forms and the recursion in NumPy."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import medjax
from medjax import multitask

N, DIM = 5, 3
RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(N, DIM))
ONE_EACH = medjax.stack_workers(CENTRES.astype(np.float32), np.arange(N)[:, None])


def quadratic(w: Any, a: Any) -> Any:
    """f_i(w) = ‖w - a_i‖²/2."""
    twice = jnp.sum((w.astype(a.dtype)[None] - a) ** 2, axis=-1)
    return twice / 2, {"twice": twice}


run = partial(
    multitask, quadratic, jnp.zeros(DIM), ONE_EACH, learning_rate=0.5, num_steps=60, key=0
)


@pytest.mark.slow
@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, 7.0, 1e3])
def test_closed_form_of_quadratics(strength: float):
    # 0 = w_i - a_i + λ (w_i - w̄); the sum over i gives w̄ = ā, so w_i = (a_i + λ ā)/(1 + λ).
    expected = (CENTRES + strength * CENTRES.mean(axis=0)) / (1 + strength)
    result = run(regularization=strength)
    np.testing.assert_allclose(result.models, expected, atol=2e-6)
    spread = np.linalg.norm(expected - expected.mean(axis=0), axis=1)
    np.testing.assert_allclose(result.metrics["spread"], spread, atol=2e-6)
    squares = ((expected - CENTRES) ** 2).sum(axis=1)
    np.testing.assert_allclose(result.metrics["loss"], squares / 2, atol=1e-5)
    np.testing.assert_allclose(result.metrics["twice"], squares, atol=1e-5)
    assert set(result.metrics) == {"loss", "twice", "spread"}


@pytest.mark.slow
def test_a_strong_tie_gives_the_one_model_of_distributed_sgd():
    result = run(regularization=1e30)
    one = medjax.simulate(
        quadratic, jnp.zeros(DIM), ONE_EACH, medjax.mean_sgd(0.5), num_steps=60, key=0
    ).params
    np.testing.assert_allclose(result.models, np.tile(one, (N, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.metrics["spread"], 0, atol=1e-6)


# Workers of 1, 3, 4 and 2 examples.
INPUTS, TARGETS = RNG.normal(size=(10, 3)), RNG.normal(size=10)
PARTS = [np.array([4]), np.array([0, 7, 9]), np.array([1, 2, 3, 8]), np.array([5, 6])]
START = {"w": np.array([0.5, -1.0, 0.2]), "c": np.float64(0.3)}


def least_squares(params: Any, batch: Any) -> Any:
    x, y = batch
    return (x @ params["w"] + params["c"] - y) ** 2 / 2, {}


def gradient(v: np.ndarray, rows: Any) -> np.ndarray:
    x = np.column_stack([INPUTS[rows], np.ones(len(rows))])
    return x.T @ (x @ v - TARGETS[rows]) / len(rows)


def step(models: np.ndarray, batches: Any, lr: float, strength: float) -> np.ndarray:
    """Gradient descent, then argmin_w Σ_i ‖w_i - v_i‖²/(2η) + (λ/2) Σ_i ‖w_i - w̄‖²."""
    v = np.stack([w - lr * gradient(w, rows) for w, rows in zip(models, batches, strict=True)])
    # (w_i - v_i)/η + λ (w_i - w̄) = 0: linear equations in all w at once.
    n = len(v)
    matrix = np.eye(n) * (1 / lr + strength) - strength / n
    return np.linalg.solve(matrix, v / lr)


def least_squares_run(num_steps: int = 4, **settings: Any) -> Any:
    dtype = jnp.result_type(float)
    data = medjax.stack_workers((INPUTS.astype(dtype), TARGETS.astype(dtype)), PARTS)
    return multitask(least_squares, START, data, num_steps=num_steps, key=5, **settings)


def flat(models: Any) -> np.ndarray:
    return np.column_stack([models["w"], models["c"]])


@pytest.mark.slow
def test_a_trajectory_of_unequal_workers():
    models = np.tile(np.append(START["w"], START["c"]), (4, 1))
    for _ in range(4):
        models = step(models, PARTS, 0.1, 2.0)
    with jax.enable_x64(True):
        result = least_squares_run(regularization=2.0, learning_rate=0.1)
        np.testing.assert_allclose(flat(result.models), models, rtol=1e-12)
    losses = [
        ((INPUTS[rows] @ w[:3] + w[3] - TARGETS[rows]) ** 2 / 2).mean()
        for w, rows in zip(models, PARTS, strict=True)
    ]
    np.testing.assert_allclose(result.metrics["loss"], losses, rtol=1e-12)
    spread = np.linalg.norm(models - models.mean(axis=0), axis=1)
    np.testing.assert_allclose(result.metrics["spread"], spread, rtol=1e-12)


@pytest.mark.slow
def test_without_regularisation_the_workers_know_nothing_of_each_other():
    alone = np.append(START["w"], START["c"])
    for _ in range(4):
        alone = alone - 0.1 * gradient(alone, PARTS[2])
    result = least_squares_run(regularization=0.0, learning_rate=0.1)
    np.testing.assert_allclose(flat(result.models)[2], alone, rtol=1e-5)


@pytest.mark.slow
def test_no_steps_leave_the_models_where_they_start():
    result = least_squares_run(0, regularization=1.0, learning_rate=0.1)
    start = np.append(START["w"], START["c"]).astype(np.float32)
    np.testing.assert_array_equal(flat(result.models), np.tile(start, (4, 1)))
    np.testing.assert_array_equal(result.metrics["spread"], np.zeros(4))


@pytest.mark.slow
def test_mini_batches_are_the_workers_own_and_a_function_of_the_key():
    runs = jax.vmap(
        lambda key: (
            multitask(
                lambda w, a: (w * 0 + a * w, {}),  # the gradient is the example itself
                0.0,
                medjax.stack_workers(np.float32([1, 10, 20, 400]), [[0], [1, 2], [3]]),
                regularization=0.0,
                learning_rate=1.0,
                num_steps=50,
                key=key,
                batch_size=2,
            ).models
        )
    )(jnp.array([0, 1, 2, 0]))
    np.testing.assert_allclose(runs[:, 0], -50)
    np.testing.assert_allclose(runs[:, 2], -50 * 400)
    np.testing.assert_array_equal(runs[0], runs[3])
    # Of 100 draws of 10 or 20 in 50 pairs the sum of the averages is 750, give or take 5 √100/2.
    assert np.abs(runs[:3, 1] + 750).max() < 5 * 25
    assert len(np.unique(runs[:3, 1])) == 3


@pytest.mark.slow
def test_a_sweep_of_strengths_and_step_sizes():
    strengths, rates = np.float32([0.0, 1.0, 5.0]), np.float32([0.1, 0.5, 0.9])
    swept = jax.vmap(
        lambda s, lr: (
            multitask(
                quadratic,
                jnp.zeros(DIM),
                ONE_EACH,
                regularization=s,
                learning_rate=lr,
                num_steps=200,
                key=0,
            ).models
        )
    )(strengths, rates)
    for models, s in zip(swept, strengths, strict=True):
        expected = (CENTRES + s * CENTRES.mean(axis=0)) / (1 + s)
        np.testing.assert_allclose(models, expected, atol=5e-6)


@pytest.mark.slow
def test_half_precision_keeps_its_dtype():
    result = multitask(
        quadratic,
        jnp.zeros(DIM, jnp.bfloat16),
        ONE_EACH,
        regularization=jnp.float32(1.0),
        learning_rate=0.5,
        num_steps=20,
        key=0,
    )
    assert result.models.dtype == jnp.bfloat16
    expected = (CENTRES + CENTRES.mean(axis=0)) / 2
    np.testing.assert_allclose(np.asarray(result.models, np.float32), expected, atol=0.02)


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"regularization": -1.0}, ValueError, "regularization must be .* at least 0, got -1"),
        ({"regularization": math.inf}, ValueError, "regularization must be .*, got inf"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be .* above 0, got 0"),
        ({"learning_rate": "x"}, TypeError, "learning_rate must be a real number, got 'x'"),
        ({"num_steps": -1}, ValueError, "num_steps must be at least 0, got -1"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": 2}, ValueError, "batch_size 2 is more than the 1 examples"),
        ({"batch_size": 1.5}, TypeError, r"batch_size must be an integer, got 1\.5"),
    ],
)
def test_errors(settings: dict[str, Any], kind: type[Exception], message: str):
    with pytest.raises(kind, match=message):
        run(**{"regularization": 1.0} | settings)
