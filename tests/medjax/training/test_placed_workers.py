"""Workers that the devices of a mesh don't divide: padded data, and the run as on one device."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import attacks, rules, sharding
from medjax.objectives import Stateful

N, DIM = 10, 6
RNG = np.random.default_rng(0)
SIZES = [1, 4, 2, 5, 3, 1, 2, 4, 3, 2]
INPUTS = RNG.normal(size=(sum(SIZES), DIM)).astype(np.float32)
TARGETS = RNG.normal(size=sum(SIZES)).astype(np.float32)
PARTS = np.split(RNG.permutation(sum(SIZES)), np.cumsum(SIZES)[:-1])
DATA = medjax.stack_workers((INPUTS, TARGETS), PARTS)
TEST = (jnp.asarray(INPUTS[:5]), jnp.asarray(TARGETS[:5]))
# 4 devices, of which 2 hold the same part of the parameters, or all hold all of them.
MESHES = {"4": (4, 1), "2 x 2": (2, 2)}


@cache
def mesh(name: str) -> Any:
    workers, coordinates = MESHES[name]
    return sharding.make_mesh(workers=workers, coordinates=coordinates)


def least_squares(w: Any, batch: Any) -> Any:
    x, y = batch
    residuals = x @ w - y.astype(w.dtype)
    return residuals**2 / 2, {"residual": jnp.abs(residuals)}


def scaled(w: Any, batch: Any, key: Any) -> Any:
    losses, metrics = least_squares(w, batch)
    return losses * (1.0 if key is None else jax.random.uniform(key)), metrics


def centred(w: Any, state: Any, batch: Any, key: Any) -> Any:
    x, y = batch
    losses, metrics = least_squares(w, (x - state[None], y))
    return losses, metrics, 0.75 * state + 0.25 * x.mean(axis=0)


@cache
def training(name: str, on: str | None, objective: Any, settings: tuple[Any, ...]) -> Any:
    """A run of four steps of a dataset: a program for each of these."""

    def train(data: medjax.WorkerData) -> Any:
        return medjax.simulate(
            objective,
            jnp.zeros(DIM),
            data,
            OPTIMIZERS[name],
            num_steps=4,
            eval_every=2,
            key=1,
            test_data=TEST,
            mesh=None if on is None else mesh(on),
            **dict(settings),
        )

    return jax.jit(train)


def run(
    name: str, on: str | None, data: Any = DATA, objective: Any = least_squares, **settings: Any
) -> Any:
    stateful = isinstance(objective, Stateful)  # whose arrays can't be hashed
    make = training.__wrapped__ if stateful else training
    train = make(name, on, objective, tuple(settings.items()))
    return jax.tree.map(np.asarray, train(data))


def assert_same(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual.params, expected.params, rtol=2e-5, atol=1e-6)
    assert set(actual.metrics) == set(expected.metrics)
    for name, values in expected.metrics.items():
        assert actual.metrics[name].shape == values.shape
        np.testing.assert_allclose(actual.metrics[name], values, rtol=2e-5, err_msg=name)


def padded(x: Any) -> np.ndarray:
    """Add two workers: the last one's examples again, or, of sizes, no examples that count."""
    last = np.zeros(1, x.dtype) if x.ndim == 1 else np.asarray(x[-1:])
    return np.concatenate([np.asarray(x), last, last])


@pytest.mark.parametrize("name", MESHES)
def test_each_device_has_three_workers(name: str):
    placed = sharding.place_workers(DATA, mesh(name))
    assert sharding.pad_workers(N, mesh(name)) == 12
    assert (placed.num_workers, placed.padding, placed.num_byzantine) == (N, 2, 0)
    devices = list(mesh(name).devices.flat)
    for x, given in zip(jax.tree.leaves(placed), jax.tree.leaves(DATA), strict=True):
        np.testing.assert_array_equal(x, padded(given))
        assert len(x.addressable_shards) == 4
        for shard in x.addressable_shards:
            k = devices.index(shard.device)
            np.testing.assert_array_equal(shard.data, padded(given)[3 * k : 3 * k + 3])


@pytest.mark.slow
def test_data_that_are_placed_already_are_placed_again():
    four, eight = mesh("4"), sharding.make_mesh(workers=8)
    once = sharding.place_workers(DATA, four)
    for other, total in ((four, 12), (eight, 16), (sharding.make_mesh(workers=2), 10)):
        again = sharding.place_workers(once, other)
        assert (again.num_workers, again.padding) == (N, total - N)
        for x, given in zip(jax.tree.leaves(again), jax.tree.leaves(DATA), strict=True):
            np.testing.assert_array_equal(x[:N], given)
            last = np.zeros(1, x.dtype) if x.ndim == 1 else given[-1:]
            np.testing.assert_array_equal(x[N:], np.repeat(last, total - N, axis=0))
    assert sharding.place_workers(DATA, None) is DATA


OPTIMIZERS: dict[str, Any] = {
    "mean": medjax.mean_sgd(0.1),
    "mean(weights)": optax.chain(medjax.aggregate(rules.mean(SIZES)), optax.sgd(0.1)),
    "median": medjax.median_sgd(0.1),
    "momentum, attack": optax.chain(
        medjax.worker_momentum(0.9, N),
        medjax.attack(attacks.ipm(2.0), 2),
        medjax.aggregate(rules.trimmed_mean(2)),
        optax.sgd(0.1),
    ),
}


LOCAL = {"local_steps": 2, "local_lr": 0.1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mean", {}),
        ("momentum, attack", {}),
        ("mean(weights)", {"batch_size": 2}),
        ("median", {"participants": 4, "always": 1, "batch_size": 2} | LOCAL),
    ],
    ids=str,
)
def test_a_run_is_that_on_one_device(name: str, settings: dict[str, Any]):
    one = run(name, None, **settings)
    assert one.metrics["nonfinite_workers"].shape == (3, N)
    for on in MESHES if name == "mean" and not settings else ("4",):
        assert_same(run(name, on, sharding.place_workers(DATA, mesh(on)), **settings), one)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "name", "settings"),
    [(scaled, "mean", {}), (Stateful(centred, jnp.zeros(DIM)), "median", {"participants": 3})],
    ids=["key", "state"],
)
def test_objectives_with_keys_and_states(objective: Any, name: str, settings: Any):
    placed = sharding.place_workers(DATA, mesh("4"))
    one = run(name, None, DATA, objective, **settings)
    many = run(name, "4", placed, objective, **settings)
    assert_same(many, one)
    if one.model_state is not None:
        assert many.model_state.shape == (N, DIM)
        np.testing.assert_allclose(many.model_state, one.model_state, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_broken_worker_next_to_the_padding_is_named():
    inputs = INPUTS.copy()
    inputs[PARTS[-1][0], 0] = np.nan
    data = medjax.stack_workers((inputs, TARGETS), PARTS)
    result = run("median", "4", sharding.place_workers(data, mesh("4")))
    broken = np.arange(N) == N - 1
    np.testing.assert_array_equal(result.metrics["nonfinite_workers"], [broken] * 3)


@pytest.mark.slow
def test_changed_data_may_be_placed_before_or_after():
    labels = RNG.integers(0, 3, sum(SIZES)).astype(np.int32)
    clean = medjax.stack_workers((INPUTS, labels), PARTS)
    flip, on = attacks.label_flip(3), mesh("4")
    after = sharding.place_workers(flip(clean, 2), on)
    before = flip(sharding.place_workers(clean, on), 2)
    one = run("mean", None, flip(clean, 2))
    for data in (after, before):
        assert (data.padding, data.num_byzantine, data.num_workers) == (2, 2, N)
        np.testing.assert_array_equal(data.examples[1][:N], flip(clean, 2).examples[1])
        assert_same(run("mean", "4", data), one)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [("mean", {"batch_size": 2}), ("median", {})],
    ids=str,
)
def test_padded_data_on_one_device(name: str, settings: dict[str, Any]):
    host = jax.device_get(sharding.place_workers(DATA, mesh("4")))
    assert_same(run(name, None, host, **settings), run(name, None, **settings))


@pytest.mark.slow
def test_padded_workers_have_no_model_of_their_own():
    host = jax.device_get(sharding.place_workers(DATA, mesh("4")))
    strength = dict(regularization=1.0, learning_rate=0.1, num_steps=3, key=0)
    models = [
        medjax.multitask(least_squares, jnp.zeros(DIM), data, **strength) for data in (DATA, host)
    ]
    np.testing.assert_array_equal(models[1].models, models[0].models)
    np.testing.assert_array_equal(models[1].metrics["loss"], models[0].metrics["loss"])


@pytest.mark.slow
@pytest.mark.parametrize("placed", [True, False])
def test_padding_does_not_spoil_losses_that_are_not_finite_on_zeros(placed):
    """x moves towards the mean of a_i/‖a_i‖, which isn't finite for an example of zeros."""

    def directions(x, a):
        unit = a / jnp.linalg.norm(a, axis=1, keepdims=True)
        return ((x[None] * unit).sum(axis=1) - 1) ** 2 / 2 + 0 * x.sum(), {}

    centres = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    data = medjax.stack_workers(centres, np.arange(10)[:, None])
    mesh = sharding.make_mesh(workers=4)

    def params(data, mesh):
        run = medjax.simulation(directions, medjax.mean_sgd(0.5), mesh=mesh)
        return jax.jit(run.advance)(run.init(jnp.zeros(3), 0), data, 3).params

    alone = params(data, None)
    assert np.all(np.isfinite(alone))
    where = sharding.place_workers(data, mesh) if placed else data
    np.testing.assert_allclose(params(where, mesh), alone, rtol=1e-5)
