"""The median of noisy values: symmetries, the algorithm itself, and the theorems' settings."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import medjax
from medjax import noise, rules, theory
from medjax.noise import NOISES, Noise

TOY = (1.0, 2.0, 10.0)

values = st.lists(st.floats(-100, 100), min_size=1, max_size=7).filter(lambda u: len(u) % 2 == 1)
scales = st.floats(1e-3, 1e3)
factors = st.floats(0.01, 10) | st.floats(-10, -0.01)
distributions = st.sampled_from([noise.normal(), noise.laplace(), noise.uniform()])


@pytest.mark.slow
@settings(max_examples=20)
@given(values, scales, distributions, st.randoms(), st.floats(-100, 100), factors)
def test_symmetries(u: list[float], b: float, xi: Noise, random: Any, shift: float, factor: float):
    gap, variance = theory.median_gap(u, b, xi), theory.median_variance(u, b, xi)
    size = b + max(map(abs, u))
    assert abs(gap) <= np.max(np.abs(u - np.mean(u))) + 1e-13 * size
    # Efron and Stein (1981): no more than Σ_i E[Var(Y | the others)], and the median moves by no
    # more than any one value.
    assert 0 < variance <= len(u) * b**2 * (1 + 1e-9)
    # The order changes no bit; the rest is equal up to the rounding of u itself.
    shuffled = random.sample(u, len(u))
    assert theory.median_gap(shuffled, b, xi) == gap
    assert theory.median_gap(np.add(u, shift), b, xi) == pytest.approx(
        gap, abs=1e-13 * (size + abs(shift))
    )
    assert theory.median_gap(np.multiply(u, factor), b * abs(factor), xi) == pytest.approx(
        gap * factor, abs=1e-13 * size * abs(factor)
    )
    close = 1e-11 * size * b  # relative to b², conditioned by where the panels are
    assert theory.median_variance(np.negative(u), b, xi) == pytest.approx(variance, abs=close)
    assert theory.median_variance(np.add(u, shift), b, xi) == pytest.approx(
        variance, abs=close * (1 + abs(shift) / size)
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), [("normal", 401), ("laplace", 401), ("student_t", 101)])
def test_monte_carlo_with_many_workers(name: str, n: int):
    # Workers of two kinds, a quarter of them with values that are far off.
    rng, b, num = np.random.default_rng(1), 2.0, 4000
    u = np.where(np.arange(n) % 4 == 0, 20 * rng.exponential(size=n), rng.normal(size=n))
    xi, draw = {
        "normal": (noise.normal(), lambda: rng.normal(size=n)),
        "laplace": (noise.laplace(), lambda: rng.laplace(size=n) / math.sqrt(2)),
        "student_t": (noise.student_t(3.0), lambda: rng.standard_t(3.0, size=n) / math.sqrt(3)),
    }[name]
    medians = np.array([np.median(u + b * draw()) for _ in range(num)])
    gap, variance = theory.median_moments(u, b, xi)
    assert gap < -1
    assert abs(medians.mean() - u.mean() - gap) < 5 * math.sqrt(variance / num)
    # The median of many is nearly normal, so the sample's variance deviates by √(2/num) of it.
    assert medians.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / num))


@pytest.mark.slow
@pytest.mark.parametrize("name", NOISES)
def test_monte_carlo(name: str):
    # The paper's algorithm itself, on many coordinates.
    num, u, b = 250_000, np.array(TOY), 3.0
    stacked = jnp.broadcast_to(jnp.asarray(u, jnp.float32)[:, None], (3, num))
    transform = medjax.perturb(b, NOISES[name](), key=4)
    noisy, _ = transform.update(stacked, transform.init(jnp.zeros(num)))
    medians = np.asarray(rules.median()(noisy), np.float64)
    gap, variance = theory.median_moments(u, b, NOISES[name]())
    sigma = math.sqrt(variance / num)
    assert abs(medians.mean() - u.mean() - gap) < 5 * sigma
    squares = (medians - medians.mean()) ** 2
    assert abs(squares.mean() - variance) < 5 * squares.std() / math.sqrt(num)
    median = theory.median_quantile(u, b, noise=NOISES[name]())
    assert abs(np.mean(medians <= median) - 0.5) < 5 * 0.5 / math.sqrt(num)


def test_theorem_5():
    assert theory.theorem5(10_000, 1) == pytest.approx((10, 0.01))
    rates = theory.theorem5(T=625, d=16)
    assert (rates.b, rates.lr) == pytest.approx((10, 0.01))
    # b² is √(Td), with the product of T and d and not one of them alone.
    assert theory.theorem5(7, 11) == pytest.approx((77**0.25, 1 / math.sqrt(77)))


def test_theorem_6():
    assert theory.theorem6(1_000_000, 1) == pytest.approx((10, 1e-4))
    rates = theory.theorem6(T=1000, d=1000)
    assert (rates.b, rates.lr) == pytest.approx((10, 1e-4))
    # They balance the three terms of the bound: with D = 1, 1/(T δ), d/b² and δ d b² all equal
    # d^(2/3)/T^(1/3).
    T, d = 5000, 30
    b, lr = theory.theorem6(T, d)
    rate = d ** (2 / 3) / T ** (1 / 3)
    assert (1 / (T * lr), d / b**2, lr * d * b**2) == pytest.approx((rate, rate, rate))


def test_moments_are_gap_and_variance():
    for b in (0.0, 1.0, 20.0):
        moments = theory.median_moments(TOY, b, noise.laplace())
        assert moments.gap == theory.median_gap(TOY, b, noise.laplace())
        assert moments.variance == theory.median_variance(TOY, b, noise.laplace())


@pytest.mark.slow
def test_within_jit():
    # A setting may be computed where it is used, and JAX's 64 bits are off again afterwards.
    expected = theory.median_gap(TOY, 3.0, noise.student_t())
    scaled = jax.jit(lambda x: x * theory.median_gap(TOY, 3.0, noise.student_t()))
    assert scaled(1.0) == pytest.approx(expected, rel=1e-7)
    assert jnp.zeros(1).dtype == jnp.float32


@pytest.mark.parametrize("function", [theory.median_gap, theory.median_variance])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1, 2], 1.0), ValueError, "u must be a list of an odd number of values, .* shape (2,)"),
        (([], 1.0), ValueError, "u must be a list of an odd number of values, .* shape (0,)"),
        ((3.0, 1.0), ValueError, "u must be a list of an odd number of values, .* shape ()"),
        (
            ([1, math.nan, 2], 1.0),
            ValueError,
            "u must be a list of finite numbers, got nan at index 1",
        ),
        ((["a"], 1.0), TypeError, "u must be a list of real numbers, got ['a']"),
        ((TOY, -1), ValueError, "b must be a finite number at least 0, got -1"),
        ((TOY, math.inf), ValueError, "b must be a finite number at least 0, got inf"),
        ((TOY, "1"), TypeError, "b must be a real number, got '1'"),
        ((TOY, 1.0, noise.normal), TypeError, "noise must be built, such as .*"),
        (
            (TOY, 1.0, lambda key, shape, dtype: jnp.zeros(shape)),
            ValueError,
            "theory needs the noise's distribution function: <lambda> has no cdf",
        ),
    ],
)
def test_mistakes(function: Any, arguments: Any, error: type[Exception], message: str):
    pattern = message.translate(str.maketrans({c: f"\\{c}" for c in "()[]"}))
    with pytest.raises(error, match=f"^{pattern}"):
        function(*arguments)


def test_other_mistakes():
    for q in (0, -0.5, math.nan):
        with pytest.raises(ValueError, match=f"^q must be a finite number above 0, got {q}$"):
            theory.median_quantile(TOY, 1.0, q)
    with pytest.raises(ValueError, match=r"^q must be below 1, got 1$"):
        theory.median_quantile(TOY, 1.0, 1.0)
    with pytest.raises(TypeError, match=r"^u and b must be numbers, not traced"):
        jax.jit(theory.median_gap)(jnp.ones(3), 1.0)
    for theorem in (theory.theorem5, theory.theorem6):
        with pytest.raises(ValueError, match=r"^T must be at least 1, got 0$"):
            theorem(0, 1)
        with pytest.raises(TypeError, match=r"^d must be an integer, got 1.5$"):
            theorem(1, 1.5)
