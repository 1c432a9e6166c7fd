from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medjax._engine.kernels.signs import draw_sign

pytestmark = pytest.mark.optimized

ENDS = np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 1], np.uint32)
draw = jax.jit(draw_sign)


def signs(mean: float, words: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
    means = np.full(words.shape, mean, dtype)
    return np.asarray(draw(means, words, np.full(words.shape, 7, np.float32)))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mean_of_1_is_certain_and_0_is_even(dtype: Any):
    # The words at both ends, and all around them.
    near = np.arange(-5000, 5000, dtype=np.int64)
    words = np.concatenate([ENDS, (near % 2**32).astype(np.uint32), (near + 2**31).astype("u4")])
    with jax.enable_x64(True):
        for sign in (1, -1):
            np.testing.assert_array_equal(signs(sign, words, dtype), np.full(len(words), sign))
        # The word's first bit, as a coin.
        np.testing.assert_array_equal(signs(0, words, dtype), np.where(words >> 31, 1, -1))


@pytest.mark.parametrize("mean", [2.0**-20, -(2.0**-20), 2.0**-29, -(2.0**-31), 1.5 * 2.0**-24])
def test_small_means_are_resolved_to_the_last_bit(mean: float):
    # Of 2³² words 2³¹ (1 + mean) give +1; all but those around the middle are decided anyway.
    words = (np.arange(-4096, 4096, dtype=np.int64) % 2**32).astype(np.uint32)
    assert abs(np.sum(signs(mean, words) == 1) - (4096 + 2**31 * mean)) <= 1


def test_nan_is_undecided():
    values = jnp.array([np.nan, 0.0, -0.0, 3.0, -np.inf], jnp.bfloat16)
    for word in ENDS:
        actual = draw(np.full(5, np.nan, np.float32), np.full(5, word), values)
        assert actual.dtype == jnp.bfloat16
        np.testing.assert_array_equal(actual.astype(np.float32), values.astype(np.float32))


WORDS = st.sampled_from(ENDS.tolist()) | st.integers(0, 2**32 - 1)
MEANS = st.floats(-1, 1, width=32)


@pytest.mark.slow
@given(word=WORDS, low=MEANS, high=MEANS)
def test_monotone_in_the_mean(word: int, low: float, high: float):
    low, high = min(low, high), max(low, high)
    words = np.array([word], np.uint32)
    assert -1 <= signs(low, words) <= signs(high, words) <= 1


@given(word=WORDS, mean=MEANS)
def test_probability_is_half_of_1_plus_the_mean(word: int, mean: float):
    # The rank of the word in 2³², against (1 + mean)/2, to float32's rounding of both.
    rank = np.uint32(word).view(np.int32) / 2**31
    if abs(rank - mean) > 2**-21:
        assert signs(mean, np.array([word], np.uint32)) == (1 if rank < mean else -1)
