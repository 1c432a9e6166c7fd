"""Symmetries of mixing stages, of attacks, and of rules that remember, on random vectors."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medjax import attacks, mixing, rules
from medjax._engine.lazy import as_lazy
from medjax._engine.vectors import vectors_of

N, F, D, NUM_STEPS = 8, 2, 3, 4
H = N - F


def normals(*shape: int) -> Callable[[int], np.ndarray]:
    """Seeds to such numbers: of equal ones, which order decides between, there are none."""
    return lambda seed: np.random.default_rng(seed).normal(1, 1, shape).astype(np.float32)


VECTORS = st.integers(0, 2**32 - 1).map(normals(N, D))
SHIFTS = st.integers(0, 2**32 - 1).map(normals(D))
ORDERS = st.permutations(range(N)).map(np.array)
SCALES = st.sampled_from([2.0**k for k in range(-8, 9)])  # nothing is rounded by them
few = settings(max_examples=30)


def assert_close(actual: Any, expected: Any, unit: float = 1.0) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * unit)


@functools.cache
def mixers() -> Callable[..., dict[str, jax.Array]]:
    """(vectors, the length to clip to) to what each stage that draws nothing makes of them."""

    def mix(x: jax.Array, length: float) -> dict[str, jax.Array]:
        stages = {"nnm": mixing.nnm(F), "arc": mixing.arc(F), "clip": mixing.clip(length)}
        vectors = vectors_of(as_lazy(x))
        return {name: stage.matrix(vectors, None) @ x for name, stage in stages.items()}

    return jax.jit(mix)


@pytest.mark.slow
@few
@given(x=VECTORS, order=ORDERS, shift=SHIFTS, scale=SCALES)
def test_symmetries_of_mixing(x: np.ndarray, order: np.ndarray, shift: np.ndarray, scale: float):
    mixed = mixers()(x, 2.0)
    permuted, scaled = mixers()(x[order], 2.0), mixers()(-scale * x, 2.0 * scale)
    for name, rows in mixed.items():
        assert_close(permuted[name], rows[order])
        assert_close(scaled[name], -scale * rows, unit=scale)
    assert_close(mixers()(x + shift[None], 2.0)["nnm"], mixed["nnm"] + shift[None])


@functools.cache
def bucket_means() -> Callable[..., dict[int, jax.Array]]:
    def means(x: jax.Array, seed: int) -> dict[int, jax.Array]:
        vectors, key = vectors_of(as_lazy(x)), jax.random.key(seed)
        return {s: (mixing.bucketing(s).matrix(vectors, key) @ x).mean(axis=0) for s in (1, 2, 4)}

    return jax.jit(means)


@pytest.mark.slow
@few
@given(x=VECTORS, seed=st.integers(0, 2**31 - 1))
def test_buckets_of_equal_size_keep_the_mean(x: np.ndarray, seed: int):
    for mean in bucket_means()(x, seed).values():
        assert_close(mean, x.mean(axis=0))


ATTACKS = {
    name: make(rules.median()) if "rule" in inspect.signature(make).parameters else make()
    for name, make in attacks.ATTACKS.items()
    if name not in ("label_flip", "backdoor")
}
ABSOLUTE = ("gaussian", "nonfinite")  # these don't look at the honest vectors
OF_ONE = ("mimic",)  # this looks at a certain one


@functools.cache
def attacked() -> Callable[..., dict[str, jax.Array]]:
    """The vectors under each attack."""
    return jax.jit(lambda x: {name: attack(x, F, 0) for name, attack in ATTACKS.items()})


@pytest.mark.slow
@few
@given(x=VECTORS, order=st.permutations(range(H)), scale=SCALES)
def test_symmetries_of_attacks(x: np.ndarray, order: list[int], scale: float):
    sent, scaled = attacked()(x), attacked()(scale * x)
    permuted = attacked()(x[[*order, *range(H, N)]])
    for name, rows in sent.items():
        np.testing.assert_array_equal(rows[:H], x[:H])
        assert_close(scaled[name][H:], (1 if name in ABSOLUTE else scale) * rows[H:], unit=scale)
        if name not in OF_ONE:
            assert_close(permuted[name][H:], rows[H:])


STATEFUL = {
    "centered_clipping_from_last": rules.centered_clipping_from_last(0.7, 2),
    # The honest are so close together that it is the same which of them is the median.
    "byzantine_sgd": rules.byzantine_sgd(F, N, 3.0, 10.0, 10.0),
}


@functools.cache
def aggregates() -> Callable[..., dict[str, jax.Array]]:
    """(parameters, stacked updates) of some steps to what each rule makes of the updates."""

    def run(rule: rules.StatefulRule, params: jax.Array, updates: jax.Array) -> jax.Array:
        def step(state: Any, given: Any) -> tuple[Any, jax.Array]:
            return rule.update(given[1], state, given[0])[::-1]

        return jax.lax.scan(step, rule.init(params[0]), (params, updates))[1]

    return jax.jit(lambda *x: {name: run(rule, *x) for name, rule in STATEFUL.items()})


@pytest.mark.slow
@few
@given(
    seed=st.integers(0, 2**32 - 1),
    order=ORDERS,
    lie=st.sampled_from([0.0, 30.0, -1e6, np.nan, np.inf]),
)
def test_order_of_workers_does_not_matter_to_what_is_remembered(
    seed: int, order: np.ndarray, lie: float
):
    params, updates = normals(NUM_STEPS, D)(seed), normals(NUM_STEPS, N, D)(seed)
    updates = 1 + 0.1 * updates
    updates[2:, :F] = lie  # from the third step on
    outs, permuted = aggregates()(params, updates), aggregates()(params, updates[:, order])
    for name, out in outs.items():
        assert np.isfinite(out).all()
        assert_close(permuted[name], out)
