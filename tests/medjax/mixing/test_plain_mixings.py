"""Plain functions as mixing stages."""

import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import aggregate, mixing, rules

N = 6
RNG = np.random.default_rng(0)
X = RNG.normal(1, 1, size=(N, 4)).astype(np.float32)
PAIRS = np.kron(np.eye(3), [[0.5, 0.5]])  # (3, 6), the means of 0 1, 2 3 and 4 5


def pairs(vectors: jax.Array) -> jax.Array:
    assert vectors.shape[0] == N
    return jnp.asarray(PAIRS)


def by_similarity(vectors: jax.Array) -> jax.Array:
    """Weights that depend on the vectors, which all leaves together make up."""
    products = vectors @ vectors.T
    return jax.nn.softmax(products, axis=1)


def by_hand(x: np.ndarray) -> np.ndarray:
    shares = np.exp(x.astype(np.float64) @ x.T)
    return shares / shares.sum(axis=1, keepdims=True) @ x


def shuffle(vectors: jax.Array, *, key: jax.Array) -> jax.Array:
    return jnp.eye(len(vectors))[jax.random.permutation(key, len(vectors))]


def step(tx: optax.GradientTransformation, updates: Any = X) -> Any:
    return tx.update(updates, tx.init(None))[0]


def assert_close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_mixing_may_be_a_function_of_the_vectors_to_a_matrix():
    cases = (
        (pairs, PAIRS @ X),
        (by_similarity, by_hand(X)),
        (lambda vectors: np.ones((1, N), int), X.sum(axis=0)[None]),
        (jax.jit(by_similarity), by_hand(X)),
    )
    found = jax.jit(lambda x: [step(medjax.mix(function), x) for function, _ in cases])(X)
    for out, (_, expected) in zip(found, cases, strict=True):
        assert_close(out, expected)
    assert_close(step(medjax.mix(pairs)), PAIRS @ X)  # not jitted


@pytest.mark.slow
def test_all_leaves_together_are_one_vector_in_float32():
    half = jnp.asarray(X[:, 3:], jnp.bfloat16)
    given = []

    def recorded(vectors: jax.Array) -> jax.Array:
        given.append(vectors)
        return by_similarity(vectors)

    out = step(medjax.mix(recorded), {"a": X[:, :2], "b": X[:, 2], "c": [half, jnp.ones((N, 0))]})
    whole = np.concatenate([X[:, :3], np.asarray(half, np.float32)], axis=1)
    np.testing.assert_array_equal(given[0], whole)
    assert given[0].dtype == jnp.float32
    expected = by_hand(whole)
    assert_close(out["a"], expected[:, :2])
    assert_close(out["b"], expected[:, 2])
    assert out["c"][0].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(out["c"][0], np.float32), expected[:, 3:], rtol=2**-7)
    assert out["c"][1].shape == (N, 0)


@pytest.mark.slow
def test_a_vector_that_is_not_finite_spoils_what_it_has_a_part_in():
    x = X.copy()
    x[2, 1] = np.nan
    out = step(medjax.mix(pairs), x)
    assert_close(out[np.array([0, 2])], (PAIRS @ X)[[0, 2]])
    assert np.isnan(out[1]).all()


@pytest.mark.slow
def test_vmap_equals_each():
    many = np.stack([X, 2 * X, -X])
    tx = medjax.mix(by_similarity)
    batched = jax.jit(jax.vmap(lambda x: step(tx, x)))(many)
    assert_close(batched, np.stack([by_hand(x) for x in many]))


@pytest.mark.slow
def test_a_function_with_a_key_draws_anew_at_each_step():
    tx = medjax.mix(shuffle, key=3)
    state, orders, update = tx.init(None), set(), jax.jit(tx.update)
    for t in range(4):
        out, state = update(X, state)
        # The documented scheme: the stage's name, then the step; the mixing's, then its place.
        key = jax.random.fold_in(jax.random.key(3), zlib.crc32(b"mix"))
        key = jax.random.fold_in(jax.random.fold_in(key, t), zlib.crc32(b"mixing"))
        order = jax.random.permutation(jax.random.fold_in(key, 0), N)
        assert_close(out, X[order])
        orders.add(tuple(order.tolist()))
    assert len(orders) > 1
    keys = jax.random.split(jax.random.key(0), 3)
    draw = jax.jit(lambda key: step(medjax.mix(shuffle, key=key)))
    drawn, each = jax.jit(jax.vmap(draw))(keys), np.stack([draw(key) for key in keys])
    assert_close(drawn, each)
    assert len(np.unique(each, axis=0)) > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (rules.mean(), lambda x: x.mean(axis=0)),
        (rules.median(), lambda x: np.median(x, axis=0)),
        (rules.cge(1), lambda x: x[np.argsort(np.linalg.norm(x, axis=1))[:-1]].mean(axis=0)),
        (lambda vectors: vectors.max(axis=0), lambda x: x.max(axis=0)),
    ],
    ids=["additive", "coordinate_wise", "geometric", "plain"],
)
def test_before_a_rule_of_each_family(rule: Any, expected: Callable[[np.ndarray], np.ndarray]):
    both = mixing.premixed(rule, by_similarity, pairs)
    name = getattr(rule, "name", "<lambda>")
    assert both.name == f"by_similarity, pairs, {name}"
    assert not both.needs_key
    by_steps = expected(PAIRS @ by_hand(X))
    chain = optax.chain(medjax.mix(by_similarity), medjax.mix(pairs), aggregate(rule))
    drawn = mixing.premixed(rule, shuffle, mixing.bucketing(1))
    assert drawn.needs_key
    *mixed, whole = jax.jit(lambda x: [both(x), step(chain, x), drawn(x, 1)])(X)
    for found in mixed:
        assert_close(found, by_steps)
    assert_close(whole, expected(X))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: step(medjax.mix(lambda vectors: vectors)),
            ValueError,
            r"^mixing <lambda> must return a matrix \(m, 6\), got shape \(6, 4\)$",
        ),
        (lambda: step(medjax.mix(lambda x: x[:, 0])), ValueError, r"\(m, 6\), got shape \(6,\)$"),
        (lambda: step(medjax.mix(lambda x: x[:0, :1].T)), ValueError, r"got shape \(1, 0\)$"),
        (lambda: step(medjax.mix(lambda x: jnp.ones((0, N)))), ValueError, r"got shape \(0, 6\)$"),
        (
            lambda: medjax.mix(lambda vectors, f: vectors),
            TypeError,
            r"^mixing <lambda> must take 1 argument, it takes \(vectors, f\)$",
        ),
        (lambda: medjax.mix(mixing.bucketing), TypeError, "mixing must be built, .* got <function"),
        (lambda: medjax.mix(mixing.Mixing), TypeError, "mixing must be built, .* got <class 'med"),
        (
            lambda: medjax.mix(rules.krum(1), 0),
            TypeError,
            r"mixing must be built, .* got Geometric",
        ),
        (lambda: medjax.mix(PAIRS), TypeError, r"mixing must be built, .* got array\("),
        (lambda: medjax.mix(shuffle), ValueError, "^shuffle draws random numbers: give mix a key$"),
        (
            lambda: mixing.premixed(rules.median(), shuffle)(X),
            ValueError,
            "^shuffle draws random numbers: give it a key$",
        ),
        (lambda: mixing.premixed(rules.median(), mixing.nnm), TypeError, "mixing must be built, "),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        make()
