"""Plain functions as rules."""

import collections
import functools
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax import aggregate, attacks, mixing, rules
from medjax.rules import FromFunction

N = 6
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4)).astype(np.float32)
# Leaves of several shapes and precisions, with 8 coordinates in all.
TREE = {
    "w": RNG.normal(size=(N, 2, 2)).astype(np.float32),
    "b": [jnp.asarray(RNG.normal(size=(N, 3)), jnp.bfloat16), jnp.ones((N, 0))],
    "c": 10 * RNG.normal(size=N).astype(np.float32),
}


def joined(tree: Any) -> np.ndarray:
    """The matrix (n, d) of the stacked leaves, in float32."""
    parts = [np.asarray(leaf, np.float32).reshape(len(leaf), -1) for leaf in jax.tree.leaves(tree)]
    return np.concatenate(parts, axis=1)


def midrange(vectors: jax.Array) -> jax.Array:
    return (vectors.min(axis=0) + vectors.max(axis=0)) / 2


def longest(vectors: jax.Array) -> jax.Array:
    """The longest vector: it depends on all leaves together."""
    return vectors[jnp.argmax(jnp.linalg.norm(vectors, axis=1))]


def step(tx: optax.GradientTransformation, updates: Any = X) -> Any:
    return tx.update(updates, tx.init(None))[0]


def assert_close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


def test_a_rule_may_be_a_function_of_the_matrix_of_vectors():
    expected = (X.min(axis=0) + X.max(axis=0)) / 2
    for function in (midrange, jax.jit(midrange), functools.partial(midrange)):
        assert_close(step(aggregate(function)), expected)
        assert_close(jax.jit(lambda x, f=function: step(aggregate(f), x))(X), expected)
    chain = optax.chain(optax.scale(3.0), aggregate(midrange), optax.sgd(0.1))
    assert_close(chain.update(X, chain.init(X[0]))[0], -0.3 * expected)


def test_an_object_that_can_be_called_is_a_function():
    class Quantile:
        def __init__(self, q: float):
            self.q = q

        def __call__(self, vectors: jax.Array) -> jax.Array:
            return jnp.quantile(vectors, self.q, axis=0)

    assert_close(step(aggregate(Quantile(0.25))), np.quantile(X, 0.25, axis=0))
    assert FromFunction(Quantile(0.25)).name == "Quantile"
    assert FromFunction(midrange).name == "midrange"


@pytest.mark.slow
def test_the_leaves_of_a_pytree_are_joined_in_order_and_keep_their_dtypes():
    given = []

    def last(vectors: jax.Array) -> jax.Array:
        given.append(vectors)
        return vectors[-1]

    out = step(aggregate(last), TREE)
    (vectors,) = given
    assert vectors.dtype == jnp.float32
    np.testing.assert_array_equal(vectors, joined(TREE))
    assert jax.tree.structure(out) == jax.tree.structure(TREE)
    for leaf, x in zip(jax.tree.leaves(out), jax.tree.leaves(TREE), strict=True):
        assert (leaf.shape, leaf.dtype) == (x.shape[1:], x.dtype)
        np.testing.assert_array_equal(np.asarray(leaf, np.float32), np.asarray(x[-1], np.float32))
    half = jnp.asarray(X, jnp.bfloat16)
    assert step(aggregate(last), half).dtype == jnp.bfloat16
    assert given[1].dtype == jnp.float32  # at least


def test_all_leaves_together_are_one_vector():
    matrix = joined(TREE)
    expected = matrix[np.argmax(np.linalg.norm(matrix, axis=1))]
    out = jax.jit(lambda tree: step(aggregate(longest), tree))(TREE)
    assert_close(joined(jax.tree.map(lambda leaf: leaf[None], out))[0], expected)
    per_leaf = TREE["w"][np.argmax(np.linalg.norm(TREE["w"].reshape(N, -1), axis=1))]
    assert np.any(out["w"] != per_leaf)


@pytest.mark.slow
def test_a_result_wider_than_a_leaf_is_rounded_to_it():
    third = step(aggregate(lambda vectors: vectors[0] / 3), TREE)["b"][0]
    expected = (TREE["b"][0][0].astype(jnp.float32) / 3).astype(jnp.bfloat16)
    assert third.dtype == jnp.bfloat16
    np.testing.assert_array_equal(third, expected)


def test_a_function_of_the_stacked_updates_as_they_are():
    def sums(updates: Any) -> Any:
        assert updates["w"].shape == (N, 2, 2)
        return jax.tree.map(lambda leaf: leaf.sum(axis=0), updates)

    out = jax.jit(lambda tree: step(aggregate(FromFunction(sums, flat=False)), tree))(TREE)
    assert jax.tree.structure(out) == jax.tree.structure(TREE)
    assert_close(out["w"], TREE["w"].sum(axis=0))
    assert_close(out["c"], TREE["c"].sum())
    assert out["b"][0].dtype == jnp.bfloat16
    np.testing.assert_array_equal(out["b"][0], TREE["b"][0].sum(axis=0))
    matrix = np.stack([X, -X], axis=1)  # (n, 2, 4) stays so
    whole = FromFunction(lambda x: x[0] - x[1], flat=False)(matrix)
    np.testing.assert_array_equal(whole, matrix[0] - matrix[1])


def by_name(vectors: jax.Array, key: jax.Array) -> jax.Array:
    return vectors[jax.random.randint(key, (), 0, len(vectors))]


def keyword_only(vectors: jax.Array, *, key: jax.Array) -> jax.Array:
    return by_name(vectors, key)


def with_default(vectors: jax.Array, scale: float = 1.0, key: Any = None) -> jax.Array:
    return scale * by_name(vectors, key)


@pytest.mark.slow
@pytest.mark.parametrize("function", [by_name, keyword_only, with_default])
def test_a_function_with_a_key_draws_anew_at_each_step(function: Callable[..., jax.Array]):
    tx = aggregate(function, key=4)
    state, chosen = tx.init(None), []
    for t in range(8):
        out, state = jax.jit(tx.update)(X, state)
        # The documented scheme: the stage's name, then the step, are folded in; then the rule's.
        key = jax.random.fold_in(jax.random.key(4), zlib.crc32(b"aggregate"))
        key = jax.random.fold_in(jax.random.fold_in(key, t), zlib.crc32(b"rule"))
        chosen.append(int(jax.random.randint(key, (), 0, N)))
        np.testing.assert_array_equal(out, X[chosen[-1]])
    assert len(set(chosen)) > 1
    rule = FromFunction(function)
    assert rule.needs_key
    np.testing.assert_array_equal(rule(X, 7), rule(X, jax.random.key(7)))
    tree = FromFunction(lambda updates, key: {"a": by_name(updates["a"], key)}, flat=False)
    np.testing.assert_array_equal(tree({"a": X}, 7)["a"], rule(X, 7))


@pytest.mark.slow
def test_vmap_and_scan_equal_each():
    many = np.stack([X, 2 * X, -X])
    tx = aggregate(midrange)
    expected = np.stack([step(tx, x) for x in many])
    assert_close(jax.jit(jax.vmap(lambda x: step(tx, x)))(many), expected)
    start = tx.init(None)
    scanned = jax.lax.scan(lambda state, x: tx.update(x, state)[::-1], start, many)[1]
    assert_close(scanned, expected)
    keys = jax.random.split(jax.random.key(0), 9)
    drawn = jax.vmap(lambda key: step(aggregate(with_default, key=key)))(keys)
    each = [step(aggregate(with_default, key=key)) for key in keys]
    np.testing.assert_array_equal(drawn, np.stack(each))


@pytest.mark.slow
def test_a_function_stands_wherever_a_rule_does():
    mixed = mixing.premixed(midrange, mixing.bucketing(1))
    assert mixed.name == "bucketing(bucket_size=1), midrange"
    assert_close(mixed(X, key=0), midrange(X))
    drawn = mixing.premixed(with_default, mixing.clip(1e6))
    np.testing.assert_array_equal(drawn(X, 3), FromFunction(with_default)(X, 3))
    # The farthest end moves the midrange the farthest.
    attack = attacks.optimal_ipm(midrange, max_tau=1000.0)
    assert_close(attack(X, 1)[-1], -1000 * X[:-1].mean(axis=0))


@pytest.mark.slow
def test_a_function_equals_the_built_rule():
    for function, rule in (
        (lambda vectors: jnp.median(vectors, axis=0), rules.median()),
        (lambda vectors: vectors.mean(axis=0), rules.mean()),
    ):
        for actual, expected in zip(
            *(jax.tree.leaves(step(aggregate(r), TREE)) for r in (function, rule)), strict=True
        ):
            assert actual.dtype == expected.dtype
            np.testing.assert_allclose(
                np.asarray(actual, np.float32), np.asarray(expected, np.float32), rtol=2**-8
            )


def reordered(updates: Any) -> Any:
    """Equal to the wanted dictionary, but its leaves are in another order."""
    return collections.OrderedDict(b=updates["b"][0], a=updates["a"][0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: step(aggregate(lambda vectors: vectors)),
            ValueError,
            r"^rule <lambda> must drop the worker axis and return shape \(4,\), got \(6, 4\)$",
        ),
        (lambda: step(aggregate(jnp.median)), ValueError, r"rule median must .*\(4,\), got \(\)"),
        (lambda: step(aggregate(lambda x: None)), ValueError, r"return shape \(4,\), got None"),
        (lambda: step(aggregate(lambda x: x[:2]), X[:2, :2]), ValueError, r", got \(2, 2\)"),
        (lambda: step(aggregate(midrange), X.astype(int)), TypeError, "must be floating point"),
        (
            lambda: FromFunction(lambda x: x["a"][0], flat=False)({"a": X}),
            ValueError,
            r"return shape {'a': \(4,\)}, got \(4,\)$",
        ),
        (
            lambda: FromFunction(reordered, flat=False)({"a": X, "b": X}),
            ValueError,
            r"return shape {'a': .*}, got OrderedDict\(",
        ),
        (lambda: aggregate(5), TypeError, r"^rule must be built, such as .*\(\), or a .*; got 5$"),
        (lambda: aggregate("median"), TypeError, "or a plain function; got 'median'"),
        (lambda: aggregate(rules.median), TypeError, "rule must be built, .* got <function median"),
        (lambda: aggregate(rules.trimmed_mean), TypeError, "built, .* got <function trimmed_mean"),
        (lambda: aggregate(rules.krum), TypeError, "rule must be built, .* got <function krum"),
        (lambda: aggregate(rules.Geometric), TypeError, "built, .* got <class 'medjax.*Geometric'"),
        (lambda: aggregate(rules.FromFunction), TypeError, "built, .* got <class 'medjax.*FromF"),
        (lambda: aggregate(mixing.nnm(1)), TypeError, r"rule must be built, .* got Mixing\(name="),
        (lambda: aggregate(lambda: X[0]), TypeError, r"rule <lambda> must take 1 arg.*takes \(\)$"),
        (
            lambda: aggregate(lambda vectors, other: vectors[0]),
            TypeError,
            r"^rule <lambda> must take 1 argument, it takes \(vectors, other\)$",
        ),
        (
            lambda: aggregate(functools.partial(midrange, X)),
            TypeError,
            r"^rule partial must take 1 argument, it takes \(\)",
        ),
        (
            lambda: aggregate(with_default),
            ValueError,
            "with_default draws random numbers: give aggregate a key",
        ),
        (
            lambda: FromFunction(with_default)(X),
            ValueError,
            "with_default draws random numbers: give it a key",
        ),
        (
            lambda: mixing.premixed(with_default, mixing.clip(1.0))(X),
            ValueError,
            "with_default draws random numbers: give it a key",
        ),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        make()


def test_an_attack_is_no_rule():
    with pytest.raises(TypeError, match=r"^rule must be built, such as .*; got Attack\(name='alie"):
        aggregate(attacks.alie())
