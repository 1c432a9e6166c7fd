"""The unbiased compressors' expectations and variances, over thousands of draws."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import compressors

DRAWS = 4000
# A matrix of 6 rows and 2 columns, and a vector; d = 17.
MATRIX = np.random.default_rng(0).normal(size=(6, 2))
VECTOR = np.array([3.0, -0.1, 0.0, -0.5, 0.25])
TREE = {"a": jnp.asarray(MATRIX.reshape(2, 3, 2), jnp.float32), "b": jnp.asarray(VECTOR)}
V = np.concatenate([MATRIX.reshape(-1), VECTOR])
NORM = np.sum(V**2)


def fractional(x: np.ndarray) -> np.ndarray:
    return x - np.floor(x)


def qsgd_variance(s: int) -> float:
    # A coin of ‖v‖/s with probability p.
    p = fractional(s * np.abs(V) / np.sqrt(NORM))
    return float(np.sum(p * (1 - p)) * NORM / s**2)


def terngrad_variance() -> float:
    return sum(np.sum(np.abs(x).max() * np.abs(x) - x**2) for x in (MATRIX, VECTOR))


# What E‖Q(v) - v‖² is.
VARIANCES = {
    "stochastic_sign": (compressors.stochastic_sign(), 17 * 9 - NORM),
    # Unbiased too if no coordinate is above the bound.
    "stochastic_sign(bound)": (compressors.stochastic_sign(5.0), 17 * 25 - NORM),
    "qsgd(1)": (compressors.qsgd(1), qsgd_variance(1)),
    "qsgd(5)": (compressors.qsgd(5), qsgd_variance(5)),
    "terngrad": (compressors.terngrad(), terngrad_variance()),
    "random_k": (compressors.random_k(5), (17 / 5 - 1) * NORM),
    # 0.4 · 12 = 4.8, 0.4 · 5 = 2.
    "random_mask": (
        compressors.random_mask(0.4),
        (12 / 5 - 1) * np.sum(MATRIX**2) + (5 / 2 - 1) * np.sum(VECTOR**2),
    ),
    # (A Aᵀ - I)_ij has variance 1/r off the diagonal, and is 0 on it.
    "low_rank": (compressors.low_rank(2), 5 / 2 * np.sum(MATRIX**2)),
    # Drawn between levels that depend on the rotation: bounded below.
    "rotation_quantization(1)": (compressors.rotation_quantization(1), None),
    "rotation_quantization(4)": (compressors.rotation_quantization(4), None),
}


@functools.cache
def draws(name: str) -> np.ndarray:
    keys = jax.random.split(jax.random.key(7), DRAWS)
    compressor = VARIANCES[name][0]
    drawn: Any = jax.jit(jax.vmap(lambda key: compressor.compress(TREE, key)))(keys)
    return np.concatenate(
        [np.asarray(x, np.float64).reshape(DRAWS, -1) for x in jax.tree.leaves(drawn)], axis=1
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANCES)
def test_the_mean_is_the_update(name: str):
    assert VARIANCES[name][0].unbiased == (name != "stochastic_sign(bound)")
    drawn = draws(name)
    error = np.abs(drawn.mean(axis=0) - V)
    # z below 4.5, 17 times for each; what isn't drawn is exact to rounding.
    assert np.all(error <= 4.5 * drawn.std(axis=0) / math.sqrt(DRAWS) + 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (_, exact) in VARIANCES.items() if exact])
def test_the_variance_is_as_the_formula(name: str):
    squares = np.sum((draws(name) - V) ** 2, axis=1)
    assert abs(squares.mean() - VARIANCES[name][1]) <= (
        4.5 * squares.std() / math.sqrt(DRAWS) + 1e-5 * VARIANCES[name][1]
    )


@pytest.mark.slow
@pytest.mark.parametrize("s", [1, 5])
def test_bound_of_qsgd(s: int):
    # Alistarh et al. (2017), lemma 3.1.
    bound = min(17 / s**2, math.sqrt(17) / s) * NORM
    assert np.mean(np.sum((draws(f"qsgd({s})") - V) ** 2, axis=1)) <= bound


@pytest.mark.parametrize("bits", [1, 4])
def test_bound_of_rotation_and_quantization(bits: int):
    # Suresh et al. (2017), theorem 3: (2 ln d + 2)/(k - 1)²·‖v‖² for k levels, d = 32 padded.
    bound = (2 * math.log(32) + 2) / (2**bits - 1) ** 2 * NORM
    drawn = draws(f"rotation_quantization({bits})")
    assert np.mean(np.sum((drawn - V) ** 2, axis=1)) <= bound


@pytest.mark.slow
def test_workers_draw_independently():
    # The products of two draws' errors are 0 in the mean.
    for name in ("qsgd(5)", "random_k", "rotation_quantization(4)", "low_rank"):
        error = draws(name) - V
        products = np.sum(error[::2] * error[1::2], axis=1)
        assert abs(products.mean()) <= 4.5 * products.std() / math.sqrt(DRAWS / 2) + 1e-12
