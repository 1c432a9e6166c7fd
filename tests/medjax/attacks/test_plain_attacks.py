"""Plain functions as attacks."""

import functools
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import aggregate, attacks, rules

N, F = 6, 2
H = N - F
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4)).astype(np.float32)
TREE = {
    "w": RNG.normal(size=(N, 2, 2)).astype(np.float32),
    "b": [jnp.asarray(RNG.normal(size=(N, 3)), jnp.bfloat16), jnp.ones((N, 0))],
    "c": RNG.normal(size=N).astype(np.float32),
}


def joined(tree: Any) -> np.ndarray:
    """The matrix (n, d) of the stacked leaves, in float32."""
    parts = [np.asarray(leaf, np.float32).reshape(len(leaf), -1) for leaf in jax.tree.leaves(tree)]
    return np.concatenate(parts, axis=1)


def flipped_mean(honest: jax.Array, byzantine: jax.Array, key: Any) -> jax.Array:
    del byzantine, key
    return -honest.mean(axis=0)


def beside_the_mean(honest: jax.Array, byzantine: jax.Array, key: Any) -> jax.Array:
    """One vector for each of the attackers, of what they would have sent."""
    assert key is None
    return honest.mean(axis=0, keepdims=True) + 2 * byzantine


def step(tx: optax.GradientTransformation, updates: Any = X) -> Any:
    return tx.update(updates, tx.init(None))[0]


@pytest.mark.slow
def test_one_vector_for_all_or_one_for_each():
    for transform in (lambda f: f, jax.jit):
        for function, forged in (
            (flipped_mean, np.tile(-X[:H].mean(axis=0), (F, 1))),
            (jax.jit(flipped_mean), np.tile(-X[:H].mean(axis=0), (F, 1))),
            (lambda honest, byzantine: -byzantine, -X[H:]),
            (beside_the_mean, X[:H].mean(axis=0) + 2 * X[H:]),
        ):
            sent = transform(lambda x, f=function: step(medjax.attack(f, F), x))(X)
            np.testing.assert_array_equal(sent[:H], X[:H])
            np.testing.assert_allclose(sent[H:], forged, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_a_function_equals_the_built_attack():
    sent = step(medjax.attack(flipped_mean, F), TREE)
    expected = step(medjax.attack(attacks.sign_flip(), F), TREE)
    for a, e in zip(*map(jax.tree.leaves, (sent, expected)), strict=True):
        assert (a.shape, a.dtype) == (e.shape, e.dtype)
        np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(e, np.float32), rtol=2**-8, atol=1e-6
        )


@pytest.mark.slow
def test_pytrees_are_matrices_of_float32_in_the_order_of_the_leaves_and_workers():
    given = []

    def increased(honest: jax.Array, byzantine: jax.Array, key: Any) -> jax.Array:
        given.append((honest, byzantine, key))
        return 1.5 * byzantine

    sent = step(medjax.attack(increased, F, byzantine=[4, 1]), TREE)
    ((honest, byzantine, key),) = given
    assert honest.dtype == byzantine.dtype == jnp.float32
    np.testing.assert_array_equal(honest, joined(TREE)[[0, 2, 3, 5]])
    np.testing.assert_array_equal(byzantine, joined(TREE)[[1, 4]])
    assert key is None
    assert jax.tree.structure(sent) == jax.tree.structure(TREE)
    for leaf, x in zip(jax.tree.leaves(sent), jax.tree.leaves(TREE), strict=True):
        assert (leaf.shape, leaf.dtype) == (x.shape, x.dtype)
        wide = np.array(x, np.float32)
        wide[[1, 4]] *= 1.5
        np.testing.assert_array_equal(leaf, jnp.asarray(wide, leaf.dtype))  # rounded once


def noise_for_each(honest: jax.Array, byzantine: jax.Array, key: Any) -> jax.Array:
    del honest
    return jax.random.normal(key, byzantine.shape)


def key_by_hand(seed: int, step: int) -> jax.Array:
    """The documented scheme: the stage's name, then the step, are folded in; then the attack's."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(b"attack"))
    return jax.random.fold_in(jax.random.fold_in(key, step), zlib.crc32(b"forge"))


@pytest.mark.slow
def test_a_key_makes_it_draw_anew_at_each_step():
    tx = medjax.attack(noise_for_each, F, 5)
    state = tx.init(None)
    for t in range(3):
        sent, state = jax.jit(tx.update)(X, state)
        np.testing.assert_array_equal(sent[:H], X[:H])
        expected = jax.random.normal(key_by_hand(5, t), (F, 4))
        np.testing.assert_allclose(sent[H:], expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("byzantine", ["last", "random", [2, 0]])
def test_vmap_and_scan_equal_each(byzantine: Any):
    def run(x: jax.Array, key: jax.Array) -> jax.Array:
        tx = medjax.attack(noise_for_each, F, key, byzantine=byzantine)
        return jax.lax.scan(lambda state, _: tx.update(x, state)[::-1], tx.init(x[0]), length=2)[1]

    keys = jax.random.split(jax.random.key(0), 2)
    batched = jax.jit(jax.vmap(run, in_axes=(None, 0)))(X, keys)
    for key, sent in zip(keys, batched, strict=True):
        tx = medjax.attack(noise_for_each, F, key, byzantine=byzantine)
        state = tx.init(None)
        for x in sent:
            expected, state = tx.update(X, state)
            np.testing.assert_allclose(x, expected, rtol=1e-6)
        chosen = np.flatnonzero((np.asarray(sent[0]) != X).any(axis=1))
        assert byzantine != [2, 0] or chosen.tolist() == [0, 2]
        assert byzantine != "last" or chosen.tolist() == [4, 5]
        assert len(chosen) == F


def test_the_state_tells_who_sent_what_is_not_finite():
    def some(honest: jax.Array, byzantine: jax.Array, key: Any) -> jax.Array:
        return byzantine.at[1, 0].set(jnp.inf)

    tx = medjax.attack(some, F)
    state = tx.update(X, tx.init(None))[1]
    np.testing.assert_array_equal(state.nonfinite, [False, True])


def test_no_attackers_do_not_call_it():
    def never(honest: jax.Array, byzantine: jax.Array, key: Any) -> jax.Array:
        raise AssertionError

    assert step(medjax.attack(never, 0)) is X


def test_in_a_chain_with_a_plain_rule():
    tx = optax.chain(medjax.attack(flipped_mean, F), aggregate(lambda x: x.sum(axis=0)))
    np.testing.assert_allclose(
        step(tx), X[:H].sum(axis=0) - F * X[:H].mean(axis=0), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: step(medjax.attack(lambda honest, byzantine, key: honest, F)),
            ValueError,
            r"^attack <lambda> must return vectors of shape \(2, 4\) or \(4,\), got \(4, 4\)$",
        ),
        (
            lambda: step(medjax.attack(lambda honest, byzantine, key: honest[0, 0], F)),
            ValueError,
            r"shape \(2, 4\) or \(4,\), got \(\)$",
        ),
        (
            lambda: medjax.attack(lambda honest: honest[0], F),
            TypeError,
            r"^attack <lambda> must take .* arguments, it takes \(honest\)$",
        ),
        (
            lambda: medjax.attack(lambda honest, byzantine, key, more: honest[0], F),
            TypeError,
            r"^attack <lambda> must take .* arguments, it takes \(honest, byzantine, key, more\)$",
        ),
        (
            lambda: medjax.attack(functools.partial(flipped_mean, X, X), F),
            TypeError,
            r"^attack partial must take .* arguments, it takes \(key: ",
        ),
        (
            lambda: medjax.attack(3, F),
            TypeError,
            r"^attack must be built, .* plain function; got 3",
        ),
        (
            lambda: medjax.attack(attacks.sign_flip, F),
            TypeError,
            "attack must be built, .* got <fu",
        ),
        (
            lambda: medjax.attack(attacks.optimal_alie, F),
            TypeError,
            "built, .* got <function optim",
        ),
        (
            lambda: medjax.attack(attacks.Attack, F),
            TypeError,
            "built, .* got <class 'medjax.*Attac",
        ),
        (
            lambda: medjax.attack(rules.median(), F),
            TypeError,
            "attack must be built, .* got Coordi",
        ),
        (
            lambda: medjax.attack(flipped_mean, F, byzantine="random"),
            ValueError,
            'byzantine="random" draws the workers: give attack a key',
        ),
        (
            lambda: step(medjax.attack(flipped_mean, N)),
            ValueError,
            "flipped_mean needs an honest worker, f < n, got f = 6 Byzantine of n = 6 workers",
        ),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        make()
