import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from medjax import adaptive_scale, aggregate, noise, noisy_sign, perturb, rules
from medjax._engine.lazy import Promised, StackedNeeded, promise

pytestmark = pytest.mark.optimized

# Additive rules of n workers, and coordinate-wise ones.
ADDITIVE: dict[str, Callable[[int], rules.Rule]] = {
    "mean": lambda n: rules.mean(),
    "mean(weights)": lambda n: rules.mean(1 + np.arange(n) % 3),
    "vote": lambda n: rules.majority_vote(),
    "vote(plus)": lambda n: rules.majority_vote(zero="plus"),
    "vote(random)": lambda n: rules.majority_vote(zero="random", tie="random"),
}
COORDINATE_WISE: dict[str, Callable[[int], rules.Rule]] = {
    "median": lambda n: rules.median(),
    "trimmed_mean": lambda n: rules.trimmed_mean(n // 3),
}
BEFORE: dict[str, list[optax.GradientTransformation]] = {
    "nothing": [],
    "perturb": [perturb(0.5, noise.laplace(), key=1)],
    "noisy_sign": [noisy_sign(0.5, noise.laplace(), key=1)],
    "both": [perturb(0.5, noise.uniform(), key=1), noisy_sign(0.5, noise.uniform(), key=2)],
}
# n and how many at a time: each one, even and odd, dividing n and not, all.
CUTS = [(1, 1), (2, 1), (5, 2), (5, 3), (8, 4), (8, 5), (13, 1), (13, 4), (13, 12), (13, 13)]


def gradients(n: int) -> dict[str, Any]:
    """Leaves of several shapes and precisions, with zeros and ties."""
    rng = np.random.default_rng(n)
    return {
        "w": jnp.asarray(rng.normal(size=(n, 3, 2)), jnp.float32),
        "b": [jnp.asarray(rng.integers(-1, 2, (n, 5)), jnp.bfloat16), jnp.zeros((n, 0))],
        "c": jnp.asarray(rng.integers(-1, 2, n), jnp.float32),
    }


def promised(stacked: Any, at_once: int) -> Promised:
    """A promise of updates that are sliced when they are asked for."""
    n = len(jax.tree.leaves(stacked)[0])

    def compute(inputs: Any, first: int | jax.Array, count: int) -> Any:
        assert count in (at_once, n % at_once, n)
        return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, first, count), inputs)

    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), stacked)
    return Promised(like, n, at_once, stacked, compute)


def run(before: str, make: Callable[[int], rules.Rule], n: int, at_once: int | None) -> Any:
    """Two steps of a chain of the gradients, streamed or not."""
    tx = optax.chain(*BEFORE[before], aggregate(make(n), key=3))

    @jax.jit
    def step(stacked: Any, state: Any) -> Any:
        return tx.update(stacked if at_once is None else promised(stacked, at_once), state)

    first, state = step(gradients(n), tx.init(None))
    second, _ = step(gradients(n), state)
    return jax.tree.map(lambda x: np.asarray(x, np.float32), [first, second])


unstreamed = functools.cache(functools.partial(run, at_once=None))


@pytest.mark.parametrize(("n", "at_once"), CUTS)
def test_streamed_equals_stacked(n: int, at_once: int):
    chosen = {name: make(n) for name, make in ADDITIVE.items() if not make(n).needs_key}

    @jax.jit
    def both(stacked: Any) -> Any:
        updates = (promised(stacked, at_once), stacked)
        return {name: [rule(x) for x in updates] for name, rule in chosen.items()}

    assert len(chosen) == 4
    for name, results in both(gradients(n)).items():
        streamed, whole = jax.tree.map(lambda x: np.asarray(x, np.float32), results)
        if name == "mean(weights)":  # products may be rounded before they are added, or not
            jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), streamed, whole)
        else:
            jax.tree.map(np.testing.assert_array_equal, streamed, whole)


# Drawing takes long to compile.
@pytest.mark.parametrize(
    ("before", "rule", "n", "at_once"),
    [
        ("nothing", "vote(random)", 5, 3),
        ("perturb", "vote(random)", 5, 3),
        ("noisy_sign", "vote(random)", 5, 2),
        ("noisy_sign", "mean", 8, 3),
        ("noisy_sign", "mean", 8, 4),
        ("both", "vote", 5, 3),
    ],
)
def test_draws_streamed_equal_those_stacked(before: str, rule: str, n: int, at_once: int):
    actual = run(before, ADDITIVE[rule], n, at_once)
    jax.tree.map(np.testing.assert_array_equal, actual, unstreamed(before, ADDITIVE[rule], n))


def test_a_mean_of_noisy_numbers_streamed_is_that_stacked_to_rounding():
    for actual, expected in zip(
        run("perturb", ADDITIVE["mean"], 13, 4),
        unstreamed("perturb", ADDITIVE["mean"], 13),
        strict=True,
    ):
        np.testing.assert_allclose(actual["w"], expected["w"], atol=1e-6)
        np.testing.assert_allclose(actual["c"], expected["c"], atol=1e-6)
        # XLA may leave out the rounding of the noisy number to bfloat16, of values up to 4.
        np.testing.assert_allclose(actual["b"][0], expected["b"][0], atol=4 * 2**-8)


@pytest.mark.parametrize("rule", COORDINATE_WISE)
def test_coordinate_wise_rules_of_promises(rule: str):
    for before in ("nothing", "both"):
        actual = run(before, COORDINATE_WISE[rule], 5, 2)
        expected = unstreamed(before, COORDINATE_WISE[rule], 5)
        jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize("rule", ["mean", "vote"])
def test_streamed_in_float64(rule: str):
    with jax.enable_x64(True):
        x = np.random.default_rng(0).normal(size=(13, 7))
        for at_once in (1, 4, 13):
            streamed = ADDITIVE[rule](13)(promised(jnp.asarray(x), at_once))
            assert streamed.dtype == np.float64
            np.testing.assert_array_equal(streamed, ADDITIVE[rule](13)(x))


@pytest.mark.parametrize("at_once", [1, 2, 3, 5])
def test_sum_gives_each_worker_its_own_row(at_once: int):
    # The rows side by side again, from a sum of as many blocks of which all but one are 0.
    g = gradients(5)
    rows = [np.asarray(x, np.float32).reshape(5, -1) for x in jax.tree.leaves(g)]
    places = promised(g, at_once).sum(
        lambda row, worker: [jnp.where(jnp.arange(5)[:, None] == worker.index, x, 0) for x in row]
    )
    jax.tree.map(lambda a, e: np.testing.assert_array_equal(a.astype(e.dtype), e), places, rows)


def test_rows_and_stacked_go_through_the_stages_in_order():
    g = gradients(5)
    double = lambda row, worker: [2 * x for x in row]  # noqa: E731
    add_index = lambda row, worker: [(x + worker.index).astype(x.dtype) for x in row]  # noqa: E731
    actual = promised(g, 2).then(double).then(add_index).stacked()

    def by_hand(x: jax.Array) -> np.ndarray:
        index = np.arange(5).reshape(-1, *[1] * (x.ndim - 1))
        return ((2 * x) + jnp.asarray(index, x.dtype)).astype(np.float32)

    assert jax.tree.structure(actual) == jax.tree.structure(g)
    for one, x in zip(jax.tree.leaves(actual), jax.tree.leaves(g), strict=True):
        assert (one.shape, one.dtype) == (x.shape, x.dtype)
        np.testing.assert_array_equal(one.astype(np.float32), by_hand(x))


def test_a_weighted_sum_takes_the_cheaper_way_unless_something_stands_before_it():
    g = {"w": jnp.arange(8.0).reshape(4, 2)}
    cheaper = replace(promised(g, 2), weighted=lambda g, w: {"w": 100 * w})
    np.testing.assert_allclose(rules.mean()(cheaper)["w"], np.full(4, 25))
    np.testing.assert_allclose(rules.mean([1, 2, 3, 4])(cheaper)["w"], [10, 20, 30, 40], rtol=1e-6)
    with pytest.raises(ValueError, match="mean has 2 weights, got updates of 4 workers"):
        rules.mean([1, 2])(cheaper)
    np.testing.assert_array_equal(rules.mean()(cheaper.then(lambda row, _: row))["w"], [3, 4])
    np.testing.assert_array_equal(rules.majority_vote()(cheaper)["w"], [1, 1])
    np.testing.assert_array_equal(rules.median()(cheaper)["w"], [3, 4])


def test_whoever_looks_inside_needs_the_updates():
    x = promised(gradients(3), 1)
    looks = [jax.tree.leaves, optax.tree.norm, lambda x: jax.tree.map(jnp.abs, [x])]
    looks += [lambda x: optax.clip(1.0).update(x, optax.EmptyState())]
    looks += [lambda x: perturb(adaptive_scale()).update(x, perturb(0.1).init(None))]
    for look in looks:
        with pytest.raises(StackedNeeded):
            look(x)


def test_stacked_updates_are_a_promise_kept_already():
    x = promise(gradients(3))
    assert promise(x) is x
    assert (x.num_workers, x.at_once) == (3, 3)
    jax.tree.map(np.testing.assert_array_equal, x.stacked(), gradients(3))
    for updates, error in (({}, ValueError), (np.ones((2, 2), np.int32), TypeError)):
        with pytest.raises(error):
            promise(updates)
