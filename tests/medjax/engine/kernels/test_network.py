"""The numbers that the networks compare, in NumPy."""

import numpy as np
import pytest

from medjax._engine.kernels import network


def check_network_on_zeros_and_ones(inputs: np.ndarray, ranks: tuple[int, ...]) -> None:
    # What is marked as not needed is overwritten with 7, so that its use would show.
    rows, zeros = inputs.copy(), np.sum(inputs == 0, axis=0)
    for i, j, min_needed, max_needed in network.comparators(len(rows), ranks):
        low, high = np.minimum(rows[i], rows[j]), np.maximum(rows[i], rows[j])
        rows[i] = low if min_needed else 7
        rows[j] = high if max_needed else 7
    for r in ranks:  # the number of rank r is 0 if there are more than r zeros, else 1
        np.testing.assert_array_equal(rows[r], np.where(r < zeros, 0, 1))


@pytest.mark.parametrize("n", range(1, 11))
def test_pruned_network_by_the_0_1_principle(n: int):
    # A comparator network that puts rank r right for all 2^n inputs of 0 and 1 does so for all
    # inputs (Knuth, volume 3, 5.3.4).
    inputs = (np.arange(2**n) >> np.arange(n)[:, None]) & 1
    wanted = {(r,) for r in range(n)} | {tuple(range(n)), ((n - 1) // 2, n // 2), (0, n - 1)}
    for ranks in wanted:
        check_network_on_zeros_and_ones(inputs, ranks)


@pytest.mark.parametrize("n", [33, 64, 100, 127, 128])
def test_large_network_on_random_zeros_and_ones(n: int):
    # With a random number of zeros each, so that every rank's turn comes.
    rng = np.random.default_rng(n)
    inputs = rng.permuted(np.arange(n)[:, None] >= rng.integers(0, n + 1, 300), axis=0)
    for ranks in (tuple(range(n)), (n // 2 - 1, n // 2), (n // 4,), tuple(range(9, n - 9))):
        check_network_on_zeros_and_ones(inputs.astype(int), ranks)


@pytest.mark.parametrize(("log2", "comparators"), [(1, 1), (2, 5), (3, 19), (4, 63)])
def test_network_is_batchers(log2: int, comparators: int):
    # (p² - p + 4) 2^(p-2) - 1 comparators sort 2^p numbers (Batcher, 1968).
    assert len(network.comparators(2**log2, tuple(range(2**log2)))) == comparators


def test_network_is_pruned():
    # The least of 2^p numbers needs one knock-out tournament, 2^p - 1 comparisons.
    assert len(network.comparators(16, (0,))) == 15
