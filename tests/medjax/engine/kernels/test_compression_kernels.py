import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from medjax._engine.kernels.hadamard import hadamard
from medjax._engine.kernels.largest import largest

pytestmark = pytest.mark.optimized

HIGHEST = 2**31 - 1


@functools.partial(jax.jit, static_argnums=1)
def compiled_largest(x: jax.Array, k: int) -> jax.Array:
    return largest(x, k)


def reference(x: np.ndarray, k: int) -> np.ndarray:
    mask = np.zeros(x.shape, bool)
    mask[np.argsort(-x.astype(np.int64), kind="stable")[:k]] = True
    return mask


# Ties, both ends, and numbers all over.
NUMBERS = st.sampled_from([0, 1, 2, HIGHEST - 1, HIGHEST]) | st.integers(0, HIGHEST)


@pytest.mark.slow
@given(x=st.lists(NUMBERS, min_size=7, max_size=7), k=st.integers(1, 7))
def test_largest_are_those_of_a_stable_sort(x: list[int], k: int):
    array = np.array(x, np.int32)
    np.testing.assert_array_equal(compiled_largest(jnp.asarray(array), k), reference(array, k))


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 10, 500, 999, 1000])
@pytest.mark.parametrize("top", [1, 30, HIGHEST])
def test_largest_of_many_rows(k: int, top: int):
    x = np.random.default_rng(0).integers(0, top, (4, 1000), np.int32, endpoint=True)
    actual = jax.vmap(lambda row: compiled_largest(row, k))(x)
    np.testing.assert_array_equal(actual, [reference(row, k) for row in x])


def test_largest_of_int64():
    with jax.enable_x64(True):
        x = jnp.array([2**62, 2**63 - 1, 5, 2**62, 2**62 + 1])
        np.testing.assert_array_equal(largest(x, 3), [True, True, False, False, True])


@pytest.mark.parametrize("d", [1, 2, 8, 16, 64, 512])
def test_hadamard_is_the_matrix_product(d: int):
    x = np.random.default_rng(d).normal(size=d)
    expected = scipy.linalg.hadamard(d) @ x / np.sqrt(d)
    once = jax.jit(hadamard)(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(once, expected, atol=2e-6)
    np.testing.assert_allclose(hadamard(once), x, atol=2e-6)
