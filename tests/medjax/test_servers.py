"""The server's optimizers, against their formulas in NumPy."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import aggregate, rules, servers
from medjax.servers import SERVERS

STEPS = 6
# Of several sizes, signs and with zeros.
UPDATES = np.random.default_rng(0).normal(size=(STEPS, 5)) * [1e-4, 1e-2, 1, 10, 0]
START = np.float32([0.3, -0.2, 0.1, 5.0, 1.0])
B1, B2, EPS = 0.9, 0.99, 1e-3
Step = Callable[[int], float]


def sgd(lr: Step) -> np.ndarray:
    return sum(lr(t) * u for t, u in enumerate(UPDATES))


def momentum(lr: Step, momentum: float = 0.9) -> np.ndarray:
    m, moved = 0.0, 0.0
    for t, u in enumerate(UPDATES):
        m = momentum * m + u
        moved = moved + lr(t) * m
    return moved


def nesterov(lr: Step, momentum: float = 0.9) -> np.ndarray:
    m, moved = 0.0, 0.0
    for t, u in enumerate(UPDATES):
        m = momentum * m + u
        moved = moved + lr(t) * (u + momentum * m)
    return moved


def lion(lr: Step, b1: float = B1, b2: float = B2, weight_decay: float = 0.0) -> np.ndarray:
    m, moved = 0.0, 0.0
    for t, u in enumerate(UPDATES):
        moved = moved + lr(t) * (np.sign(b1 * m + (1 - b1) * u) + weight_decay * START)
        m = b2 * m + (1 - b2) * u
    return moved


def nadam(lr: Step, beta: float = 0.95) -> np.ndarray:
    """Muon's steps for what is no matrix."""
    m = v = moved = 0.0
    for t, u in enumerate(UPDATES):
        m, v = 0.9 * m + 0.1 * u, 0.999 * v + 0.001 * u**2
        first = 0.9 * m / (1 - 0.9 ** (t + 2)) + 0.1 * u / (1 - 0.9 ** (t + 1))
        moved = moved + lr(t) * first / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
    return moved


def adaptive(second: Callable[..., Any], v: float = 0.0, m: float = 0.0) -> Callable[..., Any]:
    def run(lr: Step, b1: float = B1, b2: float = B2, eps: float = EPS) -> np.ndarray:
        first, estimate, largest, moved = m, v, 0.0, 0.0
        for t, u in enumerate(UPDATES):
            first = b1 * first + (1 - b1) * u
            estimate = second(estimate, u, b2)
            corrected = estimate / (1 - b2 ** (t + 1))
            largest = np.maximum(largest, corrected)
            root = np.sqrt(largest if second is largest_so_far else corrected)
            moved = moved + lr(t) * first / (1 - b1 ** (t + 1)) / (root + eps)
        return moved

    return run


def second_moment(v: Any, u: Any, b2: float) -> Any:
    return b2 * v + (1 - b2) * u**2


def largest_so_far(v: Any, u: Any, b2: float) -> Any:
    return second_moment(v, u, b2)


def yogis(v: Any, u: Any, b2: float) -> Any:
    return v - (1 - b2) * np.sign(v - u**2) * u**2


def adagrad(lr: Step, eps: float = EPS) -> np.ndarray:
    v, moved = eps**2, 0.0
    for t, u in enumerate(UPDATES):
        v = v + u**2
        moved = moved + lr(t) * u / np.sqrt(v)
    return moved


BY_HAND: dict[str, Callable[..., Any]] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "lion": lion,
    "muon": nadam,
    "adam": adaptive(second_moment),
    "amsgrad": adaptive(largest_so_far),
    "yogi": adaptive(yogis, v=1e-6, m=1e-6),
    "adagrad": adagrad,
}
SETTINGS: dict[str, dict[str, float]] = {
    "sgd": {},
    "momentum": {"momentum": 0.5},
    "nesterov": {"momentum": 0.5},
    "lion": {"b1": 0.8, "b2": 0.9, "weight_decay": 0.1},
    "muon": {"beta": 0.5},
    "adam": {"b1": 0.8, "b2": 0.9, "eps": 0.1},
    "amsgrad": {"b1": 0.8, "b2": 0.6, "eps": 0.1},
    "yogi": {"b1": 0.8, "b2": 0.9, "eps": 0.1},
    "adagrad": {"eps": 0.1},
}
each = pytest.mark.parametrize("name", SERVERS)


def moved(tx: optax.GradientTransformation, dtype: Any = np.float32) -> Any:
    """How far the parameters go, downwards."""
    params = jnp.asarray(START, dtype)

    def step(state: Any, u: Any) -> Any:
        updates, state = tx.update(u, state, params)
        assert updates.dtype == u.dtype
        return state, updates

    _, updates = jax.lax.scan(step, tx.init(params), jnp.asarray(UPDATES, dtype))
    return -jnp.sum(updates.astype(np.float32), axis=0)


@each
def test_the_formula(name: str):
    actual = moved(SERVERS[name](0.1))
    np.testing.assert_allclose(actual, BY_HAND[name](lambda t: 0.1), rtol=2e-5, atol=1e-9)
    assert np.any(actual != 0)


@each
def test_settings_and_schedules(name: str):
    schedule = lambda t: 0.1 / (t + 1)  # noqa: E731
    actual = moved(SERVERS[name](schedule, **SETTINGS[name]))
    expected = BY_HAND[name](schedule, **SETTINGS[name])
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=1e-9)


@each
def test_all_settings_may_be_traced_even_in_half_precision(name: str):
    rates, settings = np.float32([0.1, 0.5]), SETTINGS[name]

    def run(lr: Any, values: list[Any], dtype: Any) -> Any:
        return moved(SERVERS[name](lr, **dict(zip(settings, values, strict=True))), dtype)

    traced = [np.full(2, value, np.float32) for value in settings.values()]
    for dtype, tolerance in ((np.float32, 2e-5), (jnp.bfloat16, 2**-5)):
        swept = jax.vmap(lambda lr, values, dtype=dtype: run(lr, values, dtype))(rates, traced)
        for actual, lr in zip(swept, rates, strict=True):
            expected = BY_HAND[name](lambda t, lr=float(lr): lr, **settings)
            # Bits lost in a sum are those of its largest term.
            size = np.abs(UPDATES).max(axis=0) if name in ("sgd", "momentum", "nesterov") else 1
            assert (np.abs(actual - expected) <= tolerance * (size + np.abs(expected))).all()


@each
def test_in_float32_it_is_optaxs(name: str):
    plain = {
        "sgd": optax.sgd(0.1),
        "momentum": optax.sgd(0.1, 0.9),
        "nesterov": optax.sgd(0.1, 0.9, nesterov=True),
        "lion": optax.lion(0.1, B1, B2, weight_decay=0.0),
        "muon": optax.contrib.muon(0.1),
        "adam": optax.adam(0.1, B1, B2, EPS),
        "amsgrad": optax.amsgrad(0.1, B1, B2, EPS),
        "yogi": optax.yogi(0.1, B1, B2, EPS),
        "adagrad": optax.adagrad(0.1, EPS**2, 0.0),
    }[name]
    with jax.numpy_dtype_promotion("standard"):  # on which optax relies
        expected = moved(plain)
    np.testing.assert_array_equal(moved(SERVERS[name](0.1)), expected)


@each
def test_after_a_rule(name: str):
    server = SERVERS[name](0.1)
    tx = optax.chain(aggregate(rules.median()), server)
    g = {"w": np.float32([[1.0, 2.0], [3.0, -5.0], [2.0, 9.0]])}
    params = {"w": jnp.ones(2)}
    updates, _ = tx.update(g, tx.init(params), params)
    expected, _ = server.update({"w": jnp.array([2.0, 2.0])}, server.init(params), params)
    np.testing.assert_array_equal(updates["w"], expected["w"])


@pytest.mark.slow
def test_muon_makes_matrices_nearly_orthogonal():
    u = np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32)
    tx = servers.muon(0.1)
    step, _ = tx.update(jnp.asarray(u), tx.init(jnp.zeros((2, 5))), jnp.zeros((2, 5)))
    values = np.linalg.svd(u / np.linalg.norm(u), compute_uv=False)
    left, _, right = np.linalg.svd(u, full_matrices=False)
    for _ in range(5):  # on the singular values alone, as the polynomial is odd
        values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
    expected = -0.1 * math.sqrt(5 / 2) * (left * values) @ right
    np.testing.assert_allclose(step, expected, atol=1e-4)


@pytest.mark.slow
def test_fedadam_of_local_steps_does_not_depend_on_the_local_step_size_but_for_eps():
    # The workers send (x - x_i^K)/γ, of the gradients' size whatever γ: f_i(x) = ‖x - a_i‖²/2.
    data = medjax.stack_workers(np.float32([1.0, 2.0, 6.0]), [[0], [1], [2]])

    def run(gamma: float) -> Any:
        tx = optax.chain(aggregate(rules.mean()), servers.adam(0.1))
        objective = lambda x, a: ((x - a) ** 2 / 2, {})  # noqa: E731
        settings = dict(num_steps=1, key=0, local_steps=2, local_lr=gamma)
        return medjax.simulate(objective, 0.0, data, tx, **settings).params

    for gamma in (0.1, 0.001):
        sent = 3 + 3 * (1 - gamma)  # the mean is 3: gradients 3 and (1 - γ) 3
        np.testing.assert_allclose(run(gamma), 0.1 * sent / (sent + 1e-3), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: servers.momentum(0.1, 1.0), ValueError, "momentum must be below 1, got 1"),
        (lambda: servers.momentum(0.1, -1.0), ValueError, "momentum must be .* 0, got -1"),
        (lambda: servers.adam(0.1, b1=1.0), ValueError, "b1 must be below 1, got 1"),
        (lambda: servers.amsgrad(0.1, b2=1.5), ValueError, r"b2 must be below 1, got 1\.5"),
        (lambda: servers.yogi(0.1, eps=0.0), ValueError, "eps must be .* above 0, got 0"),
        (lambda: servers.adagrad(0.1, eps=math.inf), ValueError, "eps must be .*, got inf"),
        (lambda: servers.adam(0.1, b1="x"), TypeError, "b1 must be a real number, got 'x'"),
    ],
)
def test_errors(make: Any, kind: type[Exception], message: str):
    with pytest.raises(kind, match=message):
        make()
