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
# 0 and numbers of ordinary size: no product or sum of a few of them is subnormal.
NONZERO = st.floats(2**-10, 2**10, width=32) | st.floats(-(2**10), -(2**-10), width=32)
ROWS = hnp.arrays(np.float32, (7, 3), elements=NONZERO | st.sampled_from([0, 1, -1]))
ANYTHING = hnp.arrays(np.float32, (7, 3), elements=st.floats(width=32, allow_subnormal=False))


@functools.cache
def build(name: str, n: int) -> rules.Rule:
    return rules.RULES[name](**SETTINGS.get(name, lambda n: {})(n))


@functools.cache
def jitted(n: int) -> Callable[..., dict[str, np.ndarray]]:
    """All rules in one program, which takes less to compile than one for each."""
    apply = jax.jit(lambda x: {name: build(name, n)(x) for name in REFERENCES})
    return lambda x: jax.device_get(apply(x))  # arithmetic with NumPy's arrays isn't a program


def normals(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def assert_close(actual: Any, expected: Any, *inputs: Any, name: str = "") -> None:
    """To within 16 roundings at the size of the inputs."""
    atol = 16 * 2**-24 * sum(np.max(np.abs(x)) for x in inputs)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    # Each shape is a program.
    "shape",
    [(1, 5), (2, 5), (7, 5), (10, 5), (129, 5), (7,), (4, 2, 3)],
)
def test_equals_reference(shape: tuple[int, ...]):
    x = normals(*shape)
    for name, actual in jitted(len(x))(x).items():
        assert actual.shape == shape[1:], name
        assert_close(actual, REFERENCES[name](x.astype(np.float64)), x, name=name)


@pytest.mark.slow
def test_jit_eager_vmap_and_scan_agree():
    x, built = normals(4, 6, 2, 3), {name: build(name, 6) for name in REFERENCES}
    assert all(isinstance(rule, rules.Rule) for rule in built.values())

    def each(one: Any) -> dict[str, jax.Array]:
        return {name: rule(one) for name, rule in built.items()}

    @jax.jit
    def ways(x: jax.Array) -> dict[str, Any]:
        return {
            "vmap": jax.vmap(each)(x),
            "scan": jax.lax.scan(lambda carry, one: (carry, each(one)), None, x)[1],
        }

    found, jit = jax.device_get(ways(x)), jax.jit(each)(x[0])
    for name, rule in built.items():
        eager = np.stack([np.asarray(rule(one)) for one in x])
        for way, results in found.items():
            assert_close(results[name], eager, x, name=f"{name}, {way}")
        assert_close(jit[name], eager[0], x, name=name)
        with jax.disable_jit():
            assert_close(rule(x[0]), eager[0], x, name=name)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32, np.float64])
def test_precision_is_kept(dtype: Any):
    x = normals(6, 5).astype(dtype)
    with jax.enable_x64(True):
        results = jitted(6)(x)
    eps = float(jnp.finfo(dtype).eps)
    for name, actual in results.items():
        assert actual.dtype == dtype, name
        expected = REFERENCES[name](np.asarray(x, np.float64))
        np.testing.assert_allclose(
            np.asarray(actual, np.float64), expected, 4 * eps, eps / 4, err_msg=name
        )


@pytest.mark.slow
def test_pytree_is_aggregated_leaf_by_leaf():
    x = normals(5, 2, 3)
    tree = {
        "w": x,
        "b": [x[:, 0].astype(jnp.bfloat16), x[:, 1, 0]],
        "none": np.zeros((5, 0, 2), np.float32),
    }

    @jax.jit
    def both(tree: Any) -> dict[str, Any]:
        built = {name: build(name, 5) for name in REFERENCES}
        return {name: (rule(tree), jax.tree.map(rule, tree)) for name, rule in built.items()}

    for name, (actual, expected) in both(tree).items():
        assert jax.tree.structure(actual) == jax.tree.structure(tree), name
        for one, other, leaf in zip(*map(jax.tree.leaves, (actual, expected, tree)), strict=True):
            assert (one.shape, one.dtype) == (leaf.shape[1:], leaf.dtype), name
            np.testing.assert_array_equal(one, other, name)


@given(x=ROWS, order=st.permutations(range(7)))
def test_order_of_workers_does_not_matter(x: np.ndarray, order: list[int]):
    permuted, results = jitted(7)(x[order]), jitted(7)(x)
    for name in REFERENCES:
        assert_close(permuted[name], results[name], x, name=name)


@given(x=ROWS, scale=st.sampled_from([1, -1]) | NONZERO, shift=NONZERO)
def test_affine_equivariance(x: np.ndarray, scale: float, shift: float):
    # rule(cx + s) = c rule(x) + s. It is oddness at c = -1.
    def check(names: Any, x: np.ndarray, c: np.float32, s: np.float32) -> None:
        results, scaled, shifted = jitted(7)(x), jitted(7)(c * x), jitted(7)(c * x + s)
        for name in names:
            factor = np.sign(c) if name == "majority_vote" else c
            assert_close(scaled[name], factor * results[name], factor * x, name=name)
            if name != "majority_vote":  # which keeps the sign of c only
                assert_close(shifted[name], factor * results[name] + s, c * x, s, name=name)

    c, s = np.float32(scale), np.float32(shift)
    check(REFERENCES.keys() - set(AROUND), x, c, s)
    check(AROUND, np.round(x), np.copysign(np.float32(2), c), np.round(s))


@given(x=ROWS)
def test_result_is_in_the_range_of_the_rows(x: np.ndarray):
    votes = np.sign(x)
    for name, result in jitted(7)(x).items():
        rows = votes if name == "majority_vote" else x
        slack = 2**-20 * np.max(np.abs(x)) if name in ("mean", *AROUND) else 0
        assert np.all(rows.min(axis=0) - slack <= result), name
        assert np.all(result <= rows.max(axis=0) + slack), name


@pytest.mark.parametrize("n", [6, 7])
@given(honest=ROWS, attack=ANYTHING, order=st.permutations(range(7)))
def test_result_is_in_the_range_of_the_honest_rows(
    n: int, honest: np.ndarray, attack: np.ndarray, order: list[int]
):
    for name, most in ROBUST.items():
        f = most(n)  # arbitrary rows, NaN and ±∞ among them
        good = honest[: n - f]
        x = np.concatenate([good, attack[:f]])[[i for i in order if i < n]]
        result = jitted(n)(x)[name]
        assert np.all((good.min(axis=0) <= result) & (result <= good.max(axis=0))), name


@given(x=hnp.arrays(np.float32, (7, 3), elements=NONZERO))
def test_vote_is_the_sign_of_the_median(x: np.ndarray):
    # The identity of Chen et al. (2020) for an odd number of workers without zeros.
    results = jitted(7)(x)
    np.testing.assert_array_equal(results["majority_vote"], np.sign(results["median"]))


@given(x=ANYTHING)
def test_nan_abstains_from_the_vote(x: np.ndarray):
    expected = REFERENCES["majority_vote"](np.nan_to_num(x, nan=0.0, posinf=1.0, neginf=-1.0))
    np.testing.assert_array_equal(jitted(7)(x)["majority_vote"], expected)


@pytest.mark.parametrize("name", ["mean", "majority_vote"])
def test_half_precision_is_summed_in_float32(name: str):
    # 310 votes for and 290 against: bfloat16 can't count beyond 256. The mean is 20/600 = 1/30.
    x = np.concatenate([np.ones((310, 1)), -np.ones((290, 1))]).astype(jnp.bfloat16)
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


# Options, rows, and the probabilities of -1 and +1.
ODDS: list[tuple[dict[str, Any], list[float], float, float]] = [
    ({"zero": "random"}, [0], 1 / 2, 1 / 2),
    ({"zero": "random"}, [0, 0], 1 / 4, 1 / 4),  # two coins, equal half of the time
    ({"tie": "random"}, [1, -1], 1 / 2, 1 / 2),
    ({"tie": "random"}, [0, 1], 0, 1),  # 0 has no vote
    ({"tie": "random"}, [0, math.nan], 1 / 2, 1 / 2),
    ({"zero": "random", "tie": "random"}, [0, 1], 1 / 4, 3 / 4),  # +1, or a tie: its own coin
    ({"zero": "random", "tie": "random"}, [math.nan, 1, 0], 1 / 4, 3 / 4),
]


@pytest.mark.slow
def test_odds_of_random_votes():
    # A program for each number of rows of each kind of vote.
    d = 40_000
    votes_of = functools.cache(lambda *options: jax.jit(rules.majority_vote(**dict(options))))
    for options, rows, minus, plus in ODDS:
        votes = votes_of(*options.items())(np.tile(np.float32(rows)[:, None], d), 0)
        for vote, p in ((-1, minus), (1, plus)):  # 5 standard deviations of a binomial number
            off = abs(np.sum(np.asarray(votes) == vote) - d * p)
            assert off <= 5 * math.sqrt(d * p * (1 - p)), (options, rows, vote)


@pytest.mark.slow
def test_random_votes_are_a_function_of_the_key_where_they_are_needed():
    rule, x = rules.majority_vote(zero="random", tie="random"), np.zeros((3, 100), np.float32)
    vote, y = jax.jit(rule), normals(3, 100)
    np.testing.assert_array_equal(vote(y, 5), np.sign(np.sign(y).sum(axis=0)))
    first = rule(x, 5)  # which needs no jit, and a number as its key

    @jax.jit
    def others(x: np.ndarray, key: jax.Array) -> Any:
        return rule(x, key), rule(x, jax.random.key_data(key)), rule([x, x], 5)

    *same, two = others(x, jax.random.key(5))
    for one in (vote(x, 5), vote(x, np.int32(5)), *same):
        np.testing.assert_array_equal(one, first)
    assert np.any(first != vote(x, 6))
    assert np.any(np.subtract(*two))  # leaves draw apart
    assert rule.needs_key
    with pytest.raises(ValueError, match=r"zero=random, tie=random\) draws random numbers: give"):
        rule(x)


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


@pytest.mark.parametrize("name", REFERENCES)
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
