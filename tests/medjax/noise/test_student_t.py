"""Student's t: its distribution function, and its degrees of freedom."""

import math
from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from medjax import noise

pytestmark = [pytest.mark.optimized, pytest.mark.slow]


@pytest.mark.parametrize("df", [2.5, 29, 30, 1e6])
def test_student_t_cdf_of_other_degrees(df: float):
    expected = stats.t(df, scale=math.sqrt((df - 2) / df)).cdf
    x = np.append(np.linspace(-6, 6, 601), [-np.inf, 0, np.inf]).astype(np.float32)
    actual = np.asarray(jax.jit(noise.student_t(df).cdf)(x))
    np.testing.assert_allclose(actual, expected(x), rtol=0, atol=5e-6)
    np.testing.assert_allclose(actual[:151], expected(x[:151]), rtol=2e-4)  # up to -3
    np.testing.assert_array_equal(actual[-3:], [0, 0.5, 1])


def test_student_t_has_the_digits_of_hills_expansion():
    cdf, expected = noise.student_t(30).cdf, stats.t(30, scale=math.sqrt(28 / 30))
    for until, digits in ((1, 5e-12), (3, 1e-10), (6, 3e-8), (9, 2e-7)):
        x = np.linspace(-until, 0, 200)
        with jax.enable_x64(True):
            np.testing.assert_allclose(cdf(x), expected.cdf(x), rtol=digits)


@pytest.mark.parametrize(
    ("df", "error", "message"),
    [
        (2, ValueError, "df must be a finite number above 2, got 2"),
        (-1.5, ValueError, "df must be a finite number above 2, got -1.5"),
        (math.nan, ValueError, "df must be a finite number above 2, got nan"),
        (math.inf, ValueError, "df must be a finite number above 2, got inf"),
        ("a", TypeError, "df must be a real number, got 'a'"),
        (True, TypeError, "df must be a real number, got True"),
    ],
)
def test_impossible_degrees_of_freedom(df: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=f"^{message}$"):
        noise.student_t(df)


def test_degrees_of_freedom_are_static():
    with pytest.raises(TypeError, match=r"df changes .* must be static, got a traced value"):
        jax.eval_shape(lambda df: noise.student_t(df).cdf(1.0), 5.0)
