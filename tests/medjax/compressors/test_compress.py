"""Compression as a stage of a chain."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from medjax import aggregate, compress, compressors, perturb, rules, simulate, stack_workers
from medjax._engine.chunks import Chunk
from medjax._engine.lazy import LazyUpdates
from medjax._engine.streaming import apply_optimizer

QSGD = compressors.qsgd(2)


def gradients(n: int) -> dict[str, Any]:
    rng = np.random.default_rng(n)
    return {
        "w": jnp.asarray(rng.normal(size=(n, 3, 2)), jnp.float32),
        "b": [jnp.asarray(rng.integers(-2, 3, (n, 5)), jnp.bfloat16), jnp.ones((n, 0))],
    }


def lazy(stacked: Any, chunk_size: int) -> LazyUpdates:
    """Updates that are sliced when they are asked for."""
    n = len(jax.tree.leaves(stacked)[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), stacked)

    def compute(inputs: Any, first: Any, count: int) -> Any:
        return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, first, count), inputs)

    return LazyUpdates(like, n, Chunk(chunk_size, chunk_size), stacked, compute)


def equal(a: Any, b: Any) -> None:
    jax.tree.map(
        lambda x, y: np.testing.assert_array_equal(
            np.asarray(x, np.float32), np.asarray(y, np.float32)
        ),
        a,
        b,
    )


@pytest.mark.slow
def test_each_worker_sends_its_own_message():
    stacked = gradients(4)
    tx = compress(compressors.top_k(3))
    sent, state = jax.jit(tx.update)(stacked, tx.init(None))
    assert state.step == 1
    for i in range(4):
        worker = jax.tree.map(lambda x, i=i: x[i], stacked)
        equal(jax.tree.map(lambda x, i=i: x[i], sent), compressors.top_k(3).compress(worker))
    assert jax.tree.map(lambda x: x.dtype, sent) == jax.tree.map(lambda x: x.dtype, stacked)


@pytest.mark.slow
def test_draws_depend_on_worker_step_and_key_alone():
    # All workers have the same gradient.
    stacked = jnp.tile(jnp.linspace(-1, 1, 50), (6, 1))

    @jax.jit
    def two_steps(x: jax.Array, key: jax.Array) -> jax.Array:
        tx = compress(QSGD, key=key)
        first, state = tx.update(x, tx.init(None))
        return jnp.concatenate([first, tx.update(x, state)[0]])

    sent = np.asarray(two_steps(stacked, jax.random.key(0)))
    other = np.asarray(two_steps(stacked, jax.random.key(1)))
    assert len(np.unique(np.concatenate([sent, other]), axis=0)) == 24
    # No matter how many workers there are.
    np.testing.assert_array_equal(two_steps(stacked[:2], jax.random.key(0)), sent[[0, 1, 6, 7]])


@pytest.mark.slow
@pytest.mark.parametrize(("n", "chunk_size"), [(5, 2), (4, 4)])
def test_streamed_equals_stacked(n: int, chunk_size: int):
    # Noise before it and a vote behind it: no sums but those of whole numbers.
    tx = optax.chain(perturb(0.5, key=1), compress(QSGD, key=2), aggregate(rules.majority_vote()))

    @jax.jit
    def both(stacked: Any) -> Any:
        def aggregated(x: Any) -> Any:
            return tx.update(x, tx.init(None))[0]

        return apply_optimizer(aggregated, lazy(stacked, chunk_size), "require"), aggregated(
            stacked
        )

    equal(*both(gradients(n)))


@pytest.mark.slow
def test_compressed_gradients_are_unbiased_in_training():
    # f_i(x) = (x - a_i)²/2, minimised at the mean of the a_i: 3. With steps 1/(t + 1) x is the mean
    # of what the gradients alone would give, but for noise: that of ternary gradients dies out.
    def objective(x: jax.Array, batch: jax.Array) -> Any:
        return 0.5 * jnp.sum((x[None] - batch) ** 2, axis=1), {}

    centres = np.array([[1, 2], [5, 3], [3, 4]], np.float32)
    data = stack_workers(centres, [np.array([i]) for i in range(3)])
    optimizer = optax.chain(
        compress(compressors.terngrad(), key=0),
        aggregate(rules.mean()),
        optax.sgd(lambda t: 1 / (t.astype(float) + 1)),
    )

    def run(chunk: int) -> Any:
        return simulate(
            objective, jnp.zeros(2), data, optimizer, num_steps=5000, key=0, worker_chunk=chunk
        ).params

    x = jax.jit(run, static_argnums=0)(2)
    np.testing.assert_allclose(x, [3, 3], atol=0.1)


def test_errors():
    with pytest.raises(TypeError, match=r"compressor must be built, such as medjax\.comp"):
        compress(compressors.sign)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"qsgd\(levels=2\) draws random numbers: give compress a"):
        compress(QSGD)
    tx = compress(compressors.top_k(4))
    with pytest.raises(ValueError, match="keeps 4 coordinates, got an update of d = 3"):
        tx.update(jnp.ones((2, 3)), tx.init(None))
