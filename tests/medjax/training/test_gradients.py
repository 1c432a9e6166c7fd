"""The gradient of the workers' mean, in one piece or several, and how the workers are cut up."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import medjax
from medjax.training.gradients import (
    _even_parts,
    local_gradients,
    promised_gradients,
    take_workers,
    weighted_gradient,
)
from medjax.objectives import classification

# Workers of 1, 3, 7, 2, 5 and 6 examples: 7 rows each, 42 in all, some of them padding.
RNG = np.random.default_rng(0)
N, INPUTS, LABELS = 6, RNG.normal(size=(24, 4)), RNG.integers(0, 3, 24)
PARTS = np.split(RNG.permutation(24), [1, 4, 11, 13, 18])
WEIGHTS = np.array([0.1, 0.3, 0.0, 0.25, 0.15, 0.2], np.float32)


def network(params: Any, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["w"]) @ params["v"] + params["c"]


objective = classification(network)
shapes = {"w": (4, 8), "v": (8, 3), "c": (3,)}
PARAMS = {k: jnp.asarray(RNG.normal(size=shape), jnp.float32) for k, shape in shapes.items()}
DATA = medjax.stack_workers((INPUTS.astype(np.float32), LABELS.astype(np.int32)), PARTS)


def worker_gradient(part: np.ndarray) -> dict[str, np.ndarray]:
    """∇f_i of a worker's own examples in NumPy, in float64."""
    x, w, v, c = INPUTS[part], *(np.asarray(PARAMS[k], np.float64) for k in "wvc")
    hidden = np.tanh(x @ w)
    p = np.exp(hidden @ v + c)
    residual = (p / p.sum(axis=1, keepdims=True) - np.eye(3)[LABELS[part]]) / len(part)
    slope = (residual @ v.T) * (1 - hidden**2)
    return {"w": x.T @ slope, "v": hidden.T @ residual, "c": residual.sum(axis=0)}


def expected(weights: np.ndarray) -> dict[str, np.ndarray]:
    gradients = [worker_gradient(part) for part in PARTS]
    return {k: np.tensordot(weights, [g[k] for g in gradients], axes=1) for k in shapes}


def assert_close(actual: Any, wanted: Any) -> None:
    """To 1e-6 of the size of the whole."""
    size = np.sqrt(sum(np.sum(x**2) for x in wanted.values()))
    for name, x in wanted.items():
        np.testing.assert_allclose(actual[name], x, rtol=0, atol=1e-6 * size, err_msg=name)


# All at once, in two ways; in pieces that don't divide the 42 rows.
@pytest.mark.parametrize("at_once", [8192, 42, 41, 8])
def test_the_gradient_of_the_mean(at_once: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("medjax.training.gradients._EXAMPLES_AT_ONCE", at_once)
    gradient = jax.jit(lambda data, weights: weighted_gradient(objective, PARAMS, data, weights))
    for weights in (np.full(N, 1 / N, np.float32), WEIGHTS):
        assert_close(gradient(DATA, weights), expected(weights))


@pytest.mark.parametrize("at_once", [None, 1, 4, 100])
def test_promised_gradients_are_the_local_ones(at_once: int | None):
    def promise() -> Any:
        return promised_gradients(objective, PARAMS, DATA, take_workers, at_once)

    _, local = local_gradients(objective, PARAMS, DATA)
    jax.tree.map(np.testing.assert_array_equal, promise().stacked(), local)
    assert promise().at_once == min(at_once or N, N)
    for weights in (None, WEIGHTS):
        wanted = expected(np.full(N, 1 / N) if weights is None else WEIGHTS)
        mean = medjax.rules.mean(weights)
        for actual in (mean(local), mean(promise()), mean(promise().then(lambda row, _: row))):
            assert_close(actual, wanted)


def test_as_many_at_once_as_fit(monkeypatch: pytest.MonkeyPatch):
    def at_once(examples: int, numbers: int) -> int:
        monkeypatch.setattr("medjax.training.gradients._EXAMPLES_AT_ONCE", examples)
        monkeypatch.setattr("medjax.training.gradients._NUMBERS_AT_ONCE", numbers)
        return promised_gradients(objective, PARAMS, DATA, take_workers, None).at_once

    # Of 7 examples and 32 + 24 + 3 = 59 numbers each; 2 at least, so that pairs share words.
    assert at_once(42, 6 * 59) == 6
    assert at_once(42, 6 * 59 - 1) == 4  # 5 fit: 4, an even number, though it doesn't divide 6
    assert at_once(41, 10**6) == 4
    assert at_once(10**6, 3 * 59) == 2
    assert at_once(1, 1) == 2


@given(n=st.integers(1, 2000), limit=st.integers(0, 2500))
def test_even_parts(n: int, limit: int):
    part = _even_parts(n, limit)
    if limit >= n:
        assert part == n
        return
    assert part % 2 == 0
    assert 2 <= part <= max(limit, 2)
    # The largest divisor of more than half of the largest even number allowed, if there is one.
    most = max(limit - limit % 2, 2)
    divisors = [d for d in range(most // 2 + 1, most + 1) if d % 2 == 0 and n % d == 0]
    assert part == max(divisors, default=most)


@pytest.mark.parametrize(
    ("n", "limit", "part"),
    [(100, 64, 50), (100, 99, 50), (64, 40, 32), (97, 40, 40), (7, 7, 7), (7, 0, 2), (10, 5, 4)],
)
def test_even_parts_by_hand(n: int, limit: int, part: int):
    assert _even_parts(n, limit) == part
