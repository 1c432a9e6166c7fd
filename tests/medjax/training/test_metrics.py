import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import medjax
from medjax import sharding
from medjax.objectives import classification
from medjax.training._gradients import local_gradients
from medjax.training._local import Local

# Softmax regression on workers of 1, 3, 7, 2 and 5 examples: 5 gradients of 12 + 3 numbers.
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(18, 4)).astype(np.float32)
LABELS = RNG.integers(0, 3, 18).astype(np.int32)
DATA = medjax.stack_workers((INPUTS, LABELS), np.split(RNG.permutation(18), [1, 4, 11, 13]))
PARAMS = {"w": jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32), "c": jnp.ones(3)}
objective = classification(lambda p, x: x @ p["w"] + p["c"][None])


@functools.cache
def expected() -> dict[str, float]:
    metrics, gradients, _ = local_gradients(objective, PARAMS, Local(DATA.examples, DATA.sizes))
    leaves = [np.asarray(x, np.float64).reshape(5, -1) for x in jax.tree.leaves(gradients)]
    g = np.concatenate(leaves, axis=1)
    gap = np.median(g, axis=0) - g.mean(axis=0)
    norms = {"grad_norm": np.linalg.norm(g.mean(axis=0)), "median_mean_gap": np.linalg.norm(gap)}
    return norms | {f"train_{k}": np.asarray(v, np.float64).mean() for k, v in metrics.items()}


def measure(objective: Any, params: Any, data: medjax.WorkerData) -> dict[str, jax.Array]:
    """Return the metrics at these parameters, before the first step."""
    parts = medjax.simulation(objective, medjax.mean_sgd(0.1))
    return jax.jit(parts.evaluate)(parts.init(params, 0), data, {})


# Parts of 15, 8 and 7, 3, and single columns.
@pytest.mark.slow
@pytest.mark.parametrize("numbers", [75, 74, 15, 1])
def test_measured_in_parts_as_in_one(numbers: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("medjax.training._metrics._MEDIAN_NUMBERS", numbers)
    actual = measure(objective, PARAMS, DATA)
    assert set(actual) == {*expected(), "nonfinite_workers"}
    assert not actual["nonfinite_workers"].any()
    for name, value in expected().items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-5, err_msg=name)


TEST = (INPUTS[:5], LABELS[:5])


def in_turns(data: Any, mesh: Any = None, at_a_time: int = 2) -> tuple[int, Any]:
    """Return the number of turns, and the metrics by a host that takes some at a time."""
    parts = medjax.simulation(objective, medjax.mean_sgd(0.1), mesh=mesh)
    inputs = (parts.init(PARAMS, 0), data, {"test": TEST, "validation": TEST})
    measure, totals, done = jax.jit(parts.measure), parts.begin(*inputs), 1
    totals, metrics, left = measure(totals, *inputs, 0, 1)
    while left:
        count = min(at_a_time, int(left))
        totals, metrics, left = measure(totals, *inputs, done, count)
        done += count
    return done, metrics


# All at once; 3 of at most 7 rows and of 5 test examples; one after the other, for 8 columns each.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("numbers", "measured", "turns", "devices"),
    [
        (75, 1 << 26, 1, None),
        (75, 100, 3 + 2 + 2, None),
        (75, 100, 3 + 2 + 2, 4),
        (74, 1, 14 + 5 + 5, 4),
    ],
)
def test_measured_in_turns_as_at_once(numbers, measured, turns, devices, monkeypatch):
    monkeypatch.setattr("medjax.training._metrics._MEDIAN_NUMBERS", numbers)
    monkeypatch.setattr("medjax.training._chunks._NUMBERS_MEASURED", measured)
    mesh = devices and sharding.make_mesh(workers=devices)
    count, actual = in_turns(sharding.place_workers(DATA, mesh), mesh)
    assert count == turns
    losses, others = objective(PARAMS, TEST)
    wanted = expected() | {
        f"{part}_{name}": np.mean(values)
        for name, values in {"loss": losses, **others}.items()
        for part in ("test", "validation")
    }
    assert set(actual) == {*wanted, "nonfinite_workers"}
    for name, value in wanted.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.slow
def test_the_memory_of_measuring_does_not_grow_with_the_data():
    # At once, the 30,000 activations of 20,000 examples would take 2.2 GiB, and as much backwards.
    def network(params: Any, x: jax.Array) -> Any:
        return jnp.tanh(x @ params["w"]) @ params["v"], {}

    params = {"w": jnp.zeros((1, 10_000)), "v": jnp.zeros(10_000)}
    examples = np.ones((20_000, 1), np.float32)
    data = medjax.stack_workers(examples, np.split(np.arange(20_000), 2))
    parts = medjax.simulation(network, medjax.mean_sgd(0.1))
    inputs = (jax.eval_shape(parts.init, params, jax.random.key(0)), data, {"test": examples})
    found = jax.jit(parts.evaluate).lower(*inputs).compile().memory_analysis()
    assert found.temp_size_in_bytes < 2**30


@pytest.mark.slow
def test_half_precision_is_measured_in_float32():
    # Gradients of 1 + 1/256 and 1, exact in float16 but not their mean: 1 + 1/512 in float32.
    slopes = medjax.stack_workers(np.float32([1 + 1 / 256, 1]), [[0], [1]])

    def linear(x: Any, a: jax.Array) -> Any:
        return sum(leaf.sum().astype(a.dtype) * a for leaf in jax.tree.leaves(x)), {}

    half = jnp.zeros((3, 1), jnp.float16)
    for params in (jnp.zeros(4, jnp.float16), {"a": half, "b": jnp.zeros(1)}):
        metrics = measure(linear, params, slopes)
        np.testing.assert_allclose(metrics["grad_norm"], 2 * (1 + 1 / 512), rtol=1e-6)
        assert metrics["median_mean_gap"] == 0  # the median of two is their mean


@pytest.mark.slow
@pytest.mark.parametrize(("numbers", "value"), [(75, np.nan), (10, np.inf), (1, -np.inf)])
def test_workers_whose_gradients_are_not_finite_are_named(
    numbers: int, value: float, monkeypatch: pytest.MonkeyPatch
):
    # Worker 2 has examples 4 to 10 of the shuffled ones, worker 4 the last five.
    monkeypatch.setattr("medjax.training._metrics._MEDIAN_NUMBERS", numbers)
    order = np.arange(18)
    inputs = INPUTS.copy()
    inputs[[6, 17], 3] = value
    data = medjax.stack_workers((inputs, LABELS), np.split(order, [1, 4, 11, 13]))
    named = measure(objective, PARAMS, data)["nonfinite_workers"]
    np.testing.assert_array_equal(named, [False, False, True, False, True])
