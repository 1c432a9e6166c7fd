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
from medjax._engine.kernels import columns
from medjax._engine.kernels.nearest import mean_nearest

pytestmark = pytest.mark.optimized

# By sorting; by the limit; 131 rows are more than a network sorts.
SIZES = (1, 8, 131)
ROWS = hnp.arrays(np.float32, (5, 3), elements=st.floats(-(2**10), 2**10, width=32))
ANYTHING = hnp.arrays(np.float32, (2, 3), elements=st.floats(width=32, allow_subnormal=False))


@pytest.fixture(params=["sorting", "limit", "passes"])
def method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "passes":
        request.getfixturevalue("accelerated")
    elif request.param == "limit":
        monkeypatch.setattr(columns, "design_for_cpu", lambda num_rows: columns.in_blocks)
    return request.param


def jitted(keep: int) -> Callable[..., jax.Array]:
    # A new function each time, so that it isn't compiled for the other method.
    return jax.jit(lambda x, center: mean_nearest(x, center, keep))


def reference(x: np.ndarray, center: np.ndarray, keep: int) -> np.ndarray:
    """Every window of the sorted values; of the nearest ones, the lowest and the highest."""
    x = np.sort(np.where(np.isfinite(x), x, np.inf).astype(np.float64), axis=0)
    means = []
    for column, c in zip(x.T, center.astype(np.float64), strict=True):
        windows = [column[i : i + keep] for i in range(len(column) - keep + 1)]
        windows = [w for w in windows if np.all(np.isfinite(w))]
        if not windows:
            means.append(np.nan)
            continue
        # The nearest window has the least distances, compared from the farthest on.
        distances = [tuple(np.sort(np.abs(w - c))[::-1]) for w in windows]
        best = [w.mean() for w, d in zip(windows, distances, strict=True) if d == min(distances)]
        means.append((best[0] + best[-1]) / 2)
    return np.array(means)


@pytest.mark.slow
@pytest.mark.parametrize("n", SIZES)
def test_equals_the_nearest_window(n: int, method: str):
    rng = np.random.default_rng(n)
    # Numbers in general position; whole numbers, with many ties on both sides of a whole centre or
    # of one midway between two; numbers of which some aren't finite.
    broken = np.where(rng.random((n, 6)) < 0.2, rng.choice([np.nan, np.inf, -np.inf]), 1)
    x = np.concatenate(
        [
            rng.normal(size=(n, 6)),
            rng.integers(-3, 4, (n, 12)),
            rng.normal(size=(n, 6)) * broken,
        ],
        axis=1,
    ).astype(np.float32)
    center = np.concatenate([rng.normal(size=6), rng.integers(-6, 7, 12) / 2, rng.normal(size=6)])
    center = center.astype(np.float32)
    keeps = {1, max(1, n // 3), max(1, n - 2), n} if n < 100 else {n // 3, n - 2}
    results = jax.jit(lambda *x: {keep: mean_nearest(*x, keep) for keep in keeps})(x, center)
    for keep, actual in jax.device_get(results).items():
        expected = reference(x, center, keep)
        name = f"keep {keep}"
        np.testing.assert_array_equal(np.isfinite(actual), np.isfinite(expected), name)
        finite = np.isfinite(expected)
        np.testing.assert_allclose(
            actual[finite], expected[finite], rtol=0, atol=4e-6, err_msg=name
        )


NAN, INF, BIG = np.nan, np.inf, float(np.finfo(np.float32).max)
TENTH = float(np.float32(0.1))
# Five values, the centre, and the mean of the three nearest to it; NaN for what isn't finite.
BY_HAND = [
    ([0, 9, 3, 10, 5], 4, 8 / 3),  # at distances 4 5 1 6 1: 0, 3, 5
    # 0, and two of the three at 1, -1 + 1 or 1 + 1: midway between (0 - 1 + 1)/3 and (0 + 1 + 1)/3.
    ([-1, 1, 1, 0, 7], 0, 1 / 3),
    ([NAN, 1, 2, INF, 6], 100, 3),  # all that are finite
    ([NAN, INF, 1, 2, -INF], 1, NAN),
    # A centre that isn't finite gives nothing finite.
    *(([0, 2, 4, 6, 8], bad, NAN) for bad in (NAN, INF, -INF)),
    ([1, 3, 5, 7, 9], 4, 4),  # 3, 5 and either 1 or 7, midway between 3 and 5
    # Equal values are their own mean, to the bit.
    ([TENTH, TENTH, TENTH, NAN, 3e38], TENTH, TENTH),
    # Neither sums nor differences overflow. From 0, of four all equally far: midway between
    # -, -, + and +, +, -.
    ([BIG, BIG, BIG, INF, -BIG], BIG, BIG),
    ([BIG, -BIG, -BIG, BIG, NAN], 0, 0),
]


@pytest.mark.slow
@pytest.mark.usefixtures("method")
def test_by_hand():
    x, center, expected = (np.float32(part) for part in zip(*BY_HAND, strict=True))
    actual = np.asarray(jitted(3)(x.T, center))
    for row, one, value in zip(BY_HAND, actual, expected, strict=True):
        if math.isnan(value):
            assert not np.isfinite(one), row
        elif value == np.float32(TENTH):
            assert one == value, row
        else:
            np.testing.assert_allclose(one, value, rtol=1e-6, err_msg=str(row))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_is_kept(dtype: type, method: str):
    with jax.enable_x64(True):
        x = np.random.default_rng(0).normal(size=(6, 4)).astype(dtype)
        actual = jitted(4)(x, np.zeros(4, dtype))
        assert actual.dtype == dtype
        expected = reference(x, np.zeros(4), 4)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=4 * np.finfo(dtype).eps)


@pytest.mark.slow
@pytest.mark.usefixtures("method")
def test_vmap_equals_each_and_no_columns_are_none():
    x = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    batched = jax.jit(jax.vmap(lambda x: mean_nearest(x, jnp.zeros(4), 3)))(x)
    expected = np.stack([reference(one, np.zeros(4), 3) for one in x])
    np.testing.assert_allclose(batched, expected, rtol=0, atol=1e-6)
    assert mean_nearest(jnp.zeros((5, 0)), jnp.zeros(0), keep=3).shape == (0,)


CENTERS: dict[str, Callable[[np.ndarray], Any]] = {
    "meamed": jax.jit(rules.median()),
    "phocas": jax.jit(rules.trimmed_mean(2)),
}
RULES = {name: jax.jit(rules.RULES[name](2)) for name in CENTERS}


@pytest.mark.slow
@pytest.mark.parametrize("name", CENTERS)
@given(honest=ROWS, attack=ANYTHING, order=st.permutations(range(7)))
def test_no_farther_from_the_centre_than_the_farthest_honest_row(
    name: str, honest: np.ndarray, attack: np.ndarray, order: list[int]
):
    # The n - f honest rows could be kept themselves: so the farthest of the n - f nearest is as
    # near as the farthest of them. And the centre is in their range.
    x = np.concatenate([honest, attack])[order]
    center = np.asarray(CENTERS[name](x))
    farthest = np.abs(honest - center).max(axis=0)
    assert np.all(np.abs(RULES[name](x) - center) <= farthest + 2**-20 * np.abs(honest).max())


@pytest.mark.parametrize("name", CENTERS)
def test_impossible_settings(name: str):
    make = rules.RULES[name]
    with pytest.raises(ValueError, match="num_byzantine must be at least 0, got -1"):
        make(-1)
    with pytest.raises(TypeError, match=r"num_byzantine must be an integer, got 1\.5"):
        make(1.5)
    message = rf"{name}\(num_byzantine=2\) needs 2f < n, got f = 2 and n = 4 workers"
    with pytest.raises(ValueError, match=message):
        make(2)(np.ones((4, 1), np.float32))
