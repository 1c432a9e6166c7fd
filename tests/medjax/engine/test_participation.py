"""The draw of the workers that take part in a step."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax._engine.participation import draw_participants
from medjax._engine.random import stage_key

N, KEY = 6, stage_key(4, "simulate")


def cohorts(steps: int, m: int, always: int = 0, key: Any = KEY) -> np.ndarray:
    draw = jax.vmap(lambda step: draw_participants(key, step, N, m, always))
    return np.asarray(draw(jnp.arange(steps)))


@pytest.mark.slow
@pytest.mark.parametrize(("m", "always"), [(3, 0), (3, 1), (4, 2), (1, 0)])
def test_every_set_is_as_likely(m: int, always: int):
    draws = cohorts(4000, m, always)
    assert draws.dtype == np.int32
    assert (np.diff(draws, axis=1) > 0).all()
    np.testing.assert_array_equal(draws[:, m - always :], [range(N - always, N)] * 4000)
    sets = list(itertools.combinations(range(N - always), m - always))
    counts = [np.sum((draws[:, : m - always] == s).all(axis=1)) for s in sets]
    assert sum(counts) == 4000
    # Binomial: 5 deviations, of 20 sets at most.
    p = 1 / len(sets)
    assert np.abs(np.array(counts) - 4000 * p).max() < 5 * np.sqrt(4000 * p * (1 - p))


@pytest.mark.slow
def test_the_draw_is_a_function_of_key_and_step():
    np.testing.assert_array_equal(cohorts(9, 3), cohorts(20, 3)[:9])
    assert np.any(cohorts(9, 3) != cohorts(9, 3, key=stage_key(5, "simulate")))


@pytest.mark.parametrize(("m", "always"), [(N, 0), (N, 2), (N, N), (2, 2)])
def test_nothing_to_draw(m: int, always: int):
    np.testing.assert_array_equal(cohorts(5, m, always), [range(N - m, N)] * 5)
