"""Plain functions as compressors."""

import functools
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax import aggregate, compress, compressors, error_feedback, rules, simulate, stack_workers

N = 5
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 6)).astype(np.float32)
TREE = {
    "w": RNG.normal(size=(N, 2, 2)).astype(np.float32),
    "b": [jnp.asarray(RNG.normal(size=(N, 3)), jnp.bfloat16), jnp.ones((N, 0))],
    "c": RNG.normal(size=N).astype(np.float32),
}


def eighths(vector: jax.Array) -> tuple[jax.Array, int]:
    return jnp.round(8 * vector) / 8, 10 * vector.size


def largest(vector: jax.Array) -> tuple[jax.Array, int]:
    """The largest coordinate alone: 32 bits and its place."""
    place = jnp.argmax(jnp.abs(vector))
    return jnp.where(jnp.arange(vector.size) == place, vector, 0), 32 + 3


def one_of_them(vector: jax.Array, key: jax.Array) -> tuple[jax.Array, int]:
    """A random coordinate, times their number."""
    place = jax.random.randint(key, (), 0, vector.size)
    return jnp.where(jnp.arange(vector.size) == place, vector.size * vector, 0), 32 + 3


def keyword_only(vector: jax.Array, *, key: jax.Array) -> tuple[jax.Array, int]:
    return one_of_them(vector, key)


def joined(tree: Any) -> np.ndarray:
    """The matrix (n, d) of the stacked leaves, in float32."""
    parts = [np.asarray(leaf, np.float32).reshape(len(leaf), -1) for leaf in jax.tree.leaves(tree)]
    return np.concatenate(parts, axis=1)


def step(tx: optax.GradientTransformation, updates: Any = X) -> Any:
    return tx.update(updates, tx.init(jax.tree.map(lambda x: x[0], updates)))[0]


def only_largest(x: np.ndarray) -> np.ndarray:
    out, place = np.zeros_like(x), np.argmax(np.abs(x), axis=1)
    out[np.arange(len(x)), place] = x[np.arange(len(x)), place]
    return out


@pytest.mark.slow
def test_a_compressor_may_be_a_function_of_one_workers_vector():
    for transform in (lambda f: f, jax.jit):
        for function, expected in (
            (eighths, np.round(8 * X) / 8),
            (jax.jit(eighths), np.round(8 * X) / 8),
            (largest, only_largest(X)),
        ):
            out = transform(lambda x, f=function: step(compress(f), x))(X)
            np.testing.assert_array_equal(out, expected)


@pytest.mark.slow
def test_the_leaves_of_a_pytree_are_one_vector_in_float32():
    def recorded(vector: jax.Array) -> tuple[jax.Array, int]:
        assert (vector.shape, vector.dtype) == ((8,), jnp.float32)
        return largest(vector)

    out = jax.jit(lambda tree: step(compress(recorded), tree))(TREE)
    assert jax.tree.structure(out) == jax.tree.structure(TREE)
    expected = only_largest(joined(TREE))
    np.testing.assert_array_equal(joined(out), expected)
    for leaf, x in zip(jax.tree.leaves(out), jax.tree.leaves(TREE), strict=True):
        assert (leaf.shape, leaf.dtype) == (x.shape, x.dtype)
    third = step(compress(lambda vector: (vector / 3, 1)), TREE)["b"][0]
    np.testing.assert_array_equal(
        third, (TREE["b"][0].astype(jnp.float32) / 3).astype(jnp.bfloat16)
    )


def test_bits_are_what_the_function_says():
    like = jax.tree.map(lambda x: x[0], TREE)  # 8 coordinates
    for function, bits in ((eighths, 80), (largest, 35), (one_of_them, 35), (keyword_only, 35)):
        sent = compressors.communication(like, N, up=function, down=compressors.sign())
        assert sent == (N * bits, N * 8)
        assert isinstance(sent.up, int)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), like)
    assert compressors.communication(shapes, 1, down=lambda v: (v, np.int64(7))).down == 7


@pytest.mark.slow
@pytest.mark.parametrize("function", [one_of_them, keyword_only])
def test_each_worker_draws_by_itself_and_anew_at_each_step(function: Callable[..., Any]):
    tx = compress(function, key=2)
    state, places = tx.init(None), []
    for t in range(3):
        out, state = jax.jit(tx.update)(X, state)
        # The documented scheme: the stage's name, the step and the worker; then the compressor's.
        base = jax.random.fold_in(jax.random.key(2), zlib.crc32(b"compress"))
        for i in range(N):
            key = functools.reduce(jax.random.fold_in, (t, i, zlib.crc32(b"compress")), base)
            place = int(jax.random.randint(key, (), 0, 6))
            expected = np.zeros(6, np.float32)
            expected[place] = 6 * X[i, place]
            np.testing.assert_array_equal(out[i], expected)
            places.append(place)
    assert len(set(places)) > 2
    keys = jax.random.split(jax.random.key(0), 3)
    drawn = jax.vmap(lambda key: step(compress(function, key=key)))(keys)
    each = np.stack([step(compress(function, key=key)) for key in keys])
    np.testing.assert_array_equal(drawn, each)


def test_error_feedback_sends_later_what_a_function_left_out():
    tx = error_feedback(largest, N)
    state, sent, error = tx.init(X[0]), np.zeros_like(X), np.zeros_like(X)
    for t in range(1, 6):
        out, state = jax.jit(tx.update)(X, state)
        expected = only_largest(X + error)
        error = X + error - expected
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
        sent += out
        np.testing.assert_allclose(sent + state.error, t * X, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_it_is_streamed_before_an_additive_rule():
    # The gradients of f_i(w) = ‖w - x_i‖²/2 at 0 are -x_i.
    objective = lambda w, x: (jnp.sum((w[None] - x) ** 2, axis=1) / 2, {})  # noqa: E731
    data = stack_workers(X, np.arange(N)[:, None])
    tx = optax.chain(compress(largest), aggregate(rules.mean()), optax.sgd(1.0))
    for settings in ({"worker_chunk": 2, "streaming": "require"}, {"streaming": "off"}):
        run = simulate(objective, jnp.zeros(6), data, tx, num_steps=1, key=0, **settings)
        np.testing.assert_allclose(run.params, only_largest(X).mean(axis=0), rtol=1e-6)


def communication(function: Any) -> Any:
    return compressors.communication(X[0], N, up=function)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: step(compress(lambda vector: vector)),
            ValueError,
            "^compressor <lambda> must return the decoded vector and the message's bits, got ",
        ),
        (
            lambda: step(compress(lambda vector: (vector, 8, 9))),
            ValueError,
            "must return the decoded vector and the message's bits, got",
        ),
        (
            lambda: step(compress(lambda vector: (vector[:2], 8))),
            ValueError,
            r"^compressor <lambda> must decode to shape \(6,\), got \(2,\)",
        ),
        (lambda: communication(lambda v: (v, 1.5)), TypeError, "bits must be an integer, got 1.5"),
        (lambda: communication(lambda v: (v, -1)), ValueError, "bits must be at least 0, got -1"),
        (
            lambda: communication(lambda v: (v, jnp.sum(v > 0))),
            TypeError,
            "a message's bits changes? .* static, got a traced value",
        ),
        (lambda: communication(lambda v: v), ValueError, "the message's bits, got"),
        (lambda: communication(compressors.qsgd), TypeError, "compressor must be built, .* got <f"),
        (
            lambda: compress(lambda vector, levels: vector),
            TypeError,
            r"^compressor <lambda> must take 1 argument, it takes \(vector, levels\)$",
        ),
        (lambda: compress(compressors.top_k), TypeError, "compressor must be built, .* got <funct"),
        (lambda: compress(compressors.Compressor), TypeError, "must be built, .* got <class 'medj"),
        (lambda: compress(rules.mean()), TypeError, r"compressor must be built, .* got Additive\("),
        (lambda: compress("sign"), TypeError, "compressor must be built, .* function; got 'sign'"),
        (
            lambda: compress(one_of_them),
            ValueError,
            "^one_of_them draws random numbers: give compress a key$",
        ),
        (
            lambda: error_feedback(one_of_them, N),
            ValueError,
            "^one_of_them draws random numbers: give error_feedback a key$",
        ),
        (lambda: step(compress(eighths), X.astype(int)), TypeError, "must be floating point"),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        make()
