import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import special

from medjax._engine.kernels.erf_inv import erf_inv

pytestmark = pytest.mark.optimized


def grid() -> np.ndarray:
    """Evenly, towards both ends, and towards 0."""
    last = np.float32(1 - 2**-24)
    ends = 1 - 2.0 ** np.arange(-1, -24.1, -0.01)
    small = 10.0 ** np.arange(-37, 0, 0.05)
    u = np.concatenate([np.linspace(0, last, 200_001), ends, small, [last, np.finfo("f4").tiny]])
    u = np.unique(np.minimum(u.astype(np.float32), last))
    return np.concatenate([-u[::-1], u])


@pytest.mark.slow
def test_float32_equals_scipys():
    u = grid()
    actual, expected = jax.jit(erf_inv)(u), special.erfinv(u.astype(np.float64))
    # A few roundings, to half an ulp each.
    np.testing.assert_allclose(actual, expected, rtol=8 * 2**-24, atol=np.finfo("f4").tiny)
    assert np.all(np.diff(actual) >= -8 * 2**-24 * np.abs(actual[1:]))


@pytest.mark.slow
def test_odd_and_finite_at_the_ends():
    u = grid()
    np.testing.assert_array_equal(jax.jit(erf_inv)(-u), -np.asarray(jax.jit(erf_inv)(u)))
    assert np.all(np.isfinite(jax.jit(erf_inv)(u)))
    np.testing.assert_array_equal(erf_inv(jnp.array([0.0, -0.0, np.nan])), [0, 0, np.nan])


@pytest.mark.slow
def test_subnormal_numbers_give_numbers_as_small():
    u = np.array([1, 2, 1000, 2**22], np.float32) * np.finfo(np.float32).smallest_subnormal
    u = np.concatenate([u, -u])
    np.testing.assert_allclose(erf_inv(jnp.asarray(u)), u, rtol=0, atol=np.finfo("f4").tiny)


def test_float64_is_that_of_xla():
    with jax.enable_x64(True):
        u = jnp.asarray(np.linspace(-1, 1, 1001)[1:-1])
        np.testing.assert_array_equal(erf_inv(u), lax.erf_inv(u))
        np.testing.assert_allclose(erf_inv(u), special.erfinv(u), rtol=1e-14)
