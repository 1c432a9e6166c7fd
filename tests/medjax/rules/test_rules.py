import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medjax import rules

pytestmark = pytest.mark.optimized

# Each rule's settings for n workers, if any; how many may be arbitrary; what it should give.
SETTINGS: dict[str, Callable[[int], dict]] = {
    name: lambda n: {"num_byzantine": n // 3} for name in ("trimmed_mean", "meamed", "phocas")
}
ROBUST = {"median": lambda n: (n - 1) // 2, "trimmed_mean": lambda n: n // 3}


def trimmed_mean(x: np.ndarray) -> np.ndarray:
    return np.sort(x, axis=0)[len(x) // 3 : len(x) - len(x) // 3].mean(axis=0)


def mean_near(x: np.ndarray, center: np.ndarray) -> np.ndarray:
    nearest = np.argsort(np.abs(x - center), axis=0)[: len(x) - len(x) // 3]
    return np.take_along_axis(x, nearest, axis=0).mean(axis=0)


REFERENCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda x: x.mean(axis=0),
    "median": lambda x: np.median(x, axis=0),
    "majority_vote": lambda x: np.sign(np.sign(x).sum(axis=0)),
    "trimmed_mean": trimmed_mean,
    "meamed": lambda x: mean_near(x, np.median(x, axis=0)),
    "phocas": lambda x: mean_near(x, trimmed_mean(x)),
}
AROUND = ("meamed", "phocas")  # which values they keep may turn on a rounding
# Those that treat each coordinate, and so each leaf, alone; see test_geometric_rules.py for others.
each_rule = pytest.mark.parametrize("name", REFERENCES)

# 0 and numbers of ordinary size: no product or sum of a few of them is subnormal.
NONZERO = st.floats(2**-10, 2**10, width=32) | st.floats(-(2**10), -(2**-10), width=32)
ROWS = hnp.arrays(np.float32, (7, 3), elements=NONZERO | st.sampled_from([0, 1, -1]))
ANYTHING = hnp.arrays(np.float32, (7, 3), elements=st.floats(width=32, allow_subnormal=False))


@functools.cache
def build(name: str, n: int) -> rules.Rule:
    return rules.RULES[name](**SETTINGS.get(name, lambda n: {})(n))


@functools.cache
def jitted(name: str, n: int) -> Callable[..., jax.Array]:
    return jax.jit(build(name, n))


def normals(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def assert_close(actual: Any, expected: Any, *inputs: Any) -> None:
    """To within 16 roundings at the size of the inputs."""
    atol = 16 * 2**-24 * sum(np.max(np.abs(x)) for x in inputs)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


@each_rule
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 10, 129])
def test_equals_reference(name: str, n: int):
    # Each shape is a program; those of many workers take seconds to compile.
    for shape in ((n,), (n, 5), (n, 2, 3)) if n < 100 else ((n, 5),):
        x = normals(*shape)
        actual = jitted(name, n)(x)
        assert actual.shape == shape[1:]
        assert_close(actual, REFERENCES[name](x.astype(np.float64)), x)


@each_rule
def test_jit_eager_vmap_and_scan_agree(name: str):
    rule, x = build(name, 6), normals(4, 6, 2, 3)
    assert isinstance(rule, rules.Rule)
    eager = np.stack([rule(one) for one in x])
    assert_close(np.stack([jitted(name, 6)(one) for one in x]), eager, x)
    assert_close(jax.jit(jax.vmap(rule))(x), eager, x)
    assert_close(jax.vmap(rule, in_axes=1)(np.moveaxis(x, 0, 1)), eager, x)
    assert_close(jax.lax.scan(lambda carry, one: (carry, rule(one)), None, x)[1], eager, x)
    with jax.disable_jit():
        assert_close(np.stack([rule(one) for one in x]), eager, x)


@each_rule
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_precision_is_kept(name: str, dtype: Any):
    with jax.enable_x64(True):
        x = jnp.asarray(normals(6, 5), dtype)
        actual = jitted(name, 6)(x)
    assert actual.dtype == dtype
    expected = REFERENCES[name](np.asarray(x, np.float64))
    eps = jnp.finfo(dtype).eps
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, 4 * eps, eps / 4)


@each_rule
def test_pytree_is_aggregated_leaf_by_leaf(name: str):
    rule, x = build(name, 5), normals(5, 2, 3)
    tree = {
        "w": jnp.asarray(x),
        "b": [jnp.asarray(x[:, 0], jnp.bfloat16), jnp.asarray(x[:, 1, 0])],
        "none": jnp.zeros((5, 0, 2)),
    }
    actual = jax.jit(rule)(tree)
    expected = jax.jit(lambda tree: jax.tree.map(rule, tree))(tree)
    assert jax.tree.structure(actual) == jax.tree.structure(tree)
    for one, other, leaf in zip(*map(jax.tree.leaves, (actual, expected, tree)), strict=True):
        assert (one.shape, one.dtype) == (leaf.shape[1:], leaf.dtype)
        np.testing.assert_array_equal(one, other)


@each_rule
@given(x=ROWS, order=st.permutations(range(7)))
def test_order_of_workers_does_not_matter(name: str, x: np.ndarray, order: list[int]):
    assert_close(jitted(name, 7)(x[order]), jitted(name, 7)(x), x)


@each_rule
@given(x=ROWS, scale=st.sampled_from([1, -1]) | NONZERO, shift=NONZERO)
def test_affine_equivariance(name: str, x: np.ndarray, scale: float, shift: float):
    # rule(cx + s) = c rule(x) + s; the vote keeps the sign of c only. It is oddness at c = -1.
    c, s = np.float32(scale), np.float32(0 if name == "majority_vote" else shift)
    if name in AROUND:
        x, c, s = np.round(x), np.copysign(np.float32(2), c), np.round(s)
    factor = np.sign(c) if name == "majority_vote" else c
    rule = jitted(name, 7)
    assert_close(rule(c * x), factor * rule(x), factor * x)
    assert_close(rule(c * x + s), factor * rule(x) + s, c * x, s)


@each_rule
@given(x=ROWS)
def test_result_is_in_the_range_of_the_rows(name: str, x: np.ndarray):
    x = np.sign(x) if name == "majority_vote" else x
    slack = 2**-20 * np.max(np.abs(x)) if name in ("mean", *AROUND) else 0
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
    expected = REFERENCES["majority_vote"](np.nan_to_num(x, nan=0.0, posinf=1.0, neginf=-1.0))
    np.testing.assert_array_equal(jitted("majority_vote", 7)(x), expected)


@pytest.mark.parametrize("name", ["mean", "majority_vote"])
def test_half_precision_is_summed_in_float32(name: str):
    # 310 votes for and 290 against: bfloat16 can't count beyond 256. The mean is 20/600 = 1/30.
    x = jnp.concatenate([jnp.ones((310, 1)), -jnp.ones((290, 1))]).astype(jnp.bfloat16)
    expected = jnp.bfloat16(1 if name == "majority_vote" else 1 / 30)
    assert build(name, 600)(x)[0] == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    # Signs by column: 0 0 -, 0 + -, 0 0 0, + 0 NaN, 0 - NaN, + - -; with "plus" each 0 is a +.
    [({}, [-1, 0, 0, 1, -1, -1]), ({"zero": "plus"}, [1, 1, 1, 1, 0, -1])],
)
def test_votes_by_hand(options: dict[str, Any], expected: list[float]):
    x = [[0, 0, -0.0, 5, 0, 9], [0, 2, 0, 0, -1, -1], [-3, -9, 0, np.nan, np.nan, -1]]
    np.testing.assert_array_equal(rules.majority_vote(**options)(np.float32(x)), expected)


@pytest.mark.parametrize(
    ("options", "rows", "minus", "plus"),  # the probabilities of -1 and +1
    [
        ({"zero": "random"}, [0], 1 / 2, 1 / 2),
        ({"zero": "random"}, [0, 0], 1 / 4, 1 / 4),  # two coins, equal half of the time
        ({"tie": "random"}, [1, -1], 1 / 2, 1 / 2),
        ({"tie": "random"}, [0, 1], 0, 1),  # 0 has no vote
        ({"tie": "random"}, [0, math.nan], 1 / 2, 1 / 2),
        ({"zero": "random", "tie": "random"}, [0, 1], 1 / 4, 3 / 4),  # +1, or a tie: its own coin
        ({"zero": "random", "tie": "random"}, [math.nan, 1, 0], 1 / 4, 3 / 4),
    ],
)
def test_odds_of_random_votes(options: dict[str, Any], rows: list, minus: float, plus: float):
    d = 40_000
    votes = jax.jit(rules.majority_vote(**options))(np.tile(np.float32(rows)[:, None], d), 0)
    for vote, p in ((-1, minus), (1, plus)):  # 5 standard deviations of a binomial number
        assert abs(np.sum(votes == vote) - d * p) <= 5 * math.sqrt(d * p * (1 - p))


def test_random_votes_are_a_function_of_the_key_where_they_are_needed():
    rule, x = rules.majority_vote(zero="random", tie="random"), np.zeros((3, 100), np.float32)
    vote, certain = jax.jit(rule), jax.jit(rules.majority_vote())(normals(3, 100))
    np.testing.assert_array_equal(vote(normals(3, 100), 5), certain)
    first = rule(x, 5)  # which needs no jit, and a number as its key
    for same in (jnp.int32(5), jax.random.key(5), jax.random.PRNGKey(5)):
        np.testing.assert_array_equal(vote(x, same), first)
    assert np.any(first != vote(x, 6))
    assert np.any(np.subtract(*vote([x, x], 5)))  # leaves draw apart
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


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: rules.trimmed_mean(-1), ValueError, "num_byzantine must be at least 0, got -1"),
        (lambda: rules.trimmed_mean(1.5), TypeError, "num_byzantine must be an integer, got 1.5"),
        (lambda: rules.trimmed_mean(True), TypeError, "num_byzantine must be an integer, got True"),
        (lambda: jax.jit(rules.trimmed_mean)(1), TypeError, "must be static, got a traced value"),
        (lambda: rules.trimmed_mean(2)(normals(4, 1)), ValueError, "2f < n, got f = 2 and n = 4"),
        (lambda: rules.majority_vote(zero="minus"), ValueError, "zero, plus, random; got 'minus'"),
        (lambda: rules.majority_vote(tie="plus"), ValueError, "tie must be one of zero, random; g"),
        (lambda: rules.mean([1, -1]), ValueError, r"weights must .* least 0, got \[1, -1\]"),
        (lambda: rules.mean([1, math.nan]), ValueError, "weights must be a finite number"),
        (lambda: rules.mean([0, 0]), ValueError, r"with a positive sum, got \[0, 0\]"),
        (lambda: rules.mean([[1, 2]]), ValueError, "weights must be a list of numbers"),
        (lambda: rules.mean([1, 2])(normals(3, 1)), ValueError, "2 weights, got .* of 3 workers"),
    ],
)
def test_impossible_settings(make: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        make()


@each_rule
@pytest.mark.parametrize(
    ("updates", "error", "message"),
    [
        ({}, ValueError, "need at least one array, got an empty pytree"),
        ({"a": np.float32(1)}, ValueError, r"workers along axis 0, leaf \['a'\] is a scalar"),
        (np.ones((0, 2), np.float32), ValueError, "needs at least 1 worker, got 0"),
        ([np.ones((2, 2), np.int32)], TypeError, r"be floating point, leaf \[0\] is int32"),
        ((normals(2), normals(3, 1)), ValueError, r"disagree on the number of workers: \[2, 3\]"),
    ],
)
def test_impossible_updates(name: str, updates: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        build(name, 2)(updates)
