import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax._engine.kernels.sums import Row, Worker, sum_over_workers

pytestmark = pytest.mark.optimized

WORKERS = np.arange(32)


def encode(row: Row, worker: Worker) -> Row:
    """The leaves, the first doubled, and which workers were given: by index, and by pair."""
    by_pair = 2 * worker.pair + jnp.where(worker.second, 1, 0)
    given = [(i == WORKERS).astype(float) for i in (worker.index, by_pair)]
    return [2 * row[0], row[1], *given]


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("platform", ["cpu", "accelerator"])
def test_sum_is_that_of_numpy_row_by_row(paired: bool, platform: str, request: Any):
    if platform == "accelerator":
        request.getfixturevalue("accelerated")
    sum_rows = jax.jit(functools.partial(sum_over_workers, encode, paired=paired))
    # An accelerator's reduction may have another order.
    atol = 0 if platform == "cpu" else 1e-5
    rng = np.random.default_rng(0)
    for c, scale in itertools.product(range(1, 10), (1, 0)):
        draws = [rng.normal(size=(c + 1, d)) for d in (5, 17)]
        draws = [x if scale else np.round(100 * x) for x in draws]  # integers, or not
        start, *rows = zip(*(x.astype(np.float32) for x in draws), strict=True)
        first = rng.choice((0, 2, 6) if paired else (0, 1, 6, 7))
        expected = [x.copy() for x in start]
        for one, other in rows:
            expected[0] += 2 * one
            expected[1] += other
        expected += 2 * [((first <= WORKERS) & (first + c > WORKERS)).astype(np.float32)]
        total = [*start, *np.zeros((2, 32), np.float32)]
        stacked = [np.stack(leaf) for leaf in zip(*rows, strict=True)]
        actual = sum_rows(stacked, jnp.int32(first), total)
        for one, other in zip(actual, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 4])
def test_first_may_be_known_when_compiled(first: int):
    rows, total = [jnp.ones((7, 2)), jnp.ones((7, 3))], [*map(jnp.zeros, (2, 3, 32, 32))]
    actual = sum_over_workers(encode, rows, first, total, paired=True)
    given = (first <= WORKERS) & (first + 7 > WORKERS)
    expected = [np.full(2, 14), np.full(3, 7), given, given]
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_a_worker_is_the_first_or_second_of_a_pair():
    for index in (0, 1, 2, 5, 8, 11):
        worker = Worker.of(jnp.int32(index))
        assert (worker.index, worker.pair, worker.second) == (index, index // 2, index % 2 == 1)
        assert Worker(worker.pair, np.bool_(index % 2)).index == index


@pytest.mark.parametrize("first", [0, 6])
def test_which_of_a_pair_is_known_when_compiled(first: int):
    given = []

    def look(row: Row, worker: Worker) -> Row:
        given.append(worker.second)
        return row

    # 9 rows are added 4 at a time, and the last one alone.
    rows, total = [jnp.ones((9, 2))], [jnp.zeros(2)]
    add = functools.partial(sum_over_workers, look, paired=True)
    jax.eval_shape(add, rows, jnp.int32(first), total)
    assert [bool(x) for x in given if isinstance(x, np.bool_)][:4] == [False, True, False, True]


@pytest.mark.parametrize("n", [1, 2, 7])
def test_all_workers_at_once(n: int):
    index, pair, second = jax.vmap(lambda w: (w.index, w.pair, w.second))(Worker.of(jnp.arange(n)))
    np.testing.assert_array_equal(index, np.arange(n))
    np.testing.assert_array_equal(pair, np.arange(n) // 2)
    np.testing.assert_array_equal(second, np.arange(n) % 2 == 1)
