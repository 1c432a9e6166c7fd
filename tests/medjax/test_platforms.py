"""Whole runs by the code for accelerators: the same draws, streamed or not, as by the CPU's."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import compressors, noise, rules, workers
from medjax._engine.chunks import Chunk, by_chunk, map_each
from medjax.training import _chunks

N, D = 9, 40
RNG = np.random.default_rng(0)
DATA = medjax.stack_workers(
    RNG.normal(size=(90, D)).astype(np.float32), np.split(RNG.permutation(90), N)
)


def objective(params: Any, x: jax.Array) -> Any:
    """Half the squared distance to each example, and a tensor of another shape."""
    return 0.5 * jnp.sum((params["w"][None] - x) ** 2, axis=1) + jnp.sum(
        params["v"][None] * x[:, :6], axis=1
    ), {}


PARAMS = {"w": jnp.zeros(D), "v": jnp.zeros(6)}
vote, mean = rules.majority_vote(), rules.mean()
CHAINS: dict[str, Callable[[], list[optax.GradientTransformation]]] = {
    "noisy_sign": lambda: [noise.noisy_sign(1.0, key=1), medjax.aggregate(vote)],
    "random votes": lambda: [
        medjax.aggregate(rules.majority_vote(zero="random", tie="random"), key=1)
    ],
    "perturb": lambda: [noise.perturb(1.0, key=1), medjax.aggregate(mean)],
    "noisy median": lambda: [noise.perturb(1.0, key=1), medjax.aggregate(rules.median())],
    "momentum": lambda: [workers.worker_momentum(0.9, N), medjax.aggregate(rules.krum(2))],
    "qsgd": lambda: [compressors.compress(compressors.qsgd(4), key=1), medjax.aggregate(mean)],
    "top_k": lambda: [compressors.compress(compressors.top_k(5)), medjax.aggregate(mean)],
    "rotation": lambda: [
        compressors.compress(compressors.rotation_quantization(2), key=1),
        medjax.aggregate(mean),
    ],
    "error feedback": lambda: [
        compressors.error_feedback(compressors.random_k(5), N, key=1),
        medjax.aggregate(mean),
    ],
}


def final(chain: str, **settings: Any) -> Any:
    """Return the parameters after five steps, and the metrics there if a median is measured."""
    tx = optax.chain(*CHAINS[chain](), optax.sgd(0.1))
    batch_size = 4 if chain == "noisy_sign" else None
    run = medjax.simulation(objective, tx, batch_size=batch_size, **settings)

    def train() -> Any:
        state = run.advance(run.init(PARAMS, 2), DATA, 5)
        metrics = run.evaluate(state, DATA, {}) if chain == "noisy median" else {}
        return state.params, metrics

    return jax.jit(train)()


def assert_close(actual: Any, expected: Any) -> None:
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), actual, expected)


@pytest.mark.slow
@pytest.mark.parametrize("chain", CHAINS)
def test_runs_are_those_of_a_cpu(chain: str, request: pytest.FixtureRequest):
    expected = final(chain)
    request.getfixturevalue("accelerated")
    assert_close(final(chain), expected)
    if chain in ("noisy_sign", "random votes", "qsgd"):  # which draw in chunks
        assert_close(final(chain, worker_chunk=4), expected)


def test_chunks_are_bounded_by_memory(monkeypatch: pytest.MonkeyPatch):
    local = jax.tree.map(jnp.asarray, _chunks.Local(DATA.examples, DATA.sizes))
    # w - x, its square and sums: at least two arrays of 10 x 40 numbers; at most ten.
    assert 2 * 400 <= _chunks._num_activations(objective, PARAMS, local) <= 10 * 400
    for limit, most in ((10**6, N), (6 * 500, 6), (1, 2)):
        monkeypatch.setattr(_chunks, "_NUMBERS_ON_ACCELERATOR", limit)
        chunk = _chunks.fastest_chunk(objective, PARAMS, local)
        assert chunk.cpu == N
        assert chunk.accelerator <= most


def test_a_function_is_traced_for_each_chunk_size_once():
    sizes = []

    def f(size: int, x: jax.Array) -> jax.Array:
        sizes.append(size)
        return size * x

    assert jax.jit(partial(by_chunk, f, Chunk(3, 3)))(2.0) == 6
    assert jax.jit(partial(by_chunk, f, Chunk(3, 5)))(2.0) == 6
    assert sorted(sizes) == [3, 3, 5]


def test_map_each_equals_a_loop():
    x = jnp.arange(6.0).reshape(3, 2)
    doubled, sums = map_each(lambda row, shift: (2 * row, row.sum() + shift), x, jnp.arange(3.0))
    np.testing.assert_array_equal(doubled, 2 * x)
    np.testing.assert_array_equal(sums, [1, 6, 11])


@pytest.mark.slow
def test_exported_programs_run():
    # One program for several platforms, of which this machine has one.
    step = jax.jit(lambda x: [rule(x) for rule in (rules.median(), rules.krum(1), vote)])
    x = RNG.normal(size=(7, 5)).astype(np.float32)
    exported = jax.export.export(step, platforms=("cpu", "cuda", "tpu"))(x)
    for actual, expected in zip(exported.call(x), step(x), strict=True):
        np.testing.assert_array_equal(actual, expected)
