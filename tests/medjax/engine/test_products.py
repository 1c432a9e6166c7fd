"""Inner products about a pivot: what vectors have in common, and what few numbers hide."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import mixing, rules
from medjax._engine.lazy import as_lazy
from medjax._engine.vectors import vectors_of

N, F, D = 10, 2, 10_000  # of which one in 157 coordinates is looked at for the first pivot
HIDDEN = 4321


def offset(spread: float = 1e-4, of_byzantine: float = 1e-3) -> np.ndarray:
    spreads = np.where(np.arange(N) < N - F, spread, of_byzantine)[:, None]
    return np.float32(1 + spreads * np.random.default_rng(0).normal(size=(N, D)))


def squared_distances(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return np.sum((x[:, None] - x) ** 2, axis=2)


@functools.cache
def looked_at() -> Any:
    """Squared distances, norms and units of the vectors, plain and mixed."""

    def look(x: Any) -> Any:
        plain = vectors_of(as_lazy(x))
        clipped = plain.mixed(mixing.clip(10.0).matrix(plain, None))
        near = plain.mixed(mixing.nnm(F).matrix(plain, None))
        return [(v.squared_distances, v.norms, v.unit) for v in (plain, clipped, near)]

    return jax.jit(look)


@pytest.mark.slow
def test_a_common_offset_does_not_blur_distances():
    x = offset()
    exact = x.astype(np.float64)
    clipped = 10 * exact / np.linalg.norm(exact, axis=1, keepdims=True)
    nearest = np.argsort(squared_distances(x), axis=1)[:, : N - F]
    for found, expected in zip(
        looked_at()(x), (exact, clipped, exact[nearest].mean(axis=1)), strict=True
    ):
        np.testing.assert_allclose(found[0], squared_distances(expected), rtol=2e-3, atol=1e-6)
        np.testing.assert_allclose(found[1], np.linalg.norm(expected, axis=1), rtol=1e-5)
        assert found[2] == 1


def test_multi_krum_tells_workers_apart_that_differ_by_little():
    rule = rules.multi_krum(F)
    weights = jax.jit(lambda x: rule.weigh(vectors_of(as_lazy(x)), None))(offset())
    np.testing.assert_allclose(weights, [1 / 8] * 8 + [0] * 2)


@pytest.mark.slow
@pytest.mark.parametrize("value", [1e6, -1e6, math.nan, math.inf, 1e18, 1e30, -3e38])
def test_no_pivot_is_spoilt_by_a_single_number(value: float):
    # In the midst of the honest ones at all coordinates but one, which isn't looked at at first.
    x = offset()
    x[N - F :] = np.median(x[: N - F], axis=0)
    x[N - F :, HIDDEN] = value
    distances, norms, unit = looked_at()(x)[0]
    honest = slice(N - F)
    np.testing.assert_allclose(
        distances[honest, honest], squared_distances(x[honest]), rtol=2e-3, atol=1e-6
    )
    assert np.all(distances[honest, N - F :] > 1e6)
    assert np.all(np.isfinite(distances[honest, N - F :]) == np.isfinite(value))
    expected = np.linalg.norm(x.astype(np.float64), axis=1)
    expected = np.where(
        np.isfinite(expected), np.minimum(expected, np.finfo(np.float32).max), np.inf
    )
    np.testing.assert_allclose(norms, expected, rtol=1e-5)
    assert unit == 1


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2.0**64, 2.0**100, 2.0**120])
def test_vectors_whose_squares_overflow_are_seen_in_another_unit(scale: float):
    x = offset(0.1, 0.5)
    big = x * np.float32(scale)
    big[0, HIDDEN], big[1] = math.nan, math.inf
    distances, norms, unit = looked_at()(big)[0]
    assert 0 < unit < 1
    np.testing.assert_allclose(
        distances[2:, 2:] / (float(unit) * scale) ** 2, squared_distances(x[2:]), rtol=1e-5
    )
    assert np.all(np.isinf(np.where(np.eye(N), np.inf, distances)[:2]))
    np.testing.assert_allclose(norms[2:], np.linalg.norm(np.float64(big[2:]), axis=1), rtol=1e-5)
    assert np.all(np.isinf(norms[:2]))


@pytest.mark.slow
def test_some_of_the_vectors_are_too_long():
    # Half of them and one: the others are as far as numbers go, but not as far as NaN.
    x = offset(0.1, 0.5)
    x[[2, 3, 4]] *= np.float32(1e30)
    x[5] = math.nan
    distances, norms, unit = looked_at()(x)[0]
    assert unit == 1
    assert np.all(distances[0, [2, 3, 4]] > distances[0, 9])
    assert np.all(np.isfinite(jnp.sum(distances[0, [0, 1, 2, 3, 4, 6, 7, 8, 9]])))
    assert np.isinf(distances[0, 5])
    np.testing.assert_allclose(norms[2] / 1e30, np.linalg.norm(offset(0.1, 0.5)[2]), rtol=1e-5)
