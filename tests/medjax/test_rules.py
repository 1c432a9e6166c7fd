import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax import lax

from medjax import rules

SETTINGS: dict[str, Callable[[int], dict[str, int]]] = {
    "trimmed_mean": lambda n: {"num_byzantine": (n - 1) // 3}
}
ROBUST = {"median": lambda n: (n - 1) // 2, "trimmed_mean": lambda n: (n - 1) // 3}
REFERENCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda x: x.mean(axis=0),
    "median": lambda x: np.median(x, axis=0),
    "majority_vote": lambda x: np.sign(np.sign(x).sum(axis=0)),
    "trimmed_mean": lambda x: np.sort(x, axis=0)[(len(x) - 1) // 3 :][
        : len(x) - 2 * ((len(x) - 1) // 3)
    ].mean(axis=0),
}
each_rule = pytest.mark.parametrize("name", rules.RULES)

# 0 and numbers of ordinary size: no product or sum of a few of them is subnormal.
NONZERO = st.floats(2**-10, 2**10, width=32) | st.floats(-(2**10), -(2**-10), width=32)
ROWS = hnp.arrays(np.float32, (7, 3), elements=NONZERO | st.sampled_from([0, 1, -1]))
ANYTHING = hnp.arrays(np.float32, (7, 3), elements=st.floats(width=32, allow_subnormal=False))


@pytest.fixture
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@functools.cache
def build(name: str, n: int) -> rules.Rule:
    return rules.RULES[name](**SETTINGS.get(name, lambda n: {})(n))


@functools.cache
def jitted(name: str, n: int) -> Callable[..., np.ndarray]:
    rule = jax.jit(build(name, n))
    return lambda x: np.asarray(rule(x))


def normals(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def assert_close(actual: Any, expected: Any, *inputs: Any) -> None:
    """To within 16 roundings at the size of the inputs."""
    atol = 16 * 2**-24 * sum(np.max(np.abs(x)) for x in inputs)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


def test_every_rule_has_a_reference():
    assert REFERENCES.keys() == rules.RULES.keys()


@each_rule
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 10, 129])
def test_equals_reference(name: str, n: int):
    for shape in ((n,), (n, 5), (n, 2, 3)):
        x = normals(*shape)
        actual = jitted(name, n)(x)
        assert actual.shape == shape[1:]
        assert_close(actual, REFERENCES[name](x.astype(np.float64)), x)


@each_rule
def test_jit_eager_vmap_and_scan_agree(name: str):
    rule, x = build(name, 6), normals(4, 6, 2, 3)
    eager = np.stack([rule(one) for one in x])
    assert_close(np.stack([jitted(name, 6)(one) for one in x]), eager, x)
    assert_close(jax.jit(jax.vmap(rule))(x), eager, x)
    assert_close(jax.vmap(rule, in_axes=1)(np.moveaxis(x, 0, 1)), eager, x)
    assert_close(lax.scan(lambda carry, one: (carry, rule(one)), None, x)[1], eager, x)


@pytest.mark.usefixtures("x64")
@each_rule
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_precision_is_kept(name: str, dtype: Any):
    x = jnp.asarray(normals(6, 5), dtype)
    actual = build(name, 6)(x)
    assert actual.dtype == dtype
    expected = REFERENCES[name](np.asarray(x, np.float64))
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, 4 * jnp.finfo(dtype).eps)


@each_rule
def test_pytree_is_aggregated_leaf_by_leaf(name: str):
    rule, x = build(name, 5), normals(5, 2, 3)
    tree = {
        "w": jnp.asarray(x),
        "b": [jnp.asarray(x[:, 0], jnp.bfloat16), jnp.asarray(x[:, 1, 0])],
        "none": jnp.zeros((5, 0, 2)),
    }
    actual = jax.jit(rule)(tree)
    expected = jax.tree.map(lambda leaf: rule(leaf), tree)
    assert jax.tree.structure(actual) == jax.tree.structure(tree)
    for one, other, leaf in zip(*map(jax.tree.leaves, (actual, expected, tree)), strict=True):
        assert (one.shape, one.dtype) == (leaf.shape[1:], leaf.dtype)
        np.testing.assert_array_equal(one, other)


@each_rule
def test_input_is_not_changed_and_key_is_not_needed(name: str):
    rule, x = build(name, 5), normals(5, 2)
    before = x.copy()
    assert not rule.needs_key
    assert isinstance(rule, rules.Rule)
    np.testing.assert_array_equal(rule(x, 3), rule(x))
    np.testing.assert_array_equal(x, before)


@each_rule
@given(x=ROWS, order=st.permutations(range(7)))
def test_order_of_workers_does_not_matter(name: str, x: np.ndarray, order: list[int]):
    assert_close(jitted(name, 7)(x[order]), jitted(name, 7)(x), x)


@pytest.mark.parametrize("name", rules.RULES.keys() - {"majority_vote"})
@given(x=ROWS, shift=NONZERO)
def test_translation_equivariance(name: str, x: np.ndarray, shift: float):
    shift = np.float32(shift)
    assert_close(jitted(name, 7)(x + shift), jitted(name, 7)(x) + shift, x, shift)


@each_rule
@given(x=ROWS, scale=NONZERO)
def test_scale_equivariance_and_oddness(name: str, x: np.ndarray, scale: float):
    # rule(cx) = c rule(x); the vote keeps only the sign of c. With c < 0 that is oddness.
    factor = np.float32(np.sign(scale) if name == "majority_vote" else scale)
    scaled = jitted(name, 7)(x * np.float32(scale))
    assert_close(scaled, factor * jitted(name, 7)(x), factor * x)
    assert_close(jitted(name, 7)(-x), -jitted(name, 7)(x), x)


@each_rule
@given(x=ROWS)
def test_result_is_in_the_range_of_the_rows(name: str, x: np.ndarray):
    x = np.sign(x) if name == "majority_vote" else x
    slack = 2**-20 * np.max(np.abs(x)) if name == "mean" else 0
    result = jitted(name, 7)(x)
    assert np.all((x.min(axis=0) - slack <= result) & (result <= x.max(axis=0) + slack))


@pytest.mark.parametrize("n", [6, 7])
@pytest.mark.parametrize("name", ROBUST)
@given(honest=ROWS, attack=ANYTHING, order=st.permutations(range(7)))
def test_result_is_in_the_range_of_the_honest_rows(
    name: str, n: int, honest: np.ndarray, attack: np.ndarray, order: list[int]
):
    f = ROBUST[name](n)  # arbitrary rows, NaN and ±∞ among them
    honest = honest[: n - f]
    x = np.concatenate([honest, attack[:f]])[[i for i in order if i < n]]
    result = jitted(name, n)(x)
    assert np.all((honest.min(axis=0) <= result) & (result <= honest.max(axis=0)))


@given(x=hnp.arrays(np.float32, (7, 3), elements=NONZERO))
def test_vote_is_the_sign_of_the_median(x: np.ndarray):
    # The identity of Chen et al. (2020) for an odd number of workers without zeros.
    vote, median = jitted("majority_vote", 7)(x), jitted("median", 7)(x)
    np.testing.assert_array_equal(vote, np.sign(median))


@given(x=ANYTHING)
def test_nan_abstains_from_the_vote(x: np.ndarray):
    finite = np.nan_to_num(x, nan=0.0, posinf=1.0, neginf=-1.0)
    np.testing.assert_array_equal(jitted("majority_vote", 7)(x), REFERENCES["majority_vote"](finite))


def test_mean_lets_nonfinite_rows_through():
    x = np.array([[1, 1, 1], [np.nan, np.inf, 2]], np.float32)
    np.testing.assert_array_equal(rules.mean()(x), [np.nan, np.inf, 1.5])


@pytest.mark.parametrize("name", ["mean", "majority_vote"])
def test_half_precision_is_summed_in_float32(name: str):
    # 310 votes for and 290 against: bfloat16 can't count beyond 256. The mean is 20/600 = 1/30.
    x = jnp.concatenate([jnp.ones((310, 1)), -jnp.ones((290, 1))]).astype(jnp.bfloat16)
    expected = jnp.bfloat16(1 if name == "majority_vote" else 1 / 30)
    assert build(name, 600)(x)[0] == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    # Votes by column: 0 + 0 - 1; 0 + 1 - 1; -0 + 0 + 0; 1 + 0 + NaN; 2 and 0 and 3.
    [({}, [-1, 0, 0, 1, 1]), ({"zero": "plus"}, [1, 1, 1, 1, 1])],
)
def test_votes_by_hand(options: dict[str, Any], expected: list[float]):
    x = np.array([[0, 0, -0.0, 5, 2], [0, 2, 0, 0, 0], [-3, -9, 0, np.nan, 3]], np.float32)
    np.testing.assert_array_equal(rules.majority_vote(**options)(x), expected)


def test_a_worker_with_zero_votes_plus_against_another():
    x = np.array([[0.0], [-2.0]], np.float32)  # 1 - 1
    np.testing.assert_array_equal(rules.majority_vote(zero="plus")(x), [0])


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"zero": "random"}, [0]),  # one coin
        ({"tie": "random"}, [1, -1]),
        ({"tie": "random"}, [0, math.nan]),
        ({"zero": "random", "tie": "random"}, [0, 1]),  # +1, or a tie and its own coin: P(-1) = 1/4
    ],
)
def test_random_votes_have_even_odds(options: dict[str, Any], rows: list[float]):
    rule, d = rules.majority_vote(**options), 40_000
    votes = np.asarray(rule(np.tile(np.float32(rows)[:, None], d), 0))
    p = 0.25 if rows == [0, 1] else 0.5
    assert set(votes) == {-1, 1}
    # The number of -1 is binomial: 5 standard deviations √(d p (1 - p)) are 500 for p = 1/2.
    assert abs(np.sum(votes == -1) - d * p) < 5 * math.sqrt(d * p * (1 - p))


def test_workers_and_leaves_draw_their_votes_independently():
    # Two workers' coins cancel half of the time; 5 standard deviations of 10,000 coins are 250.
    rule = rules.majority_vote(zero="random")
    both = rule({"a": np.zeros((2, 10_000), np.float32), "b": np.zeros((2, 10_000), np.float32)}, 0)
    assert abs(np.sum(both["a"] == 0) - 5000) < 250
    assert abs(np.sum((both["a"] == 0) == (both["b"] == 0)) - 5000) < 250


def test_random_options_leave_clear_votes_alone():
    rule, x = rules.majority_vote(zero="random", tie="random"), normals(7, 50)
    np.testing.assert_array_equal(rule(x, 0), rules.majority_vote()(x))


def test_random_votes_are_a_function_of_the_key():
    rule, x = rules.majority_vote(zero="random", tie="random"), np.zeros((3, 100), np.float32)
    first = rule(x, 5)
    for same in (jnp.int32(5), jax.random.key(5), jax.random.PRNGKey(5)):
        np.testing.assert_array_equal(jax.jit(rule)(x, same), first)
    assert np.any(first != rule(x, 6))
    assert rule.needs_key
    with pytest.raises(ValueError, match=r"zero=random, tie=random\) draws random numbers: give"):
        rule(x)


@pytest.mark.parametrize("weights", [[1, 2, 3, 0], [0.1, 0.1, 0.1, 0.7], [5, 0, 0, 0]])
def test_weighted_mean(weights: list[float]):
    x = normals(4, 5)
    expected = np.average(x.astype(np.float64), axis=0, weights=weights)
    assert_close(jax.jit(rules.mean(weights))(x), expected, x)
    assert_close(rules.mean(np.array(weights) * 1000)(x), expected, x)


def test_mean_of_weights_whose_sum_overflows():
    assert_close(rules.mean([1e308, 1e308])(np.array([1, 2], np.float32)), 1.5, 1.5)
