"""E[sign(x + ξ)] = 2 F(x) - 1, of every noise of `medjax.noise`."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from medjax.noise import NOISES, student_t

pytestmark = pytest.mark.optimized

# scipy's distributions of variance 1.
EXPECTED: dict[str, Any] = {
    "normal": stats.norm(),
    "laplace": stats.laplace(scale=1 / math.sqrt(2)),
    "logistic": stats.logistic(scale=math.sqrt(3) / math.pi),
    "uniform": stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)),
    "triangular": stats.triang(0.5, -math.sqrt(6), 2 * math.sqrt(6)),
    "student_t": stats.t(5, scale=math.sqrt(3 / 5)),
}
POSITIVE = np.concatenate([10.0 ** np.arange(-6, 2, 0.05), np.linspace(0.01, 8, 800)])

each_noise = pytest.mark.parametrize("name", NOISES)


def mean_sign(name: str) -> Callable[..., jax.Array]:
    return jax.jit(NOISES[name]().mean_sign)


@pytest.mark.slow
@each_noise
def test_equals_scipys_to_the_relative_precision_of_float32(name: str):
    x = POSITIVE.astype(np.float32)
    # In float64, 2 F(x) - 1 has 10 digits even at 1e-6.
    expected = 2 * EXPECTED[name].cdf(x.astype(np.float64)) - 1
    actual = mean_sign(name)(x)
    assert actual.dtype == jnp.float32
    # Student's t is an incomplete beta function, which has fewer digits.
    np.testing.assert_allclose(actual, expected, rtol=2e-5 if name == "student_t" else 1e-6)


@pytest.mark.slow
@each_noise
def test_equals_scipys_in_float64(name: str):
    with jax.enable_x64(True):
        actual = mean_sign(name)(POSITIVE)
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, 2 * EXPECTED[name].cdf(POSITIVE) - 1, rtol=1e-9)


@each_noise
def test_near_0_it_is_linear(name: str):
    # 2 F(x) - 1 = 2 f(0) x, to the order of x² at most: 1e-6 in proportion.
    x = np.float32([1e-15, 1e-12, 1e-9, 1e-7])
    np.testing.assert_allclose(mean_sign(name)(x), 2 * EXPECTED[name].pdf(0) * x, rtol=1e-5)


@pytest.mark.slow
@each_noise
def test_odd_and_increasing_from_minus_1_to_1(name: str):
    f, x = mean_sign(name), np.sort(POSITIVE).astype(np.float32)
    values = np.asarray(f(x))
    np.testing.assert_array_equal(f(-x), -values)
    assert np.all(np.diff(values) >= -4 * 2**-24)
    assert np.all((values > 0) & (values <= 1))


@pytest.mark.slow
@each_noise
def test_special_arguments(name: str):
    f = NOISES[name]().mean_sign
    x = [0, -0.0, math.inf, -math.inf, math.nan, 3e38, -3e38]
    np.testing.assert_array_equal(jax.jit(f)(jnp.array(x)), [0, 0, 1, -1, math.nan, 1, -1])
    assert [float(f(x)) for x in (0, 100, -100)] == pytest.approx([0, 1, -1], abs=1e-6)
    half = f(jnp.ones((2, 3), jnp.bfloat16))
    assert (half.shape, half.dtype) == ((2, 3), jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("df", [2.5, 29, 30, 1e4, 1e7])
def test_student_t_of_other_degrees(df: float):
    x = POSITIVE.astype(np.float32)
    t = stats.t(df, scale=math.sqrt((df - 2) / df))
    expected = 2 * t.cdf(x.astype(np.float64)) - 1
    np.testing.assert_allclose(jax.jit(student_t(df).mean_sign)(x), expected, rtol=2e-5)
