"""Local steps, against federated averaging written in NumPy as an average of models."""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import aggregate, rules

# Workers of 1, 3, 4 and 2 examples of 3 numbers.
RNG = np.random.default_rng(0)
INPUTS, TARGETS = RNG.normal(size=(10, 3)), RNG.normal(size=10)
PARTS = [np.array([4]), np.array([0, 7, 9]), np.array([1, 2, 3, 8]), np.array([5, 6])]
SIZES = np.array([len(part) for part in PARTS])
START = {"w": np.array([0.5, -1.0, 0.2]), "c": np.float64(0.3)}


def least_squares(params: Any, batch: Any) -> Any:
    x, y = batch
    return (x @ params["w"] + params["c"] - y) ** 2 / 2, {}


def gradient(v: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The average gradient of these examples at (w, c)."""
    x = np.column_stack([INPUTS[rows], np.ones(len(rows))])
    return x.T @ (x @ v - TARGETS[rows]) / len(rows)


def walk(v: np.ndarray, batches: list[np.ndarray], lr: float) -> np.ndarray:
    """Where local SGD ends."""
    for rows in batches:
        v = v - lr * gradient(v, rows)
    return v


def flat(params: Any) -> np.ndarray:
    return np.append(np.asarray(params["w"]), params["c"])


def server(rule: rules.Rule, lr: Any) -> optax.GradientTransformation:
    return optax.chain(aggregate(rule), optax.scale_by_learning_rate(lr))


def run(optimizer: Any, num_steps: int = 3, start: Any = START, **settings: Any) -> Any:
    dtype = jnp.result_type(float)
    data = medjax.stack_workers((INPUTS.astype(dtype), TARGETS.astype(dtype)), PARTS)
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), start)
    parts = medjax.simulation(least_squares, optimizer, **settings)
    state = jax.jit(parts.init)(params, 5)
    return jax.jit(parts.advance)(state, data, num_steps)


@pytest.mark.slow
@pytest.mark.parametrize(("num_local", "weights"), [(1, None), (5, None), (2, SIZES)])
def test_federated_averaging_is_the_average_of_the_models(num_local: int, weights: Any):
    w, lr = (np.ones(4) if weights is None else weights), 0.1
    v = flat(START)
    for _ in range(3):
        models = [walk(v, [part] * num_local, lr) for part in PARTS]
        v = np.average(models, axis=0, weights=w)
    with jax.enable_x64(True):
        optimizer = server(rules.mean(weights), lr)
        result = run(optimizer, local_steps=num_local, local_lr=lr)
        np.testing.assert_allclose(flat(result.params), v, rtol=1e-13)


@pytest.mark.slow
def test_any_rule_is_given_the_differences_over_the_local_step_size():
    v, lr, server_lr = flat(START), 0.2, 0.3
    for _ in range(3):
        sent = [(v - walk(v, [part] * 3, lr)) / lr for part in PARTS]
        v = v - server_lr * np.median(sent, axis=0)
    with jax.enable_x64(True):
        result = run(server(rules.median(), server_lr), local_steps=3, local_lr=lr)
        np.testing.assert_allclose(flat(result.params), v, rtol=1e-13)


def fold(key: jax.Array, *path: Any) -> jax.Array:
    for data in path:
        key = jax.random.fold_in(key, zlib.crc32(data.encode()) if isinstance(data, str) else data)
    return key


def drawn(step: int, local_step: int, worker: int, batch_size: int) -> np.ndarray:
    """The examples of a mini-batch: a function of the key, step, local step and worker."""
    key = fold(jax.random.key(5), "simulate")
    path = (step,) if local_step == 0 else ("local_steps", step, local_step)
    part = PARTS[worker]
    return part[jax.random.randint(fold(key, *path, worker), (batch_size,), 0, len(part))]


@pytest.mark.slow
def test_mini_batches_are_new_at_each_local_step():
    v, lr = flat(START), 0.1
    with jax.enable_x64(True):  # there JAX draws other integers
        for t in range(3):
            models = [walk(v, [drawn(t, k, i, 2) for k in range(3)], lr) for i in range(4)]
            v = np.mean(models, axis=0)
        for chunk in (None, 3):
            settings = dict(batch_size=2, local_steps=3, local_lr=lr, worker_chunk=chunk)
            x = flat(run(medjax.mean_sgd(lr), **settings).params)
            np.testing.assert_allclose(x, v, rtol=1e-13)
    draws = [tuple(drawn(t, k, 2, 4)) for t in range(20) for k in range(5)]
    assert len(set(draws)) > 60  # of 256: 100 draws make 82 different ones


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "batch_size"),
    [(medjax.mean_sgd(0.1), None), (medjax.noisy_sign_sgd(0.1, 0.5, key=0), 2)],
    ids=["mean", "noisy_sign"],
)
def test_one_local_step_is_the_gradient_bit_for_bit(optimizer: Any, batch_size: int | None):
    plain = run(optimizer, batch_size=batch_size)
    one = run(optimizer, batch_size=batch_size, local_steps=1, local_lr=0.7)
    jax.tree.map(np.testing.assert_array_equal, one.params, plain.params)


@pytest.mark.slow
def test_a_sweep_of_local_step_sizes():
    rates = np.float32([0.01, 0.1, 0.3])
    swept = jax.vmap(lambda lr: run(medjax.mean_sgd(lr), local_steps=4, local_lr=lr).params)(rates)
    for i, lr in enumerate(rates):
        v = flat(START)
        for _ in range(3):
            v = np.mean([walk(v, [part] * 4, float(lr)) for part in PARTS], axis=0)
        np.testing.assert_allclose([*swept["w"][i], swept["c"][i]], v, rtol=2e-5, atol=1e-6)


# f_i(x) = ‖x - a_i‖²/2 with everything a multiple of a power of 2, so that nothing is rounded.
N, DIM = 8, 30
CENTRES = RNG.integers(-32, 32, (N, DIM)).astype(np.float32) / 16


def quadratic(x: Any, a: Any) -> Any:
    return jnp.sum((x[None] - a) ** 2, axis=-1) / 2, {}


def final(optimizer: Any, num_steps: int, chunk: int | None, **settings: Any) -> Any:
    data = medjax.stack_workers(CENTRES, np.arange(N)[:, None])
    parts = medjax.simulation(
        quadratic, optimizer, worker_chunk=chunk, local_steps=3, local_lr=0.25, **settings
    )
    return jax.jit(parts.advance)(parts.init(jnp.zeros(DIM), 0), data, num_steps).params


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "num_steps"),
    [
        (medjax.mean_sgd(0.25), 1),
        (medjax.sign_sgd(1 / 16, zero="random", tie="random", key=0), 20),
        (medjax.noisy_sign_sgd(1 / 16, 1.0, key=3), 20),
        (medjax.noisy_sign_sgd(1 / 16, 1.0, key=3, exact=True), 20),
        (medjax.median_sgd(0.25), 1),
    ],
    ids=["mean", "sign", "noisy_sign", "exact", "median"],
)
def test_streamed_equals_whole(optimizer: Any, num_steps: int):
    whole = final(optimizer, num_steps, N)
    assert np.any(whole != 0)
    for chunk in (1, 3) if num_steps == 1 else (3,):
        np.testing.assert_array_equal(final(optimizer, num_steps, chunk), whole)


def test_streamed_mean_is_that_by_hand():
    # x_i^3 - a_i = (3/4)³ (x - a_i) from x = 0, so the mean of the models is (1 - 27/64) ā.
    expected = (1 - 27 / 64) * CENTRES.mean(axis=0)
    np.testing.assert_array_equal(final(medjax.mean_sgd(0.25), 1, 2), expected)


def test_only_so_many_updates_exist_at_a_time():
    data = medjax.stack_workers(CENTRES, np.arange(N)[:, None])

    def program(optimizer: Any, chunk: int) -> str:
        settings = dict(worker_chunk=chunk, local_steps=3, local_lr=0.25)
        # Parameters of a shape of their own, so that the data aren't taken for updates.
        parts = medjax.simulation(lambda x, a: quadratic(x.sum(axis=1), a), optimizer, **settings)
        state = parts.init(jnp.zeros((DIM, 7)), 0)
        return str(jax.make_jaxpr(parts.advance)(state, data, 2))

    for optimizer in (medjax.mean_sgd(0.1), medjax.noisy_sign_sgd(0.1, 0.5, key=0)):
        text = program(optimizer, 2)
        assert f"f32[2,{DIM},7]" in text
        assert f"f32[{N},{DIM}" not in text.replace(f"f32[{N},1,{DIM}]", "")
    assert f"f32[{N},{DIM},7]" in program(medjax.median_sgd(0.1), 2)


@pytest.mark.slow
def test_a_few_workers_at_a_time_where_there_are_many_examples(monkeypatch: pytest.MonkeyPatch):
    whole = run(medjax.median_sgd(0.1), local_steps=2, local_lr=0.1).params
    monkeypatch.setattr("medjax.training._chunks._EXAMPLES_PER_CHUNK", 8)  # 2 workers of 4
    cut = run(medjax.median_sgd(0.1), local_steps=2, local_lr=0.1).params
    np.testing.assert_allclose(flat(cut), flat(whole), rtol=1e-6)


def test_half_precision_does_not_lose_small_local_steps():
    # x = 1, a = 0: each gradient is 1 to 8 bits, and 1 - 1e-4 is 1 in bfloat16.
    data = medjax.stack_workers(np.zeros((2, 1), np.float32), [[0], [1]])
    parts = medjax.simulation(
        lambda x, a: quadratic(x.astype(jnp.float32), a),
        medjax.mean_sgd(1.0),
        local_steps=4,
        local_lr=1e-4,
    )
    state = parts.advance(parts.init(jnp.ones(1, jnp.bfloat16), 0), data, 1)
    assert state.params.dtype == jnp.bfloat16
    np.testing.assert_array_equal(state.params.astype(np.float32), [1 - 4])


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"local_steps": 0, "local_lr": 0.1}, ValueError, "local_steps must be at least 1, got 0"),
        ({"local_steps": 2.0, "local_lr": 0.1}, TypeError, "local_steps must be an integer, got"),
        ({"local_steps": 2, "local_lr": 0}, ValueError, "local_lr must be .* above 0, got 0"),
        ({"local_steps": 2, "local_lr": np.nan}, ValueError, "local_lr must be .* got nan"),
        ({"local_steps": 2, "local_lr": "x"}, TypeError, "local_lr must be a real number"),
        ({"local_steps": 2}, ValueError, "together or not at all, got local_steps = 2 and .* None"),
        (
            {"local_lr": 0.1},
            ValueError,
            "together or not at all, got local_steps = None and .* 0.1",
        ),
    ],
)
def test_errors(settings: dict[str, Any], kind: type[Exception], message: str):
    with pytest.raises(kind, match=message):
        run(medjax.mean_sgd(0.1), **settings)


def test_the_number_of_local_steps_is_static():
    with pytest.raises(TypeError, match="local_steps changes shapes or code and must be static"):
        jax.jit(lambda k: run(medjax.mean_sgd(0.1), local_steps=k, local_lr=0.1))(2)
