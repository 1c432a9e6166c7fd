"""Rules that a user adds to a family, and what their weights may do with the vectors."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import aggregate, mixing, rules

N = 6
X = np.random.default_rng(0).normal(1, 1, size=(N, 4)).astype(np.float32)
NUM_STEPS = 3


def distances(x: np.ndarray) -> np.ndarray:
    return np.sum((x[:, None] - x).astype(np.float64) ** 2, axis=2)


def reweighted(x: np.ndarray) -> np.ndarray:
    """Σ_i w_i x_i, with w_i ∝ 1/(1 + Σ_j w_j ‖x_i - x_j‖²) from w_i = 1/n, a few times over."""
    w = np.full(len(x), 1 / len(x))
    for _ in range(NUM_STEPS):
        w = 1 / (1 + distances(x) @ w)
        w /= w.sum()
    return w @ x


def weights_in_a_loop(vectors: rules.Vectors, key: Any) -> jax.Array:
    del key
    n = vectors.num_workers

    def advance(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        step, w = state
        w = 1 / (1 + vectors.squared_distances @ w)
        return step + 1, w / w.sum()

    start = (jnp.int32(0), jnp.full(n, 1 / n, vectors.dtype))
    return jax.lax.while_loop(lambda state: state[0] < NUM_STEPS, advance, start)[1]


def weights_in_a_jitted_function(vectors: rules.Vectors, key: Any) -> jax.Array:
    del key
    # Before anything else has used the products: what is computed inside must not stay there.
    within = jax.jit(lambda: jnp.diagonal(vectors.gram)[:-1] + vectors.squared_distances[0])()
    given = jax.jit(lambda v: jnp.diagonal(v.gram)[:-1] + v.squared_distances[0])(vectors)
    outside = jnp.diagonal(vectors.gram)[:-1] + vectors.squared_distances[0]
    w = 1 / (1 + (within + given + outside) / 3)
    return w / w.sum()


LOOP = rules.Geometric("in_a_loop", weights_in_a_loop)
JITTED = rules.Geometric("in_a_jitted_function", weights_in_a_jitted_function)


def about_the_pivot(x: np.ndarray) -> np.ndarray:
    """Results of `JITTED`; the pivot is one of the vectors, whichever the library chooses."""
    results = []
    for pivot in x:
        w = 1 / (1 + np.sum((x - pivot).astype(np.float64) ** 2, axis=1) + distances(x)[0])
        results.append(w @ x / w.sum())
    return np.stack(results)


@pytest.mark.slow
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_views_of_the_vectors_in_a_loop_leak_no_tracers(transform: Callable[..., Any]):
    with jax.checking_leaks():
        out = transform(lambda x: LOOP(x))(X)
        tx = aggregate(LOOP)
        chained = transform(lambda x: tx.update(x, tx.init(None))[0])(X)
    np.testing.assert_allclose(out, reweighted(X), rtol=1e-5)
    np.testing.assert_array_equal(chained, out)


@pytest.mark.slow
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_products_used_within_a_jitted_function_can_be_used_after_it(transform: Any):
    with jax.checking_leaks():
        out = np.asarray(transform(lambda x: JITTED(x))(X))
    apart = np.abs(about_the_pivot(X) - out).max(axis=1)
    assert apart.min() < 1e-5


@pytest.mark.slow
def test_vectors_in_a_loop_of_a_rule_under_vmap_and_after_a_mixing():
    many = np.stack([X, 3 - X, 2 * X])
    with jax.checking_leaks():
        batched = jax.jit(jax.vmap(lambda x: LOOP(x)))(many)
        mixed = jax.jit(mixing.premixed(LOOP, mixing.clip(1e6)))(X)
    np.testing.assert_allclose(batched, np.stack([reweighted(x) for x in many]), rtol=1e-5)
    np.testing.assert_allclose(mixed, reweighted(X), rtol=1e-5)


@pytest.mark.slow
def test_mixings_may_use_the_vectors_in_a_loop_too():
    stage = mixing.Mixing("each", lambda vectors, key: weights_in_a_loop(vectors, key)[None])
    with jax.checking_leaks():
        out = jax.jit(mixing.premixed(rules.mean(), stage))(X)
    np.testing.assert_allclose(out, reweighted(X), rtol=1e-5)


def test_vectors_are_a_pytree():
    def weights(vectors: rules.Vectors, key: Any) -> jax.Array:
        del key
        assert len(jax.tree.leaves(vectors)) == 1 + 5  # one leaf of the updates
        twice = jax.tree.map(lambda leaf: leaf, vectors)
        return jax.lax.cond(twice.norms[0] > 0, lambda v: v.norms, lambda v: -v.norms, vectors)

    out = jax.jit(lambda x: rules.Geometric("by_length", weights)(x))(X)
    np.testing.assert_allclose(out, np.linalg.norm(X, axis=1) @ X, rtol=1e-5)


@pytest.mark.slow
def test_a_geometric_rule_of_ones_own():
    def shortest(vectors: rules.Vectors, key: Any) -> jax.Array:
        del key
        return rules.mean_of_lowest(vectors.norms, count=2)

    def near_the_first(vectors: rules.Vectors, key: Any) -> jax.Array:
        del key
        return rules.mean_of(vectors.squared_distances[0] <= 4, vectors.dtype)

    order = np.argsort(np.linalg.norm(X, axis=1))
    out = jax.jit(lambda x: rules.Geometric("shortest", shortest)(x))(X)
    np.testing.assert_allclose(out, X[order[:2]].mean(axis=0), rtol=1e-6)
    near = distances(X)[0] <= 4
    assert 1 < near.sum() < N
    out = jax.jit(lambda x: rules.Geometric("near_the_first", near_the_first)(x))(X)
    np.testing.assert_allclose(out, X[near].mean(axis=0), rtol=1e-5)


@pytest.mark.slow
def test_a_geometric_rule_that_draws():
    def any_of_them(vectors: rules.Vectors, key: Any) -> jax.Array:
        chosen = jax.random.randint(key, (), 0, vectors.num_workers)
        return (jnp.arange(vectors.num_workers) == chosen).astype(vectors.dtype)

    rule = rules.Geometric("any", any_of_them, needs_key=True)
    drawn = jax.jit(lambda seed: rule(X, seed))
    chosen = {
        int(np.flatnonzero((np.asarray(drawn(seed)) == X).all(axis=1))[0]) for seed in range(20)
    }
    assert len(chosen) > 2
    with pytest.raises(ValueError, match="any draws random numbers: give it a key"):
        rule(X)


def test_a_coordinate_wise_rule_of_ones_own():
    rule = rules.CoordinateWise("range", lambda x: x.max(axis=0) - x.min(axis=0))
    tree = {"a": X, "b": jnp.asarray(X[:, 0], jnp.bfloat16)}
    out = jax.jit(lambda tree: rule(tree))(tree)
    np.testing.assert_array_equal(out["a"], X.max(axis=0) - X.min(axis=0))
    wide = np.asarray(tree["b"], np.float32)  # exact; only the result is rounded
    np.testing.assert_array_equal(out["b"], (wide.max() - wide.min()).astype(jnp.bfloat16))


@pytest.mark.slow
def test_an_additive_rule_of_ones_own():
    # √(Σ_i i x_i²), which needs the worker's index and both functions.
    rule = rules.Additive(
        "by_index",
        lambda x, i, key: i.astype(x.dtype) * x**2,
        lambda total, n, key: jnp.sqrt(total / n),
    )
    expected = np.sqrt(np.arange(N) @ X.astype(np.float64) ** 2 / N)
    for f in (rule, jax.jit(lambda x: rule(x)), aggregate(rule)):
        out = f(X) if not hasattr(f, "update") else f.update(X, f.init(None))[0]
        np.testing.assert_allclose(out, expected, rtol=1e-6)
