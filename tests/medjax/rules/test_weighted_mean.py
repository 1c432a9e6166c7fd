"""The mean by weights of the workers."""

import jax
import numpy as np
import optax
import pytest

import medjax
from medjax import rules


@pytest.mark.parametrize("weights", [[1, 2, 3, 0], [0.1, 0.1, 0.1, 0.7], [5, 0, 0, 0]])
def test_weighted_mean(weights: list[float]):
    x = np.random.default_rng(2).normal(size=(4, 5)).astype(np.float32)
    expected = np.average(x.astype(np.float64), axis=0, weights=weights)
    means = [rules.mean(weights), rules.mean(np.array(weights) * 1000)]
    for actual in jax.jit(lambda x: [mean(x) for mean in means])(x):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2**-20 * np.abs(x).max())


def test_cohort_of_workers_who_weigh_nothing():
    update = medjax.aggregate(rules.mean([0.0, 0.0, 1.0])).update
    x = np.ones((2, 3), np.float32)
    for workers, expected in (([0, 1], 0), ([1, 2], 1)):
        found, _ = update(x, optax.EmptyState(), workers=np.array(workers), num_workers=3)
        np.testing.assert_array_equal(found, np.full(3, expected))


def test_mean_of_weights_whose_sum_overflows():
    mean = rules.mean([1e308, 1e308])(np.array([1, 2], np.float32))
    np.testing.assert_allclose(mean, 1.5, rtol=2**-20)
