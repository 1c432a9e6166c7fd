"""Plain functions as noise, in `perturb` and in `noisy_sign`."""

import functools
import math
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import medjax
from medjax import aggregate, noise, noisy_sign, perturb, rules

N = 5
X = np.random.default_rng(0).normal(size=(N, 6)).astype(np.float32)


def coin(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """-1 or 1 with even odds, of mean 0 and variance 1."""
    return jax.random.rademacher(key, shape, dtype)


def key_by_hand(stage: str, seed: int, *path: int) -> jax.Array:
    """The documented scheme: the stage's name, then the step, leaf and worker, are folded in."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(stage.encode()))
    return functools.reduce(jax.random.fold_in, path, key)


def draws(stage: str, seed: int, step: int, leaf: int, shape: tuple[int, ...]) -> np.ndarray:
    """The coins of all workers, each drawn for its flat leaf."""
    size = math.prod(shape[1:])
    keys = [key_by_hand(stage, seed, step, leaf, i) for i in range(shape[0])]
    flat = [jax.random.rademacher(key, (size,), jnp.float32) for key in keys]
    return np.stack(flat).reshape(shape)


def steps(tx: optax.GradientTransformation, updates: Any = X, num_steps: int = 1) -> list[Any]:
    state, outs, update = tx.init(None), [], jax.jit(tx.update)
    for _ in range(num_steps):
        out, state = update(updates, state)
        outs.append(out)
    return outs


@pytest.mark.slow
def test_perturb_adds_what_the_function_draws():
    g = {"a": np.ones((N, 2, 3), np.float32), "b": [X, X[:, 0]]}
    for function in (coin, jax.jit(coin, static_argnums=(1, 2)), jax.random.rademacher):
        for t, out in enumerate(steps(perturb(0.5, function, key=7), g, 2)):
            for leaf, (sent, x) in enumerate(zip(*map(jax.tree.leaves, (out, g)), strict=True)):
                xi = draws("perturb", 7, t, leaf, x.shape)
                np.testing.assert_allclose(sent, x + 0.5 * xi, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_a_function_equals_the_built_noise():
    built = noise.logistic()

    def plain(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return built.sample(key, shape, dtype)

    for dtype in (jnp.float32, jnp.bfloat16):
        g = jnp.asarray(X, dtype)
        ((actual,), (expected,)) = (steps(perturb(0.5, xi, key=1), g) for xi in (plain, built))
        assert actual.dtype == dtype
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.slow
def test_the_function_is_given_the_dtype_and_its_draws_are_cast_to_it():
    given = []

    def wide(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        given.append((shape, jnp.dtype(dtype)))
        return jax.random.normal(key, shape) / 3

    half = jnp.asarray(X, jnp.bfloat16)
    (out,) = steps(perturb(1.0, wide, key=0), {"a": half.reshape(N, 2, 3), "b": X[:, 0]})
    assert set(given) == {((6,), jnp.dtype(jnp.bfloat16)), ((1,), jnp.dtype(jnp.float32))}
    assert out["a"].dtype == jnp.bfloat16
    keys = [key_by_hand("perturb", 0, 0, 0, i) for i in range(N)]
    xi = np.stack([(jax.random.normal(key, (6,)) / 3).astype(jnp.bfloat16) for key in keys])
    np.testing.assert_array_equal(out["a"].reshape(N, 6), half + xi)


@pytest.mark.slow
def test_scales_schedules_and_sweeps():
    xi = [draws("perturb", 0, t, 0, X.shape) for t in range(3)]
    for t, out in enumerate(
        steps(perturb(lambda t: 0.5 * (t.astype(float) + 1), coin, key=0), X, 3)
    ):
        np.testing.assert_allclose(out, X + 0.5 * (t + 1) * xi[t], rtol=1e-6, atol=1e-6)
    bs = np.float32([0, 0.1, 10])
    swept = jax.jit(jax.vmap(lambda b: steps(perturb(b, coin, key=0))[0]))(bs)
    np.testing.assert_allclose(swept, X + bs[:, None, None] * xi[0], rtol=1e-6, atol=1e-6)
    each = np.float32([0, 1, 2, 3, 4])
    (out,) = steps(perturb(each, coin, key=0))
    np.testing.assert_allclose(out, X + each[:, None] * xi[0], rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_noisy_sign_is_the_sign_of_the_sum():
    g = {"a": X.reshape(N, 2, 3), "b": X[:, 0]}
    for t, out in enumerate(steps(noisy_sign(0.5, coin, key=7), g, 2)):
        for leaf, (signs, x) in enumerate(zip(*map(jax.tree.leaves, (out, g)), strict=True)):
            xi = draws("noisy_sign", 7, t, leaf, x.shape)
            assert (signs.shape, signs.dtype) == (x.shape, x.dtype)
            np.testing.assert_array_equal(signs, np.sign(x + np.float32(0.5) * xi))


@pytest.mark.slow
def test_noisy_sign_without_noise_and_of_special_numbers():
    g = np.float32([[0, -0.0, np.nan, np.inf, -np.inf, 1e-30, -3e38, 2]] * 3)
    (out,) = steps(noisy_sign(0.0, jax.random.normal, key=0), g)
    np.testing.assert_array_equal(out, np.sign(g))
    (out,) = steps(noisy_sign(0.5, jax.random.normal, key=0), g)
    np.testing.assert_array_equal(out[:, 2:5], [[np.nan, 1, -1]] * 3)
    np.testing.assert_array_equal(out[:, 6], [-1] * 3)


BUILT_AND_PLAIN = {
    "normal": (noise.normal(), jax.random.normal),
    "laplace": (
        noise.laplace(),
        lambda key, shape, dtype: jax.random.laplace(key, shape, dtype) / math.sqrt(2),
    ),
    "uniform": (
        noise.uniform(),
        lambda key, shape, dtype: jax.random.uniform(
            key, shape, dtype, -math.sqrt(3), math.sqrt(3)
        ),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT_AND_PLAIN)
def test_signs_are_distributed_as_those_of_the_built_noise(name: str):
    n, d = 7, 30_000
    worker = np.linspace(-1, 1.2, n)[:, None, None] * np.array([1.0, 0.3])[:, None]
    g = jnp.broadcast_to(jnp.float32(worker), (n, 2, d))
    signs = [steps(noisy_sign(1.0, xi, key=5), g)[0] for xi in BUILT_AND_PLAIN[name]]
    signs = np.asarray(signs)
    assert set(np.unique(signs)) == {-1, 1}
    # Worker by worker, and the votes of all, -7, -5, ..., 7.
    for i in range(n):
        plus = np.sum(signs[:, i] == 1, axis=-1)
        for j in range(2):
            assert stats.chi2_contingency([plus[:, j], d - plus[:, j]]).pvalue > 1e-4
    votes = ((signs.sum(axis=1) + n) / 2).astype(int)
    for j in range(2):
        table = np.stack([np.bincount(votes[k, j], minlength=n + 1) for k in range(2)])
        assert stats.chi2_contingency(table).pvalue > 1e-4


@pytest.mark.slow
def test_signs_of_one_scale_for_each_worker():
    scales = np.float32([0, 0.1, 0.5, 2, 30])
    for xi in BUILT_AND_PLAIN["laplace"]:
        (out,) = steps(noisy_sign(scales, xi, key=3))
        traced = jax.jit(lambda b, xi=xi: steps(noisy_sign(b, xi, key=3))[0])
        # Worker i's signs are those that all would get of b_i.
        np.testing.assert_array_equal(out, np.stack([traced(b)[i] for i, b in enumerate(scales)]))
        np.testing.assert_array_equal(out[0], np.sign(X[0]))
        np.testing.assert_array_equal(traced(scales), out)
        scheduled = steps(noisy_sign(lambda t: scales * t.astype(float), xi, key=3), X, 2)
        np.testing.assert_array_equal(scheduled[0], np.sign(X))
        assert np.any(scheduled[1] != np.sign(X))


@pytest.mark.slow
def test_it_is_streamed_before_a_vote():
    # The gradients of f_i(w) = ‖w - x_i‖²/2 at 0 are -x_i.
    objective = lambda w, x: (jnp.sum((w[None] - x) ** 2, axis=1) / 2, {})  # noqa: E731
    data = medjax.stack_workers(X, np.arange(N)[:, None])
    signs = np.sign(-X + np.float32(0.5) * draws("noisy_sign", 1, 0, 0, X.shape))
    vote = np.sign(signs.sum(axis=0))
    tx = optax.chain(noisy_sign(0.5, coin, key=1), aggregate(rules.majority_vote()), optax.sgd(1.0))
    for settings in ({"worker_chunk": 2, "streaming": "require"}, {"streaming": "off"}):
        run = medjax.simulate(objective, jnp.zeros(6), data, tx, num_steps=1, key=0, **settings)
        np.testing.assert_array_equal(run.params, -vote)


def too_few(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return jax.random.normal(key, (2,), dtype)


@pytest.mark.parametrize("stage", [perturb, noisy_sign])
@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (too_few, ValueError, r"^noise too_few must draw shape \(6,\), got shape \(2,\)"),
        (lambda key, shape, dtype: 0.5, ValueError, r"must draw shape \(6,\), got shape \(\)"),
        (
            lambda key, shape: jnp.ones(shape),
            TypeError,
            r"^noise <lambda> must take 3 arguments, it takes \(key, shape\)$",
        ),
        (noise.normal, TypeError, "noise must be built, .* got <function normal"),
        (noise.student_t, TypeError, "noise must be built, .* got <function student_t"),
        (noise.Noise, TypeError, "noise must be built, .* got <class 'medjax.*Noise'"),
        (medjax.attacks.alie(), TypeError, r"noise must be built, .* got Attack\("),
        ("normal", TypeError, r"^noise must be built, such as .*, or a .* function; got 'normal'$"),
        (0.5, TypeError, "noise must be built, such as .*, or a plain function; got 0.5"),
    ],
)
def test_errors(stage: Callable[..., Any], function: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        steps(stage(1.0, function, key=0))


@pytest.mark.parametrize("stage", [perturb, noisy_sign])
def test_errors_of_scales_and_keys(stage: Callable[..., Any]):
    with pytest.raises(
        ValueError, match=r"^b must be one number or .* 5 workers, got shape \(2,\)"
    ):
        steps(stage(np.ones(2), coin, key=0))
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'key'"):
        stage(0.1, coin)
