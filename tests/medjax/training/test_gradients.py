"""The workers' gradients: of their mean, in one piece or several; in chunks; as updates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import medjax
from medjax._engine.lazy import LazyUpdates
from medjax._engine.streaming import apply_optimizer
from medjax.objectives import classification
from medjax.training import _chunks
from medjax.training._chunks import fastest_chunk
from medjax.training._gradients import local_gradients, weighted_gradient
from medjax.training._local import Local
from medjax.training._step import worker_messages
from medjax.workers import Algorithm
from medjax.workers._procedure import gradient

# Workers of 1, 3, 7, 2, 5 and 6 examples: 7 rows each, 42 in all, some of them padding.
RNG = np.random.default_rng(0)
N, INPUTS, LABELS = 6, RNG.normal(size=(24, 4)), RNG.integers(0, 3, 24)
PARTS = np.split(RNG.permutation(24), [1, 4, 11, 13, 18])
WEIGHTS = np.array([0.1, 0.3, 0.0, 0.25, 0.15, 0.2], np.float32)


def network(params: Any, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["w"]) @ params["v"] + params["c"][None]


objective = classification(network)
shapes = {"w": (4, 8), "v": (8, 3), "c": (3,)}
PARAMS = {k: jnp.asarray(RNG.normal(size=shape), jnp.float32) for k, shape in shapes.items()}
DATA = medjax.stack_workers((INPUTS.astype(np.float32), LABELS.astype(np.int32)), PARTS)
LOCAL = Local(DATA.examples, DATA.sizes)


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


# All examples in one chunk, in two ways; chunks that don't divide the 42 rows.
@pytest.mark.slow
@pytest.mark.parametrize("examples_per_chunk", [8192, 42, 41, 8])
def test_the_gradient_of_the_mean(examples_per_chunk: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_chunks, "_EXAMPLES_PER_CHUNK", examples_per_chunk)
    gradient = jax.jit(lambda local, weights: weighted_gradient(objective, PARAMS, local, weights))
    for weights in (np.full(N, 1 / N, np.float32), WEIGHTS):
        assert_close(gradient(LOCAL, weights), expected(weights))


# All examples of a worker at once; one, three or five of the seven at a time.
@pytest.mark.slow
@pytest.mark.parametrize("rows", [7, 1, 3])
def test_a_large_networks_gradients_are_added_up(rows: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_chunks, "_MANY_PER_EXAMPLE", 0)
    monkeypatch.setattr(_chunks, "_MANY_NUMBERS", 0)
    monkeypatch.setattr(_chunks, "_examples_in_cache", lambda each, params: rows)
    found = jax.jit(lambda local: local_gradients(objective, PARAMS, local))(LOCAL)
    for i, part in enumerate(PARTS):
        assert_close(jax.tree.map(lambda x, i=i: x[i], found.updates), worker_gradient(part))
    losses = objective(PARAMS, (INPUTS.astype(np.float32), LABELS))[0]
    wanted = [np.asarray(losses)[part].mean() for part in PARTS]
    np.testing.assert_allclose(found.metrics["loss"], wanted, rtol=1e-6)
    mean = jax.jit(lambda local: weighted_gradient(objective, PARAMS, local, WEIGHTS))(LOCAL)
    assert_close(mean, expected(WEIGHTS))


def test_a_batch_is_not_cut_where_it_is_drawn_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_chunks, "_MANY_PER_EXAMPLE", 0)
    monkeypatch.setattr(_chunks, "_examples_in_cache", lambda each, params: 1)
    seen = []

    def drawn(params: Any, batch: Any, key: Any) -> Any:
        seen.append(len(batch[1]))
        return objective(params, batch)

    local = LOCAL._replace(keys=jax.random.split(jax.random.key(0), N))
    jax.eval_shape(lambda local: local_gradients(drawn, PARAMS, local), local)
    assert set(seen) == {7}


def test_half_precision_gradients_are_rounded_once(monkeypatch: pytest.MonkeyPatch):
    # 600 chunks of 8 equal examples, each with 1/600 of the whole gradient. In bfloat16, with its
    # 8 bits, their sum would stop growing where 1/600 is below half a unit in the last place.
    monkeypatch.setattr(_chunks, "_EXAMPLES_PER_CHUNK", 8)
    data = medjax.stack_workers(np.ones(4800, np.float32), [np.arange(4800)])
    gradient = weighted_gradient(
        lambda w, x: (w.astype(jnp.float32) * x, {}),
        jnp.bfloat16(0),
        Local(data.examples, data.sizes),
        jnp.ones(1),
    )
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(float(gradient), 1, rtol=2**-8)


def updates(worker_chunk: int | None) -> LazyUpdates:
    """Return the lazy gradients of a run's first step."""
    optimizer = medjax.mean_sgd(0.1)
    state = medjax.simulation(objective, optimizer).init(PARAMS, 0)
    found, after = worker_messages(
        objective,
        Algorithm(gradient(), optimizer),
        state,
        DATA,
        None,
        batch_size=None,
        worker_chunk=worker_chunk,
    )
    assert after is state
    return found


@pytest.mark.slow
@pytest.mark.parametrize("worker_chunk", [None, 4])
def test_lazy_gradients_are_the_local_ones(worker_chunk: int | None):
    chunks, means = [], {"even": medjax.rules.mean(), "weighted": medjax.rules.mean(WEIGHTS)}

    @jax.jit
    def both() -> Any:
        local = local_gradients(objective, PARAMS, LOCAL).updates
        lazy = updates(worker_chunk)
        chunks.append(lazy.chunk)
        streamed = {
            name: [
                mean(local),
                apply_optimizer(mean, lazy, "require"),
                apply_optimizer(mean, lazy.then(lambda row, _: row), "require"),
            ]
            for name, mean in means.items()
        }
        return local, lazy.stacked(), streamed

    local, stacked, streamed = both()
    jax.tree.map(np.testing.assert_array_equal, stacked, local)
    assert chunks == [2 * (worker_chunk or N,)]
    assert updates(100).chunk == (N, N)
    for name, weights in (("even", np.full(N, 1 / N)), ("weighted", WEIGHTS)):
        for mean in streamed[name]:
            assert_close(mean, expected(weights))


def test_a_chunk_has_as_many_workers_as_fit(monkeypatch: pytest.MonkeyPatch):
    def chunk(examples: int, numbers: int) -> int:
        monkeypatch.setattr(_chunks, "_EXAMPLES_PER_CHUNK", examples)
        monkeypatch.setattr(_chunks, "_NUMBERS_PER_CHUNK", numbers)
        return updates(None).chunk.cpu

    # Of 7 examples and 32 + 24 + 3 = 59 numbers each; 2 at least, so that pairs share words.
    assert chunk(42, 6 * 59) == 6
    assert chunk(42, 6 * 59 - 1) == 4  # 5 fit: 4, an even number, though it doesn't divide 6
    assert chunk(41, 10**6) == 4
    assert chunk(10**6, 3 * 59) == 2
    assert chunk(1, 1) == 2


def chunk_of(n: int, limit: int) -> int:
    """Return how many of n workers, each with one example, are in a chunk of at most `limit`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_chunks, "_EXAMPLES_PER_CHUNK", limit)
        local = Local(np.zeros((n, 1)), np.ones(n))
        return fastest_chunk(lambda w, x: (x, {}), np.zeros(1), local).cpu


@given(n=st.integers(1, 2000), limit=st.integers(1, 2500))
def test_chunks_are_even(n: int, limit: int):
    chunk = chunk_of(n, limit)
    if limit >= n:
        assert chunk == n
        return
    assert chunk % 2 == 0
    assert 2 <= chunk <= max(limit, 2)
    # The largest divisor of more than half of the largest even number allowed, if there is one.
    most = max(limit - limit % 2, 2)
    divisors = [d for d in range(most // 2 + 1, most + 1) if d % 2 == 0 and n % d == 0]
    assert chunk == max(divisors, default=most)


@pytest.mark.parametrize(
    ("n", "limit", "chunk"),
    [(100, 64, 50), (100, 99, 50), (64, 40, 32), (97, 40, 40), (7, 7, 7), (7, 0, 2), (10, 5, 4)],
)
def test_chunks_by_hand(n: int, limit: int, chunk: int):
    assert chunk_of(n, limit) == chunk


def wrong_loss(params: Any, batch: Any) -> Any:
    return objective(params, batch)[0][:, None], {}


def wrong_metric(params: Any, batch: Any) -> Any:
    return objective(params, batch)[0], {"mean": jnp.zeros(())}


# The mean takes the gradient of a joined batch, the median each worker's own.
@pytest.mark.parametrize("optimizer", [medjax.mean_sgd(0.1), medjax.median_sgd(0.1)])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (wrong_loss, r'"loss" must have shape \((\d+),\), got \(\1, 1\)'),
        (wrong_metric, r'"mean" must have shape \(\d+,\), got \(\)'),
    ],
)
def test_an_objective_gives_one_number_for_each_example(wrong: Any, message: str, optimizer: Any):
    driven = medjax.simulation(wrong, optimizer)
    with pytest.raises(ValueError, match=message):
        driven.advance(driven.init(PARAMS, 0), DATA, 1)
