"""The median of noisy values against densities summed over all subsets, and closed forms."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import integrate, special, stats

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
TOY = (1.0, 2.0, 10.0)
SKEWED = {
    3: TOY,
    5: (-0.5, 0.1, 0.3, 2.0, 9.0),
    7: (0.0, 0.2, 0.7, 1.1, 3.0, 4.0, 20.0),
}

each_noise = pytest.mark.parametrize("name", NOISES)
each_n = pytest.mark.parametrize("n", SKEWED)


def brute_force(u: Any, b: float, xi: Any) -> tuple[float, float]:
    """Return the gap and the variance from the density of the median.

    One of the values is at y, half of the others are below it and half above. The density is the
    sum over all ways to choose them.
    """
    half = len(u) // 2

    def density(y: float) -> float:
        below = [xi.cdf((y - a) / b) for a in u]
        total = 0.0
        for i, a in enumerate(u):
            others = [j for j in range(len(u)) if j != i]
            for chosen in itertools.combinations(others, half):
                odds = [below[j] if j in chosen else 1 - below[j] for j in others]
                total += xi.pdf((y - a) / b) / b * math.prod(odds)
        return total

    low, high = xi.support()
    kinks = {a + b * x for a in u for x in (low, 0, high) if math.isfinite(x)}
    edges = sorted(kinks | {min(u) - 3 * b, max(u) + 3 * b})
    if math.isinf(low):
        edges = [-math.inf, *edges, math.inf]

    def moment(order: int, centre: float) -> float:
        return sum(
            integrate.quad(lambda y: (y - centre) ** order * density(y), *ends, epsabs=1e-11)[0]
            for ends in itertools.pairwise(edges)
        )

    mean = float(np.mean(u))
    gap = moment(1, mean)
    return gap, moment(2, mean + gap)


@pytest.mark.slow
@each_noise
def test_three_workers_against_the_density(name: str):
    for b in (1.0, 4.0) if name == "laplace" else (4.0,):
        gap, variance = brute_force(TOY, b, EXPECTED[name])
        moments = theory.median_moments(TOY, b, NOISES[name]())
        assert moments.gap == pytest.approx(gap, abs=1e-8)
        assert moments.variance == pytest.approx(variance, rel=1e-8)


@pytest.mark.parametrize("name", ["normal", "laplace", "uniform"])
@pytest.mark.parametrize("n", [5, 7])
def test_more_workers_against_the_density(name: str, n: int):
    # scipy's distributions would spend most of the time on checks of their arguments.
    gap, variance = brute_force(SKEWED[n], 2.0, Plain(name))
    actual = theory.median_moments(SKEWED[n], 2.0, NOISES[name]())
    assert actual.gap == pytest.approx(gap, abs=1e-8)
    assert actual.variance == pytest.approx(variance, rel=1e-8)


class Plain:
    """Three of the distributions, given by their formulas."""

    def __init__(self, name: str):
        end = math.sqrt(3)
        self.cdf, self.pdf = {
            "normal": (special.ndtr, lambda x: math.exp(-x * x / 2) / math.sqrt(2 * math.pi)),
            "laplace": (
                lambda x: 0.5 * (1 + math.copysign(-math.expm1(-math.sqrt(2) * abs(x)), x)),
                lambda x: math.exp(-math.sqrt(2) * abs(x)) / math.sqrt(2),
            ),
            "uniform": (
                lambda x: min(max(0.5 + x / (2 * end), 0), 1),
                lambda x: 1 / (2 * end) if abs(x) <= end else 0.0,
            ),
        }[name]
        self.support = lambda: (-end, end) if name == "uniform" else (-math.inf, math.inf)


@pytest.mark.slow
@pytest.mark.parametrize("df", [2.1, 100.0])
def test_heavy_tails(df: float):
    # P(|Y| > y) falls as y^(-2 df), so with df = 2.1 half of the variance is quite far out.
    expected = brute_force((0.0, 0.0, 0.0), 1.0, stats.t(df, scale=math.sqrt((df - 2) / df)))[1]
    actual = theory.median_variance((0.0, 0.0, 0.0), 1.0, noise.student_t(df))
    # From 30 degrees of freedom on F is Hill's expansion, good to about 1e-8.
    assert actual == pytest.approx(expected, rel=1e-7)


def test_published_gaps():
    # The paper's toy, u = (1, 2, 10) with Gaussian noise, to its three digits.
    for b, gap in ((3, -1.16), (10, -0.172), (30, -0.0201), (100, -0.00182)):
        assert float(f"{theory.median_gap(TOY, b):.3g}") == gap


@pytest.mark.slow
@each_noise
@pytest.mark.parametrize("n", [3, 5, 31])
def test_gap_for_large_b(name: str, n: int):
    """b² times the gap goes to n²/12 Σ (u_i - m)³ ∫ f(x)³ h(F(x)) dx.

    In powers of v = u - m, E[median] has no terms of second order, by symmetry. Its terms of third
    order are A Σ v_i³ + B Σ v_i² v_j + C Σ v_i v_j v_k = (A - B + C/3) Σ v_i³, as Σ v_i = 0. If all
    v_i move, E[median] moves with them, which gives A = (n-1)(n-2) C/12 and B = -(n-2) C/4, so the
    sum is n² C/12. And C = ∫ f³ h(F), where h(p), the third mixed difference of P(at least half
    happen), is the second difference of the binomial probabilities of n - 3.
    """
    u = np.array(TOY) if n == 3 else np.random.default_rng(n).exponential(size=n)
    xi, half = EXPECTED[name], n // 2 + 1

    def h(p: float) -> float:
        low, middle, high = stats.binom.pmf([half - 3, half - 2, half - 1], n - 3, p)
        return low - 2 * middle + high

    integral = 2 * integrate.quad(lambda x: xi.pdf(x) ** 3 * h(xi.cdf(x)), 0, 30, points=[1, 2])[0]
    expected = n**2 / 12 * np.sum((u - u.mean()) ** 3) * integral
    b = 2000.0
    # The relative difference is O(1/b²), or O(1/b) where the density ends in a jump. For uniform
    # noise and n >= 5 the integral is 0, as the gap falls even faster.
    actual = b**2 * theory.median_gap(u, b, NOISES[name]())
    assert actual == pytest.approx(expected, rel=2e-3 if name == "uniform" else 1e-4, abs=1e-2)
    if n == 3:
        cubes = integrate.quad(lambda x: xi.pdf(x) ** 3, -8, 8, points=[-2, -1, 0, 1, 2])[0]
        product = np.prod(u - u.mean())
        assert actual == pytest.approx(-4.5 * cubes * product, rel=2e-3)


@pytest.mark.parametrize(("n", "order"), [(3, 2), (5, 3), (7, 4)])
def test_gap_with_uniform_noise(n: int, order: int):
    # Inside, the distribution function of the median is a polynomial whose integral has no gap.
    # The rest comes from the ends, where half of the values must be within max |v_i| of them.
    gaps = [theory.median_gap(SKEWED[n], b, noise.uniform()) for b in (500.0, 1000.0)]
    assert math.log2(gaps[0] / gaps[1]) == pytest.approx(order, abs=0.05)


@pytest.mark.slow
@each_noise
@pytest.mark.parametrize("n", [1, 3, 5, 31])
def test_equal_values(name: str, n: int):
    u, half = np.full(n, 7.5), n // 2 + 1
    gap, variance = theory.median_moments(u, 2.0, NOISES[name]())
    assert gap == pytest.approx(0, abs=1e-14)
    variance /= 4
    if n == 1:
        assert variance == 1
    # E[Y_(1)²] + E[Y_(2)²] + E[Y_(3)²] = 3, and the outer ones are 1 + √3/(2π) (Jones, 1948).
    if n == 3 and name == "normal":
        assert variance == pytest.approx(1 - math.sqrt(3) / math.pi, rel=1e-13)
    # P(Y < -x) = 3F² - 2F³ with F = exp(-√2 x)/2, and Var = 4 ∫ x P(Y < -x) = 3/8 - 1/18.
    if n == 3 and name == "laplace":
        assert variance == pytest.approx(23 / 72, rel=1e-13)
    # 2√3 times Beta(half, half), whose variance is 1/(4(2 half + 1)).
    if name == "uniform":
        assert variance == pytest.approx(3 / (n + 2), rel=1e-13)
    # The order statistics' cumulants are differences of polygammas; the scale is √3/π.
    if name == "logistic":
        expected = 6 / math.pi**2 * special.polygamma(1, half)
        assert variance == pytest.approx(expected, rel=1e-13)
    assert theory.median_quantile(u, 2.0, noise=NOISES[name]()) == pytest.approx(7.5, rel=1e-13)


@each_noise
def test_shape(name: str):
    density, kinked = theory._shape(NOISES[name]())
    assert density == pytest.approx(max(EXPECTED[name].pdf(0), 0.5), rel=2e-3)
    assert kinked == (name in ("laplace", "triangular"))


@each_n
def test_without_noise(n: int):
    u = SKEWED[n][::-1]
    gap = np.median(u) - np.mean(u)
    assert theory.median_gap(u, 0) == pytest.approx(gap, rel=1e-15)
    assert theory.median_variance(u, 0) == 0
    assert theory.median_quantile(u, 0, 0.3) == np.median(u)
    around = np.median(u) + np.array([-1e-9, 0, 1e-9])
    np.testing.assert_array_equal(theory.median_cdf(u, 0, around), [0, 1, 1])
    # With tiny b the middle value is alone with its own noise.
    for b in (1e-3, 1e-9):
        assert theory.median_gap(u, b) == pytest.approx(gap, rel=1e-14)
        assert theory.median_variance(u, b) == pytest.approx(b**2, rel=1e-5)
    for b in (1e-300, 5e-324):
        assert theory.median_gap(u, b) == pytest.approx(gap, rel=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n"), [*((name, 7) for name in NOISES), ("normal", 3), ("uniform", 5)]
)
def test_distribution_function_and_quantiles(name: str, n: int):
    u, b, xi = np.array(SKEWED[n]), 3.0, NOISES[name]()
    y = np.linspace(-6, 20, 27)
    below = EXPECTED[name].cdf((y - u[:, None]) / b)
    # The sum over all subsets of the values that may be below.
    cdf = np.zeros(len(y))
    for which in itertools.product((False, True), repeat=n):
        if sum(which) > n // 2:
            cdf += np.prod(np.where(np.array(which)[:, None], below, 1 - below), axis=0)
    actual = theory.median_cdf(u, b, y.reshape(3, 9), xi)
    assert actual.dtype == np.float64
    assert theory.median_cdf(u, b, [], xi).shape == (0,)
    np.testing.assert_allclose(actual, cdf.reshape(3, 9), rtol=1e-11, atol=1e-15)
    for q in (1e-6, 0.5, 0.9):
        quantile = theory.median_quantile(u, b, q, xi)
        assert theory.median_cdf(u, b, quantile, xi) == pytest.approx(q, rel=1e-11)


@each_noise
def test_support(name: str):
    support = NOISES[name]().support
    assert support == pytest.approx(EXPECTED[name].support()[1], rel=1e-12)
    if math.isfinite(support):
        cdf = NOISES[name]().cdf(np.array([-1.001, -0.99, 0.99, 1.001]) * support)
        assert list(np.asarray(cdf) > 0) == [False, True, True, True]
        assert list(np.asarray(cdf) < 1) == [True, True, True, False]
