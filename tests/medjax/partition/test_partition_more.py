"""Laws of gamma_similarity and power_law beyond those of all partitions in test_partition.py."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medjax.partition import gamma_similarity, iid, power_law

SEEDS = st.integers(0, 2**63)


@given(gamma=st.floats(0, 1), n=st.integers(1, 9), extra=st.integers(0, 40), seed=SEEDS)
def test_gamma_similarity_sizes_differ_by_at_most_one(gamma, n, extra, seed):
    parts = gamma_similarity(gamma)(np.arange(n + extra) % 3, n, seed)
    assert np.ptp([len(part) for part in parts]) <= 1


@given(n=st.integers(1, 9), extra=st.integers(0, 40), seed=SEEDS)
def test_gamma_0_deals_runs_in_label_order(n, extra, seed):
    # Every example has a class of its own, its rank.
    ranks = np.random.default_rng(extra).permutation(n + extra)
    hands = sorted(sorted(ranks[part]) for part in gamma_similarity(0.0)(ranks, n, seed))
    assert np.concatenate(hands).tolist() == list(range(n + extra))


def test_gamma_0_of_equal_classes_gives_each_worker_one_at_random():
    labels = np.arange(400) % 4
    owners = []
    for seed in range(40):
        parts = gamma_similarity(0.0)(labels, 4, seed)
        owners.append([np.unique(labels[part]).item() for part in parts])
    assert all(sorted(order) == [0, 1, 2, 3] for order in owners)
    assert len(np.unique(owners, axis=0)) > 12  # of 24 orders


@pytest.mark.parametrize("gamma", [0.1, 0.5, 0.9])
def test_gamma_is_the_share_that_is_alike(gamma):
    n, size = 4, 10_000
    labels = np.arange(n * size) % n
    parts = gamma_similarity(gamma)(labels, n, 0)
    shares = np.stack([np.bincount(labels[part], minlength=n) for part in parts]) / size
    # A worker's own class is its run, 1 - γ of its examples, and 1/n of the γ dealt at random. Each
    # other class is γ/n. The random choice takes γ·size of a class with deviation
    # √(size γ (1 - γ)) = 50, which is 0.005 of a worker's examples, and runs begin up to 2 or 3
    # deviations off.
    own = shares.argmax(axis=1)
    assert sorted(own) == [0, 1, 2, 3]
    expected = np.full((n, n), gamma / n)
    expected[np.arange(n), own] += 1 - gamma
    np.testing.assert_allclose(shares, expected, atol=5 * 0.005)


def test_gamma_1_is_a_random_split():
    labels = np.repeat([7, 8], [4000, 2000])
    eights = [np.sum(labels[part] == 8) for part in gamma_similarity(1.0)(labels, 10, 0)]
    # As for `iid`, 600 of 6000 without replacement, with mean 200 and variance 120.02.
    assert np.abs(np.array(eights) - 200).max() < 5 * math.sqrt(120.02) < 5 * np.ptp(eights)


@pytest.mark.parametrize(
    ("exponent", "num", "n", "sizes"),
    [
        (1.0, 110, 3, [20, 30, 60]),  # 110/(1 + 1/2 + 1/3) = 60
        (2.0, 49, 3, [4, 9, 36]),  # 49/(1 + 1/4 + 1/9) = 36
        (0, 100, 4, [25, 25, 25, 25]),
        (0.5, 10, 1, [10]),
        (1e300, 10, 3, [1, 1, 8]),  # all to one worker, which gives each other one
    ],
)
def test_power_law_sizes(exponent, num, n, sizes):
    orders = set()
    for seed in range(30):
        found = [len(part) for part in power_law(exponent)(np.zeros(num, int), n, seed)]
        assert sorted(found) == sizes
        orders.add(tuple(found))
    # Which worker has which size is random.
    assert len(orders) == math.factorial(n) // math.prod(
        math.factorial(sizes.count(size)) for size in set(sizes)
    )


@given(
    exponent=st.floats(0, 4),
    least=st.integers(1, 20),
    n=st.integers(1, 10),
    seed=SEEDS,
)
def test_power_law_honours_min_examples_and_is_rounded_to_within_one(exponent, least, n, seed):
    sizes = [len(part) for part in power_law(exponent, least)(np.zeros(200, int), n, seed)]
    assert sum(sizes) == 200
    assert min(sizes) >= least
    wanted = np.arange(1, n + 1) ** -exponent
    wanted *= 200 / wanted.sum()
    if wanted.min() >= least + 1:  # no worker needs more
        assert np.abs(np.sort(sizes)[::-1] - wanted).max() <= 1


@given(n=st.integers(1, 8), extra=st.integers(0, 50), seed=SEEDS)
def test_power_law_0_sizes_are_those_of_iid_to_within_one(n, extra, seed):
    labels = np.zeros(n + extra, int)
    sizes = [[len(part) for part in make(labels, n, seed)] for make in (power_law(0.0), iid())]
    assert sorted(sizes[0]) == sorted(sizes[1])


def test_power_law_examples_are_random():
    labels = np.repeat([0, 1], [8000, 4000])
    for part in power_law(1.0)(labels, 10, 0):
        # m of 12000 without replacement, a third of them 1s: the variance is below m · 2/9.
        ones = np.sum(labels[part] == 1)
        assert abs(ones - len(part) / 3) < 5 * math.sqrt(len(part) * 2 / 9)
        assert np.ptp(part) > 8000


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: gamma_similarity(-0.1), ValueError, "similarity must .* at least 0, got -0.1"),
        (lambda: gamma_similarity(1.1), ValueError, "similarity must be at most 1, got 1.1"),
        (lambda: gamma_similarity(math.nan), ValueError, "similarity must be .* got nan"),
        (lambda: gamma_similarity("x"), TypeError, "similarity must be a real number, got 'x'"),
        (lambda: power_law(-1.0), ValueError, "exponent must .* at least 0, got -1"),
        (lambda: power_law(math.inf), ValueError, "exponent must be a finite .*, got inf"),
        (lambda: power_law(1.0, 0), ValueError, "min_examples must be at least 1, got 0"),
        (
            lambda: power_law(1.0, 5)(np.zeros(9, int), 2, 0),
            ValueError,
            "2 workers with at least 5 examples each need 10 examples, there are 9",
        ),
    ],
)
def test_errors(make, kind, message):
    with pytest.raises(kind, match=message):
        make()
