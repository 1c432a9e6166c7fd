import math
from collections import Counter

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medjax import stack_workers
from medjax.partition import (
    PARTITIONS,
    by_label,
    dirichlet,
    gamma_similarity,
    iid,
    power_law,
    shards,
)

SEEDS = st.integers(0, 2**63)
TWELVE = np.repeat(np.arange(4), 3)
FOR_FOUR = {"iid": iid(), "by_label": by_label(2), "shards": shards(), "dirichlet": dirichlet(1.0)}
FOR_FOUR |= {"gamma_similarity": gamma_similarity(0.4), "power_law": power_law(1.0)}
# The labels of natural aren't classes: it needs as many as workers, and never divides one. Its laws
# are in test_partition_natural.py.
DIVIDING = pytest.mark.parametrize("name", [name for name in PARTITIONS if name != "natural"])


@st.composite
def problems(draw):
    """Draw n workers, and shuffled integer labels with at least n examples of each class."""
    n = draw(st.integers(1, 8))
    classes = draw(st.lists(st.integers(-99, 99), min_size=1, max_size=6, unique=True))
    labels = np.repeat(classes, [draw(st.integers(n, 3 * n + 5)) for _ in classes])
    return np.random.default_rng(len(labels)).permutation(labels), n


# Arguments for each factory that all these problems allow, given n and the number of classes.
ARGUMENTS = {
    "iid": lambda n, k: st.just(()),
    "by_label": lambda n, k: st.tuples(st.integers(-(-k // n), k)),  # c <= K <= n c
    "shards": lambda n, k: st.tuples(st.integers(1, k)),  # n s <= n K <= N
    "dirichlet": lambda n, k: st.tuples(st.sampled_from([1e-6, 0.1, 1.0, 1e6]), st.integers(1, k)),
    "gamma_similarity": lambda n, k: st.tuples(st.floats(0, 1)),
    "power_law": lambda n, k: st.tuples(st.floats(0, 1e300), st.integers(1, k)),
}


def class_counts(labels, parts):
    return [Counter(labels[part].tolist()) for part in parts]


@pytest.mark.slow
@DIVIDING
@given(data=st.data(), problem=problems(), seed=SEEDS)
def test_every_example_goes_to_one_worker_in_order_as_the_seed_says(name, data, problem, seed):
    labels, n = problem
    arguments = data.draw(ARGUMENTS[name](n, len(np.unique(labels))))
    labels.flags.writeable = False
    parts = PARTITIONS[name](*arguments)(labels, n, seed)
    assert len(parts) == n
    assert min(len(part) for part in parts) >= 1
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    assert all((np.diff(part) > 0).all() for part in parts)
    again = PARTITIONS[name](*arguments)(labels, n, seed)
    assert [part.tolist() for part in again] == [part.tolist() for part in parts]


@DIVIDING
def test_seeds_differ_and_every_worker_is_as_likely_for_every_example(name):
    runs, labels = 400, np.random.default_rng(0).permutation(np.repeat(np.arange(4), 10))
    owners = np.empty((runs, 40), int)
    for seed in range(runs):
        for worker, part in enumerate(FOR_FOUR[name](labels, 4, seed)):
            owners[seed, part] = worker
    assert len(np.unique(owners, axis=0)) == runs
    # By symmetry an example goes to each worker with probability 1/4. The counts are binomial(400,
    # 1/4) with deviation √(400 · 3/16) = 8.7; each of the 160 is beyond 5 deviations with
    # probability 6e-7.
    frequencies = np.stack([(owners == worker).sum(axis=0) for worker in range(4)])
    assert np.abs(frequencies - 100).max() < 5 * math.sqrt(runs * 3 / 16)


@pytest.mark.slow
@given(problem=problems(), seed=SEEDS)
def test_iid_sizes_differ_by_at_most_one(problem, seed):
    assert np.ptp([len(part) for part in iid()(*problem, seed)]) <= 1


def test_iid_class_frequencies_are_hypergeometric():
    counts = class_counts(labels := np.repeat([7, 8], [4000, 2000]), iid()(labels, 10, 0))
    # 600 of 6000 without replacement, a third of them 8s: mean 600/3 and variance
    # 600 · 1/3 · 2/3 · (6000 - 600)/5999 = 120.02; the range of 10 is about 3 deviations.
    eights = np.array([count[8] for count in counts])
    assert np.abs(eights - 200).max() < 5 * math.sqrt(120.02) < 5 * np.ptp(eights)


@pytest.mark.slow
@given(data=st.data(), problem=problems(), seed=SEEDS)
def test_by_label_gives_c_classes_each_shared_evenly(data, problem, seed):
    labels, n = problem
    totals = Counter(labels.tolist())
    (c,) = data.draw(ARGUMENTS["by_label"](n, len(totals)))
    counts = class_counts(labels, by_label(c)(labels, n, seed))
    assert [len(count) for count in counts] == [c] * n
    holders = n * c / len(totals)
    for label, total in totals.items():
        shares = [count[label] for count in counts if label in count]
        assert len(shares) in (math.floor(holders), math.ceil(holders))
        assert set(shares) <= {total // len(shares), -(-total // len(shares))}


@pytest.mark.parametrize(("n", "c"), [(10, 1), (5, 2), (2, 5), (1, 10)])
def test_by_label_is_exclusive_where_the_classes_suffice(n, c):
    labels = np.arange(1000) % 10
    for count in class_counts(labels, by_label(c)(labels, n, 0)):
        assert list(count.values()) == [100] * c  # whole classes


@pytest.mark.slow
@given(n=st.integers(1, 8), s=st.integers(1, 4), extra=st.integers(0, 40), seed=SEEDS)
def test_shards_are_runs_in_label_order(n, s, extra, seed):
    # Every example has a class of its own, its rank, so the order by label is known.
    ranks = np.random.default_rng(extra).permutation(n * s + extra)
    small, larger = divmod(n * s + extra, n * s)  # the number of shards that are larger by one
    ends = np.cumsum([small + 1] * larger + [small] * (n * s - larger))
    dealt = []
    for part in shards(s)(ranks, n, seed):
        hand, lengths = np.unique(np.searchsorted(ends, ranks[part], "right"), return_counts=True)
        np.testing.assert_array_equal(lengths, small + (hand < larger))  # each shard whole
        assert len(hand) == s
        dealt.extend(hand)
    assert sorted(dealt) == list(range(n * s))


def test_shards_of_mcmahan():
    # 100 workers with 2 of 200 shards of 30, and 20 shards in a class, so a worker has 1 or 2
    # classes. Within its class a shard is random, so a worker's examples come from all of the data.
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 600))
    parts = shards(2)(labels, 100, 1)
    assert {(*c.values(),) for c in class_counts(labels, parts)} == {(60,), (30, 30)}
    assert min(np.ptp(part) for part in parts) > 3000


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [1e-6, 1e-3, 0.1, 1.0, 10.0, 1e6])
def test_dirichlet_shares_have_its_mean_and_variance(alpha):
    n, draws, m = 4, 1000, 400
    labels = np.arange(draws * m) % draws
    parts = dirichlet(alpha)(labels, n, seed=1)
    p = np.stack([np.bincount(labels[part], minlength=draws) for part in parts]) / m
    # A share is Beta(α, (n - 1)α), with mean 1/n and variance v = (n - 1)/(n² (nα + 1)). Each class
    # is a draw. The bound is 5 standard errors, and 1/m for rounding to whole examples.
    variance = (n - 1) / (n**2 * (n * alpha + 1))
    assert np.abs(p.mean(axis=1) - 1 / n).max() < 5 * math.sqrt(variance / draws) + 1 / m
    # Q = Σ p_i² has mean n (v + 1/n²); rounding each p_i to within 1/m changes it by 2/m + n/m².
    q = (p**2).sum(axis=0)
    error = 5 * q.std() / math.sqrt(draws) + 2 / m + n / m**2
    assert abs(q.mean() - n * (variance + 1 / n**2)) < error


@pytest.mark.parametrize("alpha", [1e-3, 1e-6, 1e-300, 5e-324])
@pytest.mark.parametrize(("least", "sizes"), [(1, [1, 1, 1, 47]), (7, [7, 7, 7, 29])])
def test_dirichlet_tiny_alpha_gives_a_class_to_one_worker(alpha, least, sizes):
    # All 50 go to one worker, except with probability about (n - 1) α log(2 · 50) < 0.02. The
    # others then take their minimum from that one.
    assert sorted(len(p) for p in dirichlet(alpha, least)(np.zeros(50, int), 4, 0)) == sizes


def test_dirichlet_takes_the_least_at_random():
    # Half the time one worker is given both classes, and then gives up one example of either class.
    labels = np.repeat([0, 1], 10)
    splits = [dirichlet(1e-6)(labels, 2, seed) for seed in range(400)]
    taken = [labels[part[0]] for parts in splits for part in parts if len(part) == 1]
    assert abs(len(taken) - 200) < 5 * math.sqrt(400 / 4)
    assert abs(sum(taken) - len(taken) / 2) < 5 * math.sqrt(len(taken) / 4)


@pytest.mark.parametrize("alpha", [1e9, 1e300])
def test_dirichlet_huge_alpha_gives_identical_distributions(alpha):
    # Shares deviate from 1/4 by 1e-5 at most: far from where 10, 20 and 30 of 40 round otherwise.
    labels = np.repeat(np.arange(3), 40)
    counts = class_counts(labels, dirichlet(alpha)(labels, 4, 0))
    assert counts == [Counter({0: 10, 1: 10, 2: 10})] * 4


@pytest.mark.slow
@given(alpha=st.floats(0.01, 100), least=st.integers(2, 20), n=st.integers(1, 10), seed=SEEDS)
def test_dirichlet_honours_min_examples_and_changes_nothing_else(alpha, least, n, seed):
    labels = np.arange(200) % 5
    drawn, parts = (dirichlet(alpha, k)(labels, n, seed) for k in (1, least))
    assert min(len(part) for part in parts) >= least
    if min(len(part) for part in drawn) == 1:
        return  # perhaps not as drawn, as a worker may have been given that one
    for before, after in zip(drawn, parts, strict=True):
        if len(before) < least:  # it keeps its own and takes as many as it lacks
            assert len(after) == least
            assert set(after) > set(before)
        elif len(before) > len(after):  # the largest gives, so all that gave end with equal sizes
            assert len(after) >= max(len(part) for part in parts) - 1
            assert set(after) < set(before)
        else:
            np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize(
    ("partition", "n", "message"),
    [
        (by_label(5), 4, "5 classes per worker are more than the 4 classes"),
        (by_label(1), 3, "3 workers with 1 classes each cover at most 3 of the 4 classes"),
        (by_label(4), 4, "class 0 has 3 examples, too few for the 4 workers that share it"),
        (shards(4), 4, "4 workers with 4 shards each need 16 examples, there are 12"),
        (dirichlet(1.0, 4), 4, "4 workers with at least 4 examples each need 16 .* there are 12"),
    ],
)
def test_splits_that_do_not_exist(partition, n, message):
    with pytest.raises(ValueError, match=message):
        partition(TWELVE, n, 0)


@pytest.mark.parametrize(("factory", "what"), [(by_label, "classes"), (shards, "shards")])
def test_integers_below_1_or_not_integers(factory, what):
    for bad in (0, -1):
        with pytest.raises(ValueError, match=f"{what}_per_worker must be at least 1, got {bad}"):
            factory(bad)
    for bad in (1.5, 2.0, "2", True, None):
        with pytest.raises(TypeError, match=f"{what}_per_worker must be an integer, got {bad!r}"):
            factory(bad)


def test_dirichlet_settings_out_of_range():
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"alpha must be a finite .* above 0, got {bad:g}"):
            dirichlet(bad)
    with pytest.raises(ValueError, match="min_examples must be at least 1, got 0"):
        dirichlet(1.0, 0)


def test_stack_workers_repeats_a_smaller_workers_rows_in_order():
    examples = {"x": np.arange(12, dtype=np.float32).reshape(6, 2), "y": [np.arange(6) * 10]}
    parts = [np.array([5, 0]), np.array([4, 1, 2, 3, 5]), np.array([3])]
    data = stack_workers(examples, parts)
    rows = np.array([[5, 0, 5, 0, 5], [4, 1, 2, 3, 5], [3, 3, 3, 3, 3]])
    # Row r of x is (2r, 2r + 1).
    expected = {"x": np.stack([2 * rows, 2 * rows + 1], axis=-1), "y": [10 * rows]}
    jax.tree.map(np.testing.assert_array_equal, data.examples, expected)
    assert data.sizes.tolist() == [2, 5, 1]


def test_stack_workers_errors():
    for parts, sizes in (([], r"\[\]"), ([np.array([0]), np.array([], int)], r"\[1, 0\]")):
        with pytest.raises(ValueError, match="every worker needs at least 1 .* got sizes " + sizes):
            stack_workers(np.arange(3), parts)
    for bad in (3, -1):
        with pytest.raises(ValueError, match=r"the parts name examples outside 0, \.\.\., 2"):
            stack_workers(np.arange(3), [np.array([0, bad])])


@pytest.mark.parametrize("lengths", [(3, 2), ()])
def test_arrays_must_be_of_one_length(lengths):
    with pytest.raises(ValueError, match="same number of examples, got "):
        stack_workers(tuple(np.zeros(k) for k in lengths), [np.array([0])])
