"""Objectives with a state of each worker, here a running mean of its inputs; against NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import aggregate, attacks, multitask, rules
from medjax._engine.participation import draw_participants
from medjax._engine.random import stage_key
from medjax.objectives import Stateful, classification, language_modelling
from medjax.training._local import sample_batches

N, ROWS, DIM, LR = 5, 4, 3, 0.25
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(1, 1, size=(N, ROWS, DIM)).astype(np.float32)
DATA = medjax.stack_workers(INPUTS.reshape(-1, DIM), np.arange(N * ROWS).reshape(N, ROWS))
START = np.float32([0.3, -0.2, 0.1])
TEST = RNG.normal(size=(6, DIM)).astype(np.float32)


def centred(x: Any, state: Any, batch: Any, key: Any) -> Any:
    """f_i(x) is the average of ‖x - (a - m_i)‖²/2, for the running mean m_i of worker i's a."""
    mean = state["mean"]
    losses = jnp.sum((x[None] - (batch - mean[None])) ** 2, axis=-1) / 2
    others = {
        "mean": jnp.broadcast_to(mean[0], losses.shape),
        "steps": jnp.broadcast_to(state["steps"].astype(float), losses.shape),
    }
    new = {
        "mean": 0.75 * mean + 0.25 * batch.mean(axis=0),
        "steps": state["steps"] + (0 if key is None else 1),
    }
    return losses, others, new


OBJECTIVE = Stateful(centred, {"mean": jnp.full(DIM, 0.5), "steps": jnp.int32(0)})


class Workers:
    """The workers by hand: their states, and what they send from common or own parameters."""

    def __init__(self) -> None:
        self.means, self.steps = np.full((N, DIM), 0.5), np.zeros(N, int)

    def send(self, x: np.ndarray, i: int, batch: np.ndarray | None = None) -> np.ndarray:
        """The gradient at x, with the state before the step; then the state moves on."""
        batch_mean = (INPUTS[i] if batch is None else batch).mean(axis=0, dtype=np.float64)
        gradient = x - (batch_mean - self.means[i])
        self.means[i] = 0.75 * self.means[i] + 0.25 * batch_mean
        self.steps[i] += 1
        return gradient

    def metrics(self, x: np.ndarray, honest: Any = slice(N)) -> dict[str, float]:
        apart = (x - (INPUTS - self.means[:, None]))[honest]
        g = apart.mean(axis=1)
        average = self.means[honest].mean(axis=0)
        return {
            "train_loss": (apart**2).sum(axis=2).mean() / 2,
            "train_mean": self.means[honest, 0].mean(),
            "train_steps": self.steps[honest].mean(),
            "grad_norm": np.linalg.norm(g.mean(axis=0)),
            "median_mean_gap": np.linalg.norm(np.median(g, axis=0) - g.mean(axis=0)),
            "test_loss": ((x - (TEST - average)) ** 2).sum(axis=1).mean() / 2,
            "test_mean": average[0],
            "test_steps": self.steps[honest][0],  # integers aren't averaged
        }

    def assert_states(self, states: Any) -> None:
        np.testing.assert_allclose(states["mean"], self.means, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(states["steps"], self.steps)


def server(rule: Any) -> optax.GradientTransformation:
    return optax.chain(aggregate(rule), optax.sgd(LR))


def run(optimizer: Any, num_steps: int = 3, **settings: Any) -> Any:
    return jax.jit(
        lambda data: medjax.simulate(
            OBJECTIVE,
            START,
            data,
            optimizer,
            num_steps=num_steps,
            eval_every=1,
            key=4,
            test_data=jnp.asarray(TEST),
            **settings,
        )
    )(DATA)


def assert_metrics(metrics: Any, expected: list[dict[str, float]]) -> None:
    assert set(metrics) == {*expected[0], "nonfinite_workers"}
    for t, values in enumerate(expected):
        for name, value in values.items():
            np.testing.assert_allclose(metrics[name][t], value, rtol=1e-5, err_msg=f"{name} {t}")


RULES: dict[str, tuple[Any, Any]] = {
    "mean": (rules.mean(), np.mean),
    "mean(weights)": (
        rules.mean(1 + np.arange(N)),
        lambda g, axis: np.average(g, axis, weights=1 + np.arange(N)),
    ),
    "median": (rules.median(), np.median),
    "vote": (rules.majority_vote(), lambda g, axis: np.sign(np.sign(g).sum(axis))),
}


@pytest.mark.slow
@pytest.mark.parametrize("streaming", ["auto", "off"])
@pytest.mark.parametrize("name", RULES)
def test_all_workers(name: str, streaming: Any):
    rule, by_hand = RULES[name]
    x, workers, expected = START.astype(np.float64), Workers(), []
    for _ in range(3):
        expected.append(workers.metrics(x))
        x = x - LR * by_hand([workers.send(x, i) for i in range(N)], axis=0)
    expected.append(workers.metrics(x))
    result = run(server(rule), streaming=streaming)
    np.testing.assert_allclose(result.params, x, rtol=1e-5, atol=1e-6)
    workers.assert_states(result.model_state)
    assert_metrics(result.metrics, expected)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["mean", "median"])
def test_the_state_of_absent_workers_stays(rule: str):
    built, by_hand = RULES[rule]
    parts = medjax.simulation(OBJECTIVE, server(built), participants=3, always=1)
    advance, evaluate = jax.jit(parts.advance), jax.jit(parts.evaluate)
    state = parts.init(START, 4, N)
    x, workers = START.astype(np.float64), Workers()
    for t in range(4):
        cohort = draw_participants(stage_key(4, "simulate"), jnp.int32(t), N, 3, 1)
        before = jax.tree.map(np.asarray, state.model_state)
        state = advance(state, DATA, 1)
        away = np.setdiff1d(range(N), cohort)
        for name, values in before.items():
            np.testing.assert_array_equal(state.model_state[name][away], values[away])
        x = x - LR * by_hand([workers.send(x, int(i)) for i in cohort], axis=0)
        np.testing.assert_allclose(state.params, x, rtol=1e-5, atol=1e-6)
        workers.assert_states(state.model_state)
        metrics = evaluate(state, DATA, {"test": jnp.asarray(TEST)})
        assert_metrics({k: v[None] for k, v in metrics.items()}, [workers.metrics(x)])
    assert len(set(workers.steps)) > 1


@pytest.mark.slow
def test_local_steps_move_the_state_too():
    x, workers = START.astype(np.float64), Workers()
    for _ in range(2):
        models = []
        for i in range(N):
            own = x
            for _ in range(3):
                own = own - 0.5 * workers.send(own, i)
            models.append(own)
        x = np.mean(models, axis=0)
    result = run(medjax.mean_sgd(0.5), 2, local_steps=3, local_lr=0.5)
    np.testing.assert_allclose(result.params, x, rtol=1e-5, atol=1e-6)
    workers.assert_states(result.model_state)
    assert workers.steps.tolist() == [6] * N


@pytest.mark.slow
def test_local_steps_of_participants():
    x, workers = START.astype(np.float64), Workers()
    for t in range(3):
        cohort, sent = draw_participants(stage_key(4, "simulate"), jnp.int32(t), N, 2, 0), []
        for i in map(int, cohort):
            own = x
            for _ in range(2):
                own = own - 0.5 * workers.send(own, i)
            sent.append((x - own) / 0.5)
        x = x - LR * np.mean(sent, axis=0)
    result = run(server(rules.mean()), participants=2, local_steps=2, local_lr=0.5)
    np.testing.assert_allclose(result.params, x, rtol=1e-5, atol=1e-6)
    workers.assert_states(result.model_state)


@pytest.mark.slow
def test_mini_batches_make_the_state():
    key = stage_key(4, "simulate")
    x, workers = START.astype(np.float64), Workers()
    for t in range(3):
        batches = sample_batches(DATA, 2, jax.random.fold_in(key, t), jnp.arange(N)).examples
        x = x - LR * np.mean([workers.send(x, i, np.asarray(batches[i])) for i in range(N)], axis=0)
    result = run(server(rules.mean()), batch_size=2)
    np.testing.assert_allclose(result.params, x, rtol=1e-5, atol=1e-6)
    workers.assert_states(result.model_state)


@pytest.mark.slow
def test_held_out_data_are_measured_with_the_honest_workers_states():
    stage = medjax.attack(attacks.ipm(tau=1.0), 2, byzantine=(0, 3))
    x, workers, expected, honest = START.astype(np.float64), Workers(), [], [1, 2, 4]
    for _ in range(2):
        expected.append(workers.metrics(x, honest))
        g = np.stack([workers.send(x, i) for i in range(N)])[honest]
        x = x - LR * (g.sum(axis=0) - 2 * g.mean(axis=0)) / N
    expected.append(workers.metrics(x, honest))
    result = run(optax.chain(stage, server(rules.mean())), 2)
    assert_metrics(result.metrics, expected)
    workers.assert_states(result.model_state)  # those of the Byzantine workers too


@pytest.mark.slow
@pytest.mark.parametrize("strength", [0.0, 2.0])
def test_with_a_model_for_each_worker(strength: float):
    models, workers = np.tile(START.astype(np.float64), (N, 1)), Workers()
    for _ in range(3):
        v = np.stack([w - LR * workers.send(w, i) for i, w in enumerate(models)])
        models = v.mean(axis=0) + (v - v.mean(axis=0)) / (1 + LR * strength)
    result = multitask(
        OBJECTIVE, START, DATA, regularization=strength, learning_rate=LR, num_steps=3, key=4
    )
    np.testing.assert_allclose(result.models, models, rtol=1e-5, atol=1e-6)
    workers.assert_states(result.model_state)
    apart = models[:, None] - (INPUTS - workers.means[:, None])
    np.testing.assert_allclose(
        result.metrics["loss"], (apart**2).sum(axis=2).mean(axis=1) / 2, rtol=1e-5
    )
    np.testing.assert_allclose(result.metrics["mean"], workers.means[:, 0], rtol=1e-5)


@pytest.mark.slow
def test_a_run_in_parts_equals_the_run_in_one():
    parts = medjax.simulation(OBJECTIVE, server(rules.median()))
    advance = jax.jit(parts.advance)
    state = advance(advance(parts.init(START, 4, N), DATA, 2), DATA, 1)
    result = run(server(rules.median()))
    np.testing.assert_allclose(state.params, result.params, rtol=1e-6)
    np.testing.assert_allclose(state.model_state["mean"], result.model_state["mean"], rtol=1e-6)


def test_python_floats_as_states_do_not_compile_advance_twice():
    objective = Stateful(lambda x, s, a, key: (*centred_by(x, s, a), 0.5 * s + 0.5 * a.mean()), 0.5)
    parts = medjax.simulation(objective, medjax.mean_sgd(0.1))
    advance = jax.jit(parts.advance)
    state = advance(advance(parts.init(START, 4, N), DATA, 1), DATA, 1)
    assert advance._cache_size() == 1
    by_hand = 0.25 * 0.5 + 0.75 * INPUTS.mean(axis=(1, 2))
    np.testing.assert_allclose(state.model_state, by_hand, rtol=1e-5)


def centred_by(x: Any, mean: Any, a: Any) -> Any:
    return jnp.sum((x[None] - (a - mean)) ** 2, axis=-1) / 2, {}


def test_errors():
    message = "streaming isn't possible: the objective has a state of every worker"
    with pytest.raises(ValueError, match=message):
        run(medjax.mean_sgd(0.1), streaming="require")
    parts = medjax.simulation(OBJECTIVE, medjax.mean_sgd(0.1))
    with pytest.raises(TypeError, match="num_workers must be an integer, got None"):
        parts.init(START, 0)
    for settings in ({}, {"participants": 2}):
        parts = medjax.simulation(OBJECTIVE, medjax.mean_sgd(0.1), **settings)
        with pytest.raises(ValueError, match="the model state is built for 4 workers, there are 5"):
            parts.advance(parts.init(START, 0, 4), DATA, 1)


@pytest.mark.slow
@pytest.mark.parametrize("make", [classification, language_modelling])
def test_a_models_apply_is_given_state_and_key(make: Any):
    shape = (4, 3) if make is language_modelling else (4,)
    labels = jnp.asarray(np.random.default_rng(1).integers(0, 2, shape), jnp.int32)
    inputs = jnp.asarray(np.random.default_rng(2).normal(size=(*shape, 2)), jnp.float32)

    def apply(w: Any, state: Any, x: Any, key: Any) -> Any:
        return w * (x - state), state + x.sum() + (0 if key is None else 100)

    objective, plain = make(apply, state=jnp.float32(2.0)), make(lambda w, x: w * x)
    assert objective.state == 2
    for key, added in ((None, 0), (jax.random.key(0), 100)):
        losses, metrics, state = objective.function(3.0, jnp.float32(0.5), (inputs, labels), key)
        expected, others = plain(3.0, (inputs - 0.5, labels))
        np.testing.assert_array_equal(losses, expected)
        np.testing.assert_array_equal(metrics["accuracy"], others["accuracy"])
        np.testing.assert_allclose(state, 0.5 + inputs.sum() + added, rtol=1e-6)
