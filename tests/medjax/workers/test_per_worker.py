"""Any optax transform, run on each worker's updates with a state of its own."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest

from medjax import aggregate, per_worker, rules

N = 5
EVERY_OTHER = optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation()
CENTRES = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
START = np.array([0.3, -0.2, 0.1], np.float32)


def assert_close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "inner",
    [optax.trace(0.9), optax.scale_by_adam(), optax.add_noise(0.1, 0.5, key=3), optax.identity()],
)
def test_per_worker_equals_separate_runs(inner: optax.GradientTransformation):
    tx, gradients = per_worker(inner, N), np.stack([CENTRES, 2 * CENTRES, -CENTRES])
    actual = jax.lax.scan(lambda state, g: tx.update(g, state)[::-1], tx.init(START), gradients)[1]
    for i in range(N):
        state = inner.init(START)
        if hasattr(state, "rng_key"):  # worker i's key is folded with i
            state = state._replace(rng_key=jax.random.fold_in(jax.random.key(3), i))
        for t, g in enumerate(gradients):
            with jax.numpy_dtype_promotion("standard"):  # as optax's own code has it
                out, state = inner.update(g[i], state)
            assert_close(actual[t, i], out)


def test_per_worker_passes_params_and_extra_arguments():
    def update(g: Any, state: Any, params: Any = None, *, value: Any, **extra: Any) -> Any:
        return g + params * value, state

    inner = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    tx = per_worker(inner, N)
    out, _ = tx.update(CENTRES, tx.init(START), START, value=2.0, other=1)
    assert_close(out, CENTRES + 2 * START)


@pytest.mark.slow
@pytest.mark.parametrize("server", [optax.adam(0.1), optax.sgd(0.1, momentum=0.9), EVERY_OTHER])
@pytest.mark.parametrize("name", ["mean", "median"])
def test_a_rule_and_any_server_optimizer_follow(name: str, server: optax.GradientTransformation):
    rule = rules.RULES[name]()
    worker = per_worker(optax.trace(0.5), N)
    chain = optax.chain(worker, aggregate(rule), server)
    states = [chain.init(START), worker.init(START), server.init(START)]
    for scale in (1, -2, 3):
        with jax.numpy_dtype_promotion("standard"):  # as optax's own code has it
            out, states[0] = chain.update(scale * CENTRES, states[0], START)
            g, states[1] = worker.update(scale * CENTRES, states[1])
            expected, states[2] = server.update(rule(g), states[2], START)
        assert_close(out, expected)


def stacked(num_workers: int) -> Any:
    tx = per_worker(optax.identity(), num_workers)
    return tx.update(CENTRES, tx.init(START))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: per_worker(optax.trace(0.9), 0), ValueError, "at least 1, got 0"),
        (lambda: stacked(3), ValueError, "for 3 .* from 5"),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        make()
