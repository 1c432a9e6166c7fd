"""The median of noisy values of hundreds of workers: closed forms and asymptotics."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

from medjax import noise, theory
from medjax.noise import NOISES

# scipy's distribution of variance 1 by the name of ours.
EXPECTED: dict[str, Any] = {
    "normal": stats.norm(),
    "laplace": stats.laplace(scale=1 / math.sqrt(2)),
    "logistic": stats.logistic(scale=math.sqrt(3) / math.pi),
    "uniform": stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)),
    "triangular": stats.triang(0.5, -math.sqrt(6), 2 * math.sqrt(6)),
    "student_t": stats.t(5, scale=math.sqrt(3 / 5)),
}
each_noise = pytest.mark.parametrize("name", NOISES)


@pytest.mark.slow
@each_noise
def test_a_thousand_equal_values(name: str):
    n, xi = 1001, EXPECTED[name]
    u = np.full(n, 7.5)
    gap, variance = theory.median_moments(u, 2.0, NOISES[name]())
    assert gap == pytest.approx(0, abs=1e-14)
    # F(Y) has the distribution Beta(half, half), whose deviation is 1/√(4n + 8).
    beta, width = stats.beta(n // 2 + 1, n // 2 + 1), 1 / math.sqrt(4 * n + 8)
    expected = (
        2
        * integrate.quad(
            lambda p: xi.ppf(p) ** 2 * beta.pdf(p), 0.5, 0.5 + 12 * width, epsabs=0, epsrel=1e-11
        )[0]
    )
    # F of Student's t-distribution itself is good to about 1e-14.
    assert variance / 4 == pytest.approx(expected, rel=1e-11)
    if name == "uniform":
        assert variance / 4 == pytest.approx(3 / (n + 2), rel=1e-12)
    # David and Johnson (1954), to O(1/n²).
    if name == "normal":
        leading = math.pi / (2 * n) * (1 - (4 - math.pi) / (2 * n))
        assert variance / 4 == pytest.approx(leading, rel=2e-6)


@pytest.mark.slow
def test_a_thousand_values_that_are_symmetric():
    half = np.random.default_rng(0).exponential(size=500)
    for b in (0.1, 30.0):
        gap, _ = theory.median_moments(np.concatenate([-half, [0], half]), b)
        assert gap == pytest.approx(0, abs=1e-15 * (b + np.max(half)))


@pytest.mark.slow
def test_a_thousand_values_in_two_groups():
    # The number of events is a sum of two binomials.
    n, k, b = 1001, 430, 2.0
    u = np.repeat([-1.0, 1.5], [k, n - k])
    y = np.linspace(-0.6, 1.6, 23)
    first, second = stats.norm.cdf((y + 1) / b), stats.norm.cdf((y - 1.5) / b)
    j = np.arange(k + 1)[:, None]
    cdf = np.sum(stats.binom.pmf(j, k, first) * stats.binom.sf(n // 2 - j, n - k, second), axis=0)
    assert cdf[0] < 1e-30
    np.testing.assert_allclose(theory.median_cdf(u, b, y), cdf, rtol=1e-10)
    assert theory.median_cdf(u, b, theory.median_quantile(u, b, 0.3)) == pytest.approx(0.3)
    # E[Y] is y_0 + ∫ (1 - G) from a y_0 far below, and E[(Y - y_0)²] is ∫ 2(y - y_0) (1 - G).
    gap, variance = theory.median_moments(u, b)
    above = 1 - theory.median_cdf(u, b, y := np.linspace(-0.6, 1.6, 401))
    mean, square = np.trapezoid([above, 2 * (y - y[0]) * above], y)
    assert gap == pytest.approx(y[0] + mean - np.mean(u), abs=1e-5)
    assert variance == pytest.approx(square - mean**2, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "close"), [(101, 1e-12), (501, 1e-9)])
def test_lowest_of_many_with_uniform_noise(n: int, close: float):
    # Half of the values are far below, so Y is the lowest of the other k: the lower end of their
    # noise plus 2√3 times Beta(1, k).
    k = n // 2 + 1
    u = np.repeat([-100.0, 100.0], [n - k, k])
    gap, variance = theory.median_moments(u, 1.0, noise.uniform())
    expected = 100 - math.sqrt(3) + 2 * math.sqrt(3) / (k + 1)
    assert gap + np.mean(u) == pytest.approx(expected, rel=1e-14)
    assert variance == pytest.approx(12 * k / ((k + 1) ** 2 * (k + 2)), rel=close)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), [("laplace", 401), ("triangular", 501)])
def test_many_kinks(name: str, n: int, monkeypatch: pytest.MonkeyPatch):
    # Most of those that are close together are left out. The reference keeps all.
    u = 0.1 * np.random.default_rng(0).exponential(size=n)
    gap, variance = theory.median_moments(u, 1.0, NOISES[name]())
    steps, left_out = theory._steps, 0

    def all_kinks(centres: Any, b: float, xi: noise.Noise) -> Any:
        nonlocal left_out
        kinks = np.unique([centres, np.abs(centres - b * xi.support), centres + b * xi.support])
        for edges in steps(centres, b, xi):
            inside = kinks[(kinks > edges[0]) & (kinks < edges[-1])]
            left_out += len(inside) - len(edges[1:-1])
            yield np.unique([*edges, *inside])

    monkeypatch.setattr(theory, "_steps", all_kinks)
    expected = theory.median_moments(u, 1.0, NOISES[name]())
    assert left_out > 100
    assert gap == pytest.approx(expected.gap, abs=1e-10)
    assert variance == pytest.approx(expected.variance, rel=1e-8)
