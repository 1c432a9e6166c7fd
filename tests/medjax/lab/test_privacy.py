"""ε of DP-FedAvg against closed forms, and what a neighbouring pair makes certain."""

import math
import sys

import numpy as np
import pytest
from scipy import integrate, optimize, special, stats

from medjax.lab.task.privacy import epsilon

DELTA = 1e-5


def converted(rdp):
    """ε of a Rényi curve at orders from 1.1 on (Canonne, Kamath and Steinke, 2020, prop. 12)."""
    orders = np.concatenate([np.linspace(1.1, 20, 2000), np.linspace(20, 512, 2000)])
    curve = np.array([rdp(a) for a in orders])
    found = curve + np.log1p(-1 / orders) - np.log(DELTA * orders) / (orders - 1)
    return max(0.0, found.min())


def exact_for_all(sensitivity):
    """ε of the normal mechanism of deviation 1 (Balle and Wang, 2018, theorem 8)."""
    cdf, s = stats.norm.cdf, sensitivity

    def excess(e):
        return cdf(s / 2 - e / s) - math.exp(e) * cdf(-s / 2 - e / s) - DELTA

    return optimize.brentq(excess, 0, 200)


@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (4.0, 1), (20.0, 100), (60.0, 1000)])
def test_all_workers_are_the_normal_mechanism_of_sensitivity_2c(sigma, steps):
    found = epsilon(sigma, steps, 10, None, DELTA)
    assert found == pytest.approx(converted(lambda a: 2 * a * steps / sigma**2), rel=0.01)
    exact = exact_for_all(2 * math.sqrt(steps) / sigma)
    assert exact <= found <= 1.2 * exact


def theorem_9(q, sigma):
    """The Rényi curve of a cohort at orders 2, 3, ..., by theorem 9 of Wang et al. (2019)."""

    def rdp(order):
        a = math.ceil(order)  # a Rényi divergence grows with its order
        second = 4 / sigma**2
        terms = [1, q**2 * special.comb(a, 2) * min(4 * math.expm1(second), 2 * math.exp(second))]
        terms += [
            q**j * special.comb(a, j) * 2 * math.exp((j - 1) * 2 * j / sigma**2)
            for j in range(3, a + 1)
        ]
        return math.log(sum(terms)) / (a - 1)

    return rdp


def least_for_a_cohort(q, sigma):
    """ε in one step of two sets of workers: one sends c or -c if drawn, the others 0."""

    def density(x, sent):
        return (1 - q) * stats.norm.pdf(x, 0, sigma) + q * stats.norm.pdf(x, sent, sigma)

    def excess(e):
        def beyond(x):
            return max(0.0, density(x, 1) - math.exp(e) * density(x, -1))

        return integrate.quad(beyond, -10, 40, points=[0, 1, 5, 10], limit=400)[0] - DELTA

    return optimize.brentq(excess, 0, 30, xtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m", "sigma"), [(100, 10, 2.0), (1000, 10, 3.0)])
def test_a_cohort_is_between_a_known_pair_and_a_weaker_theorem(n, m, sigma):
    q = m / n
    orders = np.arange(2, 33)
    curve = np.array([theorem_9(q, sigma)(a) for a in orders])
    weaker = (curve + np.log1p(-1 / orders) - np.log(DELTA * orders) / (orders - 1)).min()
    found = epsilon(sigma, 1, n, m, DELTA)
    assert least_for_a_cohort(q, sigma) <= found <= weaker + 1e-9
    assert found < epsilon(sigma, 1, n, None, DELTA)


def test_of_very_much_noise_nothing_is_left_to_tell():
    assert 0 <= epsilon(1e12, 10, 1000, 10, DELTA) < 1e-3


def test_a_cohort_is_never_worse_than_all():
    everyone = epsilon(4.0, 100, 100, None, DELTA)
    assert epsilon(4.0, 100, 100, 100, DELTA) == everyone
    assert epsilon(4.0, 100, 100, 99, DELTA) <= everyone


def test_without_noise_or_steps():
    assert epsilon(0.0, 5, 10, 2, DELTA) == math.inf
    assert epsilon(1.0, 0, 10, 2, DELTA) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0, 1, 10, None, DELTA), "noise_multiplier must be a finite number at least 0, got -1"),
        ((1.0, -1, 10, None, DELTA), "num_steps must be at least 0, got -1"),
        ((1.0, 1, 10, 11, DELTA), "participants must be at most the 10 workers, got 11"),
        ((1.0, 1, 10, 0, DELTA), "participants must be at least 1, got 0"),
        ((1.0, 1, 10, None, 0.0), "delta must be a finite number above 0, got 0"),
        ((1.0, 1, 10, None, 1.0), "delta must be below 1, got 1.0"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        epsilon(*arguments)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(ImportError, match=r'dp-accounting: pip install "medjax\[privacy\]"$'):
        epsilon(1.0, 1, 10, None, DELTA)
