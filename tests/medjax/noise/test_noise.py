import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from medjax import noise
from medjax.noise import NOISES, _distributions

pytestmark = [pytest.mark.optimized, pytest.mark.slow]

# scipy's distribution of variance 1 and its fourth moment E ξ⁴, by the name of ours: the kurtosis
# of each family, which a scale doesn't change; Student's is 3 + 6/(df - 4) at df = 5.
EXPECTED: dict[str, tuple[Any, float]] = {
    "normal": (stats.norm(), 3),
    "laplace": (stats.laplace(scale=1 / math.sqrt(2)), 6),
    "logistic": (stats.logistic(scale=math.sqrt(3) / math.pi), 4.2),
    "uniform": (stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)), 1.8),
    "triangular": (stats.triang(0.5, -math.sqrt(6), 2 * math.sqrt(6)), 2.4),
    "student_t": (stats.t(5, scale=math.sqrt(3 / 5)), 9),
}
KEY = jax.random.key(20)
NUM_DRAWS = 1_000_000
SIGMAS = 5  # a normal deviate beyond it has probability 6e-7

each_noise = pytest.mark.parametrize("name", NOISES)


@pytest.fixture
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@functools.cache
def draws(name: str) -> np.ndarray:
    sample = jax.jit(NOISES[name]().sample, static_argnums=1)
    return np.asarray(sample(KEY, (NUM_DRAWS,)), np.float64)


def ks_distance(cdf: np.ndarray, every: int = 1) -> float:
    """sup |F_N - F| where F_N jumps from i/N to (i + 1)/N at the i-th of the draws in order.

    Given F at all of them, or at every tenth, say, of which it leaves out 9/N at most.
    """
    steps = np.arange(0, len(cdf) * every, every) / (len(cdf) * every)
    return max(np.max(steps + 1 / (len(cdf) * every) - cdf), np.max(cdf - steps))


def ks_bound(num: int) -> float:
    """P(D > c/√N) <= 2 exp(-2c²) (Massart, 1990): 7.5e-6 at c = 2.5."""
    return 2.5 / math.sqrt(num)


def test_every_noise_has_expectations_and_a_name():
    assert EXPECTED.keys() == NOISES.keys()
    names = {name: factory().name for name, factory in NOISES.items()}
    assert names == {name: name for name in NOISES} | {"student_t": "student_t(df=5)"}


@each_noise
def test_mean_0_and_variance_1(name: str):
    x, kurtosis = draws(name), EXPECTED[name][1]
    # Var(mean) = 1/N, and Var(mean of squares) = (E ξ⁴ - 1)/N.
    assert abs(x.mean()) < SIGMAS / math.sqrt(NUM_DRAWS)
    assert abs((x**2).mean() - 1) < SIGMAS * math.sqrt((kurtosis - 1) / NUM_DRAWS)


@each_noise
def test_expected_distribution_has_variance_1(name: str):
    distribution, kurtosis = EXPECTED[name]
    mean, variance, excess = distribution.stats("mvk")
    np.testing.assert_allclose([mean, variance, excess + 3], [0, 1, kurtosis], atol=1e-12)


@each_noise
def test_draws_are_symmetric(name: str):
    # The mean of an odd function with values in [-1, 1] has standard deviation at most 1/√N.
    for odd in (np.sign, np.tanh, lambda x: np.clip(4 * x, -1, 1)):
        assert abs(odd(draws(name)).mean()) < SIGMAS / math.sqrt(NUM_DRAWS)


@each_noise
def test_draws_follow_the_distribution(name: str):
    x = np.sort(draws(name))[::10]
    assert ks_distance(EXPECTED[name][0].cdf(x), 10) < ks_bound(NUM_DRAWS)
    own = np.asarray(jax.jit(NOISES[name]().cdf)(x.astype(np.float32)), np.float64)
    assert ks_distance(own, 10) < ks_bound(NUM_DRAWS)


@each_noise
def test_draws_are_independent_of_their_neighbours(name: str):
    # The product of two independent draws has variance 1, so lag-k correlations have 1/N.
    x = draws(name)
    for lag in (1, 2, 64):
        assert abs((x[lag:] * x[:-lag]).mean()) < SIGMAS / math.sqrt(NUM_DRAWS - lag)


@each_noise
def test_draws_are_finite(name: str, monkeypatch: pytest.MonkeyPatch):
    assert np.all(np.isfinite(draws(name)))
    # And at the ends of what the random bits can be.
    ends = np.array([0, 0, 2**32 - 1, 2**32 - 1, 1, 0], np.uint32)
    others = np.array([0, 2**32 - 1, 0, 2**32 - 1, 0, 1], np.uint32)
    words = (jnp.asarray(ends), jnp.asarray(others))
    monkeypatch.setattr(_distributions, "random_words", lambda key, size: words)
    sample = NOISES[name]().sample
    with jax.enable_x64(True):
        draw = jax.jit(lambda key: [sample(key, (6,), d) for d in (jnp.float32, jnp.float64)])
        for x in draw(KEY):
            assert np.all(np.isfinite(x)), x.dtype


@pytest.mark.usefixtures("x64")
@each_noise
def test_unimodal(name: str):
    # The density, by differences of the cdf, rises up to 0 and falls after it.
    grid = np.linspace(-8, 8, 1601)
    density = np.diff(np.asarray(jax.jit(NOISES[name]().cdf)(grid)))
    change = np.diff(density)
    assert np.all(change[:799] >= -1e-13)
    assert np.all(change[800:] <= 1e-13)
    assert density[799] > 0
    assert density[800] > 0


@each_noise
def test_cdf_equals_scipys(name: str):
    # Both sides of 0, from the centre, where a small error of ξ² would be a large one of ξ, to
    # beyond the ends of the bounded distributions.
    x = np.concatenate([np.linspace(0, 6, 601), 10.0 ** np.arange(-8, 3, 0.25)]).astype(np.float32)
    x = np.concatenate([x, -x])
    expected = EXPECTED[name][0].cdf(x.astype(np.float64))
    actual = np.asarray(jax.jit(NOISES[name]().cdf)(x))
    # Two units in the last place of 1; the incomplete beta function is less exact than that.
    atol = 5e-6 if name == "student_t" else 2**-22
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)
    below, above = actual.reshape(2, -1)[::-1]
    np.testing.assert_allclose(below, 1 - above, rtol=0, atol=2**-23)


@pytest.mark.parametrize("name", ["normal", "laplace", "logistic", "student_t"])
def test_tail_of_the_cdf_equals_scipys(name: str):
    # Down to 1e-19, by ratio. Rounding x to half an ulp moves log Φ(x) by x² 2^-24 = 5e-6 at -9.
    x = np.linspace(-9, -3, 61).astype(np.float32)
    expected = EXPECTED[name][0].cdf(x.astype(np.float64))
    np.testing.assert_allclose(jax.jit(NOISES[name]().cdf)(x), expected, rtol=2e-5)


@pytest.mark.usefixtures("x64")
@each_noise
def test_cdf_equals_scipys_in_float64(name: str):
    x = np.linspace(-6, 6, 1201)
    actual = jax.jit(NOISES[name]().cdf)(x)
    assert actual.dtype == jnp.float64
    np.testing.assert_allclose(actual, EXPECTED[name][0].cdf(x), rtol=0, atol=1e-12)


@each_noise
def test_cdf_of_special_arguments(name: str):
    cdf = NOISES[name]().cdf
    numbers = (0, 0.0, -0.0, -math.inf, math.inf, math.nan, 2, 2.0)

    @jax.jit
    def values(half: jax.Array) -> Any:
        return [cdf(x) for x in numbers], cdf(half)

    found, half = values(np.zeros((2, 3), jnp.bfloat16))
    assert [float(p) for p in found[:5]] == [0.5, 0.5, 0.5, 0, 1]
    assert math.isnan(found[5])
    assert found[6] == found[7]
    assert (half.shape, half.dtype) == ((2, 3), jnp.float32)


@each_noise
def test_a_draw_depends_on_key_and_position_only(name: str):
    sample = NOISES[name]().sample

    @jax.jit
    def draw(keys: jax.Array) -> dict[str, jax.Array]:
        return {
            "two": jnp.stack([sample(key, (6,)) for key in keys]),
            "vmap": jax.vmap(lambda key: sample(key, (6,)))(keys),
            "matrix": sample(keys[0], (2, 3)),
            "scalar": sample(keys[0], ()),
            "nothing": sample(keys[0], (3, 0)),
        }

    found = draw(jnp.stack([KEY, jax.random.key(21)]))
    x, other = found["two"]
    np.testing.assert_array_equal(draws(name)[:6].astype(np.float32), x)
    np.testing.assert_array_equal(found["matrix"], x.reshape(2, 3))
    assert np.all(np.asarray(x) != np.asarray(other))
    np.testing.assert_array_equal(found["vmap"], found["two"])
    assert found["scalar"].shape == ()
    assert found["nothing"].shape == (3, 0)


@each_noise
def test_draws_do_not_depend_on_how_the_program_is_cut(name: str):
    # Large enough for the compiler to vectorise them, in different ways.
    sample, keys = NOISES[name]().sample, jax.random.split(jax.random.key(0), 3)
    draw = jax.jit(sample, static_argnums=1)
    whole = jax.jit(jax.vmap(lambda key: sample(key, (10_007,))))(keys)
    np.testing.assert_array_equal(whole[:, :10_000], [draw(key, (10_000,)) for key in keys])


@each_noise
@pytest.mark.parametrize("dtype", [jnp.bfloat16])
def test_half_precision_is_float32_rounded(name: str, dtype: Any):
    sample = NOISES[name]().sample
    x, wide = jax.jit(lambda key: [sample(key, (1000,), d) for d in (dtype, jnp.float32)])(KEY)
    assert x.dtype == dtype
    np.testing.assert_array_equal(x, wide.astype(dtype))


@each_noise
def test_pythons_floats_are_jaxs(name: str):
    sample = NOISES[name]().sample
    x, same = jax.jit(lambda key: [sample(key, (1000,), d) for d in (float, jnp.float32)])(KEY)
    np.testing.assert_array_equal(x, same)


@pytest.mark.usefixtures("x64")
@each_noise
def test_float64_draws(name: str):
    sample = jax.jit(lambda key: NOISES[name]().sample(key, (100_000,), jnp.float64))
    x = np.sort(np.asarray(sample(KEY)))
    assert x.dtype == np.float64
    assert ks_distance(EXPECTED[name][0].cdf(x)) < ks_bound(len(x))
    assert np.mean(x == x.astype(np.float32)) < 1e-3  # they have more digits than float32 holds
    assert NOISES[name]().sample(KEY, (2,)).dtype == jnp.float32


def test_normal_is_that_of_jax():
    shape = (100_000,)

    def draw(key: jax.Array, dtype: Any) -> list[jax.Array]:
        lowest = np.nextafter(np.float32(-1), np.float32(0))
        uniform = jax.random.uniform(key, shape, minval=lowest, dtype=np.float32)
        return [f(key, shape, dtype) for f in (noise.normal().sample, jax.random.normal)] + [
            uniform
        ]

    x, jaxs, u = jax.jit(draw, static_argnums=1)(KEY, np.float32)
    np.testing.assert_allclose(x, jaxs, rtol=1e-5)
    # √2 erf⁻¹ of jax's own uniforms, to a few of float32's half ulps.
    expected = math.sqrt(2) * special.erfinv(np.asarray(u, np.float64))
    np.testing.assert_allclose(x, expected, rtol=8 * 2**-24)
    with jax.enable_x64(True):  # bit for bit
        x, jaxs, _ = jax.jit(draw, static_argnums=1)(KEY, np.float64)
        np.testing.assert_array_equal(x, jaxs)


@pytest.mark.parametrize("df", [2.5, 30])
def test_student_t_draws_of_other_degrees(df: float):
    expected = stats.t(df, scale=math.sqrt((df - 2) / df))
    x = np.sort(np.asarray(noise.student_t(df).sample(KEY, (200_000,)), np.float64))
    assert ks_distance(expected.cdf(x)) < ks_bound(len(x))


def test_student_t_of_many_degrees_is_normal():
    # Every df that passes the check can be drawn; the distributions differ by O(1/df).
    for df in (1e6, 1e39):
        x = np.sort(np.asarray(noise.student_t(df).sample(KEY, (200_000,)), np.float64))
        assert ks_distance(stats.norm.cdf(x)) < ks_bound(len(x)), f"df = {df:g}"
