"""Objectives that draw random numbers: a key for each worker and step, none for measuring."""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import aggregate, multitask, rules
from medjax._engine.participation import draw_participants
from medjax._engine.random import stage_key
from medjax.objectives import classification, language_modelling

N, DIM, LR = 5, 3, 0.25
CENTRES = np.random.default_rng(0).normal(size=(N, DIM)).astype(np.float32)
DATA = medjax.stack_workers(CENTRES, np.arange(N)[:, None])
START = np.float32([0.3, -0.2, 0.1])


def quadratic(x: Any, a: Any) -> Any:
    """f_i(x) = ‖x - a_i‖²/2, so that g_i = x - a_i."""
    return jnp.sum((x[None] - a) ** 2, axis=-1) / 2, {"first": a[..., 0]}


def scaled(x: Any, a: Any, key: Any) -> Any:
    """The same, times a number from 0 to 1 that the key draws."""
    losses, metrics = quadratic(x, a)
    return losses * (1.0 if key is None else jax.random.uniform(key)), metrics


def scale(seed: int, step: int, worker: int, local_step: int = 0, loop: str = "simulate") -> float:
    """The number by hand: a function of the key, step, local step and worker."""

    def fold(key: jax.Array, *path: str | int) -> jax.Array:
        for x in path:
            key = jax.random.fold_in(key, zlib.crc32(x.encode()) if isinstance(x, str) else x)
        return key

    key = fold(jax.random.key(seed), loop)
    if loop == "multitask":
        return float(jax.random.uniform(fold(key, step, "objective", worker)))
    path = (step,) if local_step == 0 else ("local_steps", step, local_step)
    return float(jax.random.uniform(fold(key, "objective", *path, worker)))


def keep(n: int = N) -> optax.GradientTransformation:
    """A stage that keeps what the workers sent in the last step."""
    return optax.GradientTransformation(
        lambda params: jnp.zeros((n, DIM)), lambda updates, state, params=None: (updates, updates)
    )


def server(rule: Any) -> optax.GradientTransformation:
    return optax.chain(aggregate(rule), optax.sgd(LR))


def final(objective: Any, optimizer: Any, num_steps: int = 3, seed: int = 4, **settings: Any):
    parts = medjax.simulation(objective, optimizer, **settings)
    return jax.jit(parts.advance)(parts.init(START, seed), DATA, num_steps)


RULES: dict[str, tuple[Any, Any]] = {
    "mean": (rules.mean(), np.mean),
    "mean(weights)": (
        rules.mean(1 + np.arange(N)),
        lambda g, axis: np.average(g, axis, weights=1 + np.arange(N)),
    ),
    "median": (rules.median(), np.median),
}


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [None, 1, 2])
@pytest.mark.parametrize("name", RULES)
def test_each_worker_and_step_has_its_own_draw(name: str, chunk: int | None):
    rule, by_hand = RULES[name]
    x, seen = START.astype(np.float64), set()
    for t in range(3):
        scales = np.array([scale(4, t, i) for i in range(N)])
        seen |= set(scales)
        x = x - LR * by_hand(scales[:, None] * (x - CENTRES), axis=0)
    assert len(seen) == 3 * N
    state = final(scaled, server(rule), worker_chunk=chunk)
    np.testing.assert_allclose(state.params, x, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_run_is_a_function_of_the_key():
    optimizer = optax.chain(keep(), server(rules.mean()))
    one, same, other = (final(scaled, optimizer, 1, seed=seed) for seed in (4, 4, 5))
    for a, b in zip(one.opt_state[0], same.opt_state[0], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(one.params, same.params)
    factors = [np.asarray(run.opt_state[0]) / (START - CENTRES) for run in (one, other)]
    for seed, factor in zip((4, 5), factors, strict=True):
        expected = [scale(seed, 0, i) for i in range(N)]
        np.testing.assert_allclose(factor, np.tile(expected, (DIM, 1)).T, rtol=1e-5)
    assert len(np.unique(np.round(factors, 4))) == 2 * N  # all workers of both runs differ


@pytest.mark.slow
def test_measuring_is_deterministic():
    def metrics(objective: Any, seed: int) -> Any:
        return medjax.simulate(
            objective,
            START,
            DATA,
            server(rules.median()),
            num_steps=2,
            eval_every=1,
            key=seed,
            test_data=jnp.asarray(CENTRES[:2]),
        ).metrics

    one, other = metrics(scaled, 4), metrics(scaled, 5)
    # Before the first step all parameters are the same, and no draw is in the metrics.
    plain = metrics(quadratic, 4)
    assert set(one) == set(plain)
    for name, values in plain.items():
        np.testing.assert_array_equal(one[name][0], values[0], err_msg=name)
        np.testing.assert_array_equal(other[name][0], values[0], err_msg=name)
    x, g = START.astype(np.float64), START - CENTRES.astype(np.float64)
    np.testing.assert_allclose(one["train_loss"][0], (g**2).sum(axis=1).mean() / 2, rtol=1e-6)
    np.testing.assert_allclose(one["grad_norm"][0], np.linalg.norm(g.mean(axis=0)), rtol=1e-6)
    test_loss = ((x - CENTRES[:2]) ** 2).sum(axis=1).mean() / 2
    np.testing.assert_allclose(one["test_loss"][0], test_loss, rtol=1e-6)


@pytest.mark.slow
def test_every_local_step_draws_anew():
    x = START.astype(np.float64)
    for t in range(2):
        models = []
        for i in range(N):
            own = x
            for k in range(3):
                own = own - 0.5 * scale(4, t, i, k) * (own - CENTRES[i])
            models.append(own)
        x = np.mean(models, axis=0)
    optimizer = medjax.mean_sgd(0.5)
    for chunk in (None, 2):
        settings = dict(local_steps=3, local_lr=0.5, worker_chunk=chunk)
        state = final(scaled, optimizer, 2, **settings)
        np.testing.assert_allclose(state.params, x, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["mean", "median"])
def test_the_draw_of_a_worker_does_not_depend_on_who_else_is_there(rule: str):
    built, by_hand = RULES[rule]
    x = START.astype(np.float64)
    for t in range(4):
        cohort = draw_participants(stage_key(4, "simulate"), jnp.int32(t), N, 3, 1)
        scales = np.array([scale(4, t, int(i)) for i in cohort])
        x = x - LR * by_hand(scales[:, None] * (x - CENTRES[cohort]), axis=0)
    state = final(scaled, server(built), 4, participants=3, always=1)
    np.testing.assert_allclose(state.params, x, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_mini_batches_are_those_of_an_objective_that_does_not_draw():
    data = medjax.stack_workers(CENTRES, [[0, 1], [2, 3, 4]])

    def run(objective: Any) -> Any:
        optimizer = optax.chain(keep(2), server(rules.median()))
        parts = medjax.simulation(objective, optimizer, batch_size=2)
        return jax.jit(parts.advance)(parts.init(START, 4), data, 5)

    plain, drawing = run(quadratic), run(lambda x, a, *, key: quadratic(x, a))
    np.testing.assert_allclose(drawing.opt_state[0], plain.opt_state[0], rtol=1e-6)
    np.testing.assert_allclose(drawing.params, plain.params, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("strength", [0.0, 2.0])
def test_with_a_model_for_each_worker(strength: float):
    models = np.tile(START.astype(np.float64), (N, 1))
    for t in range(3):
        scales = np.array([scale(4, t, i, loop="multitask") for i in range(N)])
        v = models - LR * scales[:, None] * (models - CENTRES)
        models = v.mean(axis=0) + (v - v.mean(axis=0)) / (1 + LR * strength)
    result = multitask(
        scaled, START, DATA, regularization=strength, learning_rate=LR, num_steps=3, key=4
    )
    np.testing.assert_allclose(result.models, models, rtol=1e-5, atol=1e-6)
    losses = ((models - CENTRES) ** 2).sum(axis=1) / 2  # without a draw
    np.testing.assert_allclose(result.metrics["loss"], losses, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("make", [classification, language_modelling])
def test_a_models_apply_is_given_the_key(make: Any):
    # Logits of 2 classes for 4 examples: at each of 3 places of a window, or one pair for each.
    shape = (4, 3) if make is language_modelling else (4,)
    labels = jnp.asarray(np.random.default_rng(1).integers(0, 2, shape), jnp.int32)
    inputs = jnp.asarray(np.random.default_rng(2).normal(size=(*shape, 2)), jnp.float32)

    def apply(w: Any, x: Any, key: Any) -> Any:
        return w * x * (1.0 if key is None else jax.random.uniform(key))

    objective, plain = make(apply), make(lambda w, x: w * x)
    key = jax.random.key(7)
    for given, factor in ((None, 1.0), (key, jax.random.uniform(key))):
        losses, metrics = objective(3.0, (inputs, labels), key=given)
        expected, others = plain(3.0 * factor, (inputs, labels))
        np.testing.assert_allclose(losses, expected, rtol=1e-6)
        np.testing.assert_allclose(metrics["accuracy"], others["accuracy"], rtol=1e-6)
