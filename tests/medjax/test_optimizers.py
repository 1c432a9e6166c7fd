"""The paper's algorithms by name, against its formulas."""

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

import medjax

N, NUM_STEPS = 5, 4
CENTRES = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
START = np.array([0.3, -0.2, 0.1], np.float32)


def noise_by_hand(seed: int, step: int, shape: tuple[int, ...]) -> np.ndarray:
    """The documented scheme: the stage's name, then the step, leaf and worker, are folded in."""
    stage = jax.random.fold_in(jax.random.key(seed), zlib.crc32(b"perturb"))
    key = functools.reduce(jax.random.fold_in, (step, 0), stage)
    keys = jnp.stack([jax.random.fold_in(key, worker) for worker in range(shape[0])])
    return np.asarray(_normal(keys, shape[1:]))


_normal = jax.jit(jax.vmap(jax.random.normal, (0, None)), static_argnums=1)


def assert_close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=2e-6)


def vote(g: np.ndarray, axis: int) -> np.ndarray:
    return np.sign(np.sign(g).sum(axis))


PLAIN = {"mean_sgd": np.mean, "sign_sgd": vote, "median_sgd": np.median}
RULE = PLAIN | {"noisy_sign_sgd": vote, "noisy_median_sgd": np.median}
each_alias = pytest.mark.parametrize("name", RULE)


def by_hand(name: str, lr: Callable[[int], Any], b: Callable[[int], Any], seed: int) -> np.ndarray:
    """x_1, x_2, ... by the paper's formula for f_i(x) = ‖x - a_i‖²/2, so that g_i = x - a_i."""
    iterates = [START.astype(np.float64)]
    for t in range(NUM_STEPS):
        g = iterates[-1] - CENTRES
        if name.startswith("noisy"):
            g = g + b(t) * noise_by_hand(seed, t, (N, 3))
        iterates.append(iterates[-1] - lr(t) * RULE[name](g, axis=0))
    return np.stack(iterates[1:])


def descend(tx: optax.GradientTransformation) -> jax.Array:
    """The same by optax, in a scan."""

    def step(carry: Any, _: None) -> Any:
        updates, state = tx.update(carry[0][None] - CENTRES, carry[1], carry[0])
        x = optax.apply_updates(carry[0], updates)
        return (x, state), x

    start = jnp.asarray(START)
    return jax.lax.scan(step, (start, tx.init(start)), None, NUM_STEPS)[1]


def as_float(step: Any) -> Any:
    return step.astype(float) if isinstance(step, jax.Array) else step


def settings(name: str, lr: Any, b: Any, seed: Any) -> dict[str, Any]:
    noisy = {"b": b, "key": seed} if name.startswith("noisy") else {}
    # Without `exact` signs are drawn, not noise.
    return {"learning_rate": lr} | noisy | ({"exact": True} if name == "noisy_sign_sgd" else {})


@pytest.mark.slow
@each_alias
def test_alias_is_the_papers_formula(name: str):
    alias = getattr(medjax, name)
    constant = descend(alias(**settings(name, 0.1, 0.5, 3)))
    assert_close(constant, by_hand(name, lambda t: 0.1, lambda t: 0.5, 3))
    lr, b = (lambda t: 0.1 / (as_float(t) + 1)), (lambda t: 0.5 * (as_float(t) + 1))
    scheduled = descend(alias(**settings(name, lr, b, jax.random.key(3))))
    assert_close(scheduled, by_hand(name, lr, b, 3))


@pytest.mark.slow
@each_alias
def test_injected_hyperparameters_change_between_steps(name: str):
    tx = optax.inject_hyperparams(getattr(medjax, name))(**settings(name, 9.0, 9.0, 3))
    x, state, update = jnp.asarray(START), tx.init(START), jax.jit(tx.update)
    for t in range(NUM_STEPS):
        new = settings(name, jnp.float32(0.1 * (t + 1)), jnp.float32(1 - 0.2 * t), jnp.int32(3))
        state.hyperparams.update({k: v for k, v in new.items() if k != "exact"})
        updates, state = update(x[None] - CENTRES, state, x)
        x = optax.apply_updates(x, updates)
    assert_close(x, by_hand(name, lambda t: 0.1 * (t + 1), lambda t: 1 - 0.2 * t, 3)[-1])


@pytest.mark.slow
@each_alias
def test_alias_is_swept_by_vmap(name: str):
    sweep = (np.float32([0.1, 0.2, 0.3]), np.float32([0, 0.5, 2]), np.int32([3, 4, 4]))
    run = jax.vmap(lambda *swept: descend(getattr(medjax, name)(**settings(name, *swept))))
    for actual, lr, b, seed in zip(jax.jit(run)(*sweep), *sweep, strict=True):
        assert_close(actual, by_hand(name, lambda t, v=lr: v, lambda t, v=b: v, int(seed)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "inject"),
    [("noisy_sign_sgd", False), ("noisy_median_sgd", False), ("noisy_sign_sgd", True)],
)
def test_b_may_be_one_scale_for_each_worker(name: str, inject: bool):
    alias, b = getattr(medjax, name), np.float32([0, 0.1, 0.5, 1, 2])
    alias = optax.inject_hyperparams(alias) if inject else alias
    actual = descend(alias(**settings(name, 0.1, b, 3)))
    assert_close(actual, by_hand(name, lambda t: 0.1, lambda t: b[:, None], 3))


@pytest.mark.slow
def test_noise_may_be_a_plain_function():
    normal = lambda key, shape, dtype: jax.random.normal(key, shape, dtype)  # noqa: E731
    for name in ("noisy_sign_sgd", "noisy_median_sgd"):
        alias = getattr(medjax, name)
        actual = descend(alias(noise=normal, **settings(name, 0.1, 0.5, 3)))
        assert_close(actual, by_hand(name, lambda t: 0.1, lambda t: 0.5, 3))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: medjax.noisy_sign_sgd(1.0, math.inf, key=0),
            ValueError,
            "b must .* number .* got inf",
        ),
        (lambda: medjax.noisy_sign_sgd(1.0, 0.1), TypeError, "keyword-only argument: 'key'"),
        (lambda: medjax.noisy_median_sgd(1.0, 0.1), TypeError, "keyword-only argument: 'key'"),
        (lambda: medjax.sign_sgd(1.0, tie="random"), ValueError, "give aggregate a key"),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        make()
