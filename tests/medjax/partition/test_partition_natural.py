"""Partitions that keep each client's examples together."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medjax.partition import natural


@st.composite
def problems(draw):
    """Draw the examples' clients, integers in random order, and at most as many workers."""
    clients = draw(st.lists(st.integers(-99, 99), min_size=1, max_size=12, unique=True))
    owners = np.repeat(clients, [draw(st.integers(1, 5)) for _ in clients])
    return np.random.default_rng(len(owners)).permutation(owners), draw(
        st.integers(1, len(clients))
    )


@pytest.mark.slow
@given(problem=problems(), seed=st.integers(0, 2**63))
def test_every_client_is_whole_with_one_worker(problem, seed):
    owners, n = problem
    parts = natural()(owners, n, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(owners)))
    assert all((np.diff(part) > 0).all() for part in parts)
    hands = [set(owners[part].tolist()) for part in parts]
    for hand, part in zip(hands, parts, strict=True):
        assert set(np.flatnonzero(np.isin(owners, list(hand))).tolist()) == set(part.tolist())
    # Of K clients each worker has ⌊K/n⌋ or ⌈K/n⌉.
    clients = len(set(owners.tolist()))
    assert {len(hand) for hand in hands} <= {clients // n, -(-clients // n)}
    again = natural()(owners, n, seed)
    assert [part.tolist() for part in again] == [part.tolist() for part in parts]


def test_every_worker_is_as_likely_for_every_client():
    runs, owners = 400, np.arange(10) // 2  # five clients among two workers
    holders = np.array([np.isin(np.arange(10), natural()(owners, 2, s)[0]) for s in range(runs)])
    # Each is with the first worker with probability 1/2, within 5 deviations of binomial(400, 1/2).
    assert np.abs(holders.sum(axis=0) - 200).max() < 5 * math.sqrt(runs / 4)
    # Which worker has three of the five clients is random too, and all 20 splits occur.
    assert len(np.unique(holders, axis=0)) == 20
    assert set(Counter(holders.sum(axis=1).tolist())) == {4, 6}


def test_fewer_clients_than_workers():
    with pytest.raises(ValueError, match="3 workers need at least 3 clients, there are 2"):
        natural()(np.array([5, 5, 8, 8]), 3, 0)
