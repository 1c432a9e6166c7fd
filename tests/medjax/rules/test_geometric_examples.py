"""Geometric rules by hand: ties, what is drawn, broken workers, and every error."""

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import mixing, rules
from medjax._engine.lazy import as_lazy
from medjax._engine.vectors import vectors_of
from medjax.rules import middle, sample_columns

NAN = math.nan


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


BY_HAND: list[tuple[rules.Rule, Any, Any]] = [
    # k = 5 - 1 - 2 = 2: scores 1 + 9, 1 + 4, 4 + 9, 49 + 36, ...
    (rules.krum(1), column(0, 1, 3, 9, 30), 1),
    # The neighbours of 0 and 1 are each other: the lower index wins.
    (rules.krum(1, num_neighbors=1), column(7, 0, 1, 4), 0),
    # All but one: 9 + 1, 4 + 9 and 1 + 4 (of -3, 0 and -1 to the others) for n - f - 1 = 2.
    (rules.krum(0, num_neighbors=2), column(-3, 0, -1), -1),
    # One neighbour at least, by whom 0 and 1 are equal; 1 would be the nearest to both others.
    (rules.krum(1), column(0, 1, 5), 0),
    (rules.multi_krum(1, num_selected=2), column(0, 1, 3, 9, 30), 0.5),
    (rules.multi_krum(1), column(NAN, 1, 2, 6), 3),
    # {0, 1, 2} and {3, 1, 2} have diameter 2: of the indices, 0 2 3 stands before 1 2 3.
    (rules.mda(2), column(0, 3, 1, 2, 9), 1),
    (rules.smea(1), column(0, 6, 2, -30), 8 / 3),
    # Any three vary as much.
    (rules.smea(1), column(0.1, 0.1, 0.7, 0.7), 0.3),
    (rules.mda(1), column(0.1, 0.1, 0.7, 0.7), 0.3),
    # Exactly equal ones.
    (rules.smea(1), column(9, 1, 1, 1), 1),
    (rules.mda(1), column(9, 1, 1, 1), 1),
    (rules.monna(2), column(3, 9, 2, 5, -9), 10 / 3),
    (rules.monna(2, reference=1), column(3, 9, 2, 5, 10), 8),
    # Near as the next ones are, the reference has a part.
    (rules.monna(2), column(0, 0.1, 0.1, 0.1, 9), 0.2 / 3),
    # A reference that isn't finite: the first three of those that are.
    (rules.monna(2), column(NAN, 1, 2, 30, 40), 11),
    (rules.cge(1), column(1, -1), 1),
    (rules.cge(2), column(3, -5, 1, math.inf), 2),
    # 1-d: mean 2, p² = 4, 4, 4, 4, 64; the 10 is dropped and nothing varies any more.
    (rules.caf(1), column(0, 0, 0, 0, 10), 0),
    (rules.caf(0), column(0, 4), 2),
    # The 9 has the largest of ±1 ±1 ±5 ±7 ... from the mean 2.
    (rules.dnc(1), column(1, 1, -3, 9), -1 / 3),
    (rules.dnc(1), column(1, 0, 0), 0),
    (rules.caf(1), column(1, 0, 0), 0),
    (rules.dnc(1, filter_fraction=1.5), column(1, 3, 2, 2, 2), 2),  # ⌈1.5⌉ = 2 are dropped
    # β = 1/5, 1/5, 1/10, so that it comes to 2.4; then 1/5, 1/5, 1/7.6.
    (rules.geometric_median(5.0, 2), column(0, 1, 10), 2.851485),
    (rules.geometric_median(5e25, 2), column(0, 1e25, 1e26), 2.851485e25),
    (rules.geometric_median(num_steps=1), [[3.0, 4.0], [0.0, 1.0]], [0.5, 1.5]),  # β = 1/5, 1
    # v = (2 - 1)/2, then v + (2 - 1.5)/2.
    (rules.centered_clipping(2.0), column(4, -1), 0.5),
    (rules.centered_clipping(2.0, num_steps=2), column(4, -1), 0.75),
    (rules.centered_clipping(2.0, num_steps=9), column(0, NAN), 0),
    # Half of them, or more, are no vectors: the others' products are still theirs.
    (rules.centered_clipping(1.0, num_steps=2), column(100, NAN), 1),
    (rules.centered_clipping(1.0, num_steps=2), column(100, 50, NAN, math.inf), 1),
    (rules.geometric_median(num_steps=50), column(0, 0.1, 40, NAN, NAN, NAN), 0.1),
    (
        mixing.premixed(rules.centered_clipping(1.0), mixing.clip(10.0)),
        column(100, NAN, NAN),
        1 / 3,
    ),
    # After a mixing that only scales, short vectors keep their lengths beside a far pivot.
    (
        mixing.premixed(rules.centered_clipping(5e-5), mixing.clip(10.0)),
        [[1.0, 0], [1.0, 0], [1.0, 0], [0, 1e-4], [0, 2e-5]],
        [3e-5, 1.4e-5],
    ),
    # With more neighbours than can be finite, a vector that isn't finite still comes last.
    (rules.krum(1, num_neighbors=3), column(NAN, 1, 1.1, 1.2), 1),
    (rules.multi_krum(1, num_neighbors=3), column(NAN, 1, 1.1, 1.2), 1.1),
    # From 5: the differences -1 and -6, clipped to 2, and from 3.5 on 0.5 and -4.5.
    (rules.centered_clipping(2.0, start=np.float32([5])), column(4, -1), 3.5),
    (rules.centered_clipping(2.0, 2, np.float32([5])), column(4, -1), 2.75),
    # The pairs 0 1 and 2 3: equally large; M = 2.5.
    (rules.clipped_clustering(), [[4, 0], [1, 0], [0, 1], [0, 4.0]], [1.75, 0]),
    (rules.clipped_clustering(), [[2, 0], [0, 6.0]], [2, 0]),
    # 0 has cosine 0 with all, and the opposite ones -1: it goes with the first of the nearest.
    (rules.clipped_clustering(), column(0, 2, -2), 1),
    # It is nearer to the first than that is to the second, at 100 degrees, but not at 80. The
    # squares of long ones overflow.
    (rules.clipped_clustering(), [[1.5e25, 0], [-0.2605e25, 1.4772e25], [0, 0]], [0.75e25, 0]),
    (rules.clipped_clustering(), [[1.5, 0], [-0.2605, 1.4772], [0, 0]], [0.75, 0]),
    (rules.clipped_clustering(), [[1.5, 0], [0.2605, 1.4772], [0, 0]], [0.88025, 0.7386]),
    (rules.clipped_clustering(), column(NAN, 2, 2, -2, -math.inf), 2),
    # Two that are 0 are as far apart as from the pair, to which the first of them goes.
    (
        rules.clipped_clustering(),
        [[1, 0], [0.5, 0.75**0.5], [0, 0], [0, 0]],
        [1 / 4, 3**0.5 / 12],
    ),
    # M = 2: 1 is just long enough, 4 just short enough, and clipped.
    (rules.signguard(lower=0.5, upper=2.0, fraction=1.0), column(1, 2, 4), 5 / 3),
    # Of 6 and 1, with equal scores, the lower index is selected; then 3 around the median of 5.
    (rules.bulyan(1), column(99, 2, 3, 4, 5, 6, 1), 4),
]


@functools.cache
def by_hand() -> list[np.ndarray]:
    """The results of all examples, from one program; a rule's of one shape in a loop."""
    found: list[Any] = [None] * len(BY_HAND)
    alike: dict[Any, list[int]] = {}
    for i, (rule, x, _) in enumerate(BY_HAND):
        name = i if "start" in rule.name else rule.name  # whose values the name doesn't tell
        alike.setdefault((name, np.shape(x)), []).append(i)

    @jax.jit
    def apply(stacks: list[Any]) -> list[jax.Array]:
        chosen = [BY_HAND[i][0] for i, *_ in alike.values()]
        keys = [0 if rule.needs_key else None for rule in chosen]
        return [
            jax.lax.map(lambda x, rule=rule, key=key: rule(x, key), stack)
            for rule, key, stack in zip(chosen, keys, stacks, strict=True)
        ]

    stacks = [np.array([BY_HAND[i][1] for i in group], np.float32) for group in alike.values()]
    for group, results in zip(alike.values(), jax.device_get(apply(stacks)), strict=True):
        for i, result in zip(group, results, strict=True):
            found[i] = result
    return found


@pytest.mark.slow
@pytest.mark.parametrize("i", range(len(BY_HAND)), ids=lambda i: f"{i}-{BY_HAND[i][0].name}")
def test_by_hand(i: int):
    result, expected = by_hand()[i], BY_HAND[i][2]
    np.testing.assert_allclose(result, np.broadcast_to(expected, result.shape), 1e-5, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "score"),
    [
        (rules.smea(2), lambda x: np.linalg.norm(x - x.mean(axis=0), 2)),
        (rules.mda(2), lambda x: np.max(np.linalg.norm(x[:, None] - x, axis=2))),
    ],
    ids=["smea", "mda"],
)
def test_of_equally_good_subsets_the_first_is_taken(rule: rules.Rule, score: Any):
    jitted = jax.jit(rule)
    for seed in range(40):
        # Two or three different vectors in a random order: rounding would decide between copies.
        rng = np.random.default_rng(seed)
        x = rng.normal(1, 1, size=(2 + seed % 2, 3)).astype(np.float32)
        x = x[rng.integers(len(x), size=6)]
        subsets = list(itertools.combinations(range(6), 4))
        scores = np.array([score(x[list(chosen)].astype(np.float64)) for chosen in subsets])
        first = subsets[np.argmax(scores <= scores.min() + 1e-6)]
        np.testing.assert_allclose(jitted(x), x[list(first)].mean(axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_geometric_median_minimises_the_sum_of_distances():
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    z = np.asarray(jax.jit(rules.geometric_median(1e-3, num_steps=1000, tol=1e-6))(x))
    unit = (x - z) / np.linalg.norm(x - z, axis=1, keepdims=True)
    assert np.linalg.norm(unit.sum(axis=0)) < 1e-3  # the gradient


@pytest.mark.slow
def test_tol_stops_the_geometric_median_early():
    x = np.random.default_rng(1).normal(1, 1, size=(6, 3)).astype(np.float32)
    until = jax.jit(lambda tol: rules.geometric_median(0.1, 50, tol)(x))
    z = [np.zeros(3)]
    for _ in range(50):
        beta = 1 / np.maximum(0.1, np.linalg.norm(x - z[-1], axis=1))
        z.append(beta @ x / beta.sum())
    moved = np.linalg.norm(np.diff(z, axis=0), axis=1) / np.maximum(
        1, np.linalg.norm(z[1:], axis=1)
    )
    assert np.all(np.diff(moved[:5]) < 0)
    for tol, steps in ((1.5, 1), (moved[1] * 1.01, 2), (moved[3] * 1.01, 4), (0.0, 50)):
        np.testing.assert_allclose(until(tol), z[steps], rtol=2e-5)


@pytest.mark.slow
def test_dnc_draws_coordinates_of_all_leaves_together():
    x = np.random.default_rng(2).normal(size=(8, 60)).astype(np.float32)
    x[5] += 4  # in every coordinate
    rule = jax.jit(rules.dnc(1, num_iterations=3, sub_dim=20))
    expected = np.delete(x, 5, axis=0).mean(axis=0)
    np.testing.assert_allclose(rule(x, 7), expected, rtol=1e-5, atol=1e-6)
    tree = {"a": x[:, :10].reshape(8, 2, 5), "b": np.ones((8, 0)), "c": x[:, 10:]}
    parts = jax.jit(rules.dnc(1, num_iterations=3, sub_dim=20))(tree, 7)
    np.testing.assert_allclose(parts["a"].ravel(), expected[:10], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(parts["c"], expected[10:], rtol=1e-5, atol=1e-6)
    x[1, 3] = NAN  # a coordinate that is hardly ever looked at
    assert all(np.all(np.isfinite(rule(x, key))) for key in range(5))


@pytest.mark.slow
def test_dnc_takes_what_no_iteration_drops_or_else_what_the_last_keeps():
    # Two are dropped of three: at coordinate 0 the first is kept, at coordinate 1 the second.
    x = np.array([[0, 5], [5, 0], [-5.1, -5.1]], np.float32)
    once = jax.jit(lambda key: rules.dnc(1, 1, 1, 2.0)(x, key))
    often = jax.jit(lambda key: rules.dnc(1, 30, 1, 2.0)(x, key))
    twice = jax.jit(lambda key: rules.dnc(1, 2, 1, 2.0)(x, key))
    # They look at the same coordinates, as far as they go.
    assert any(np.any(once(key) != twice(key)) for key in range(12))
    assert any(np.any(twice(key) != often(key)) for key in range(12))
    for rule in (once, often):
        kept = {tuple(np.asarray(rule(key)).tolist()) for key in range(12)}
        assert kept == {(0, 5), (5, 0)}
    # The first is dropped where coordinate 0 is looked at, the second where it is coordinate 1.
    x = np.array([[9, 0], [0, 9], [1, 1], [-1, -1]], np.float32)
    np.testing.assert_allclose(jax.jit(rules.dnc(1, 30, 1))(x, 0), 0, atol=1e-6)
    # 1.1 · 10 is 11, though not in floating point.
    rule, x = rules.dnc(10, filter_fraction=1.1), np.random.default_rng(0).normal(size=23)
    kept = jax.jit(lambda x: rule.weigh(vectors_of(as_lazy(x)), 0))(x.astype(np.float32))
    assert np.sum(kept > 0) == 12


@pytest.mark.slow
def test_signguard_filters_signs_at_random_coordinates():
    rng = np.random.default_rng(3)
    x = (rng.random((9, 400)) < 0.9) * 2.0 - 1  # 9 of 10 positive, all of norm 20
    x[[2, 6]] *= -1
    x[4] *= 2  # passes, clipped
    x = x.astype(np.float32)
    rule = jax.jit(rules.signguard(fraction=0.5))
    good = x.copy()
    good[4] /= 2
    expected = np.delete(good, [2, 6], axis=0).mean(axis=0)
    np.testing.assert_allclose(rule(x, 1), expected, rtol=1e-5, atol=1e-6)
    x[4] *= 10  # doesn't pass
    np.testing.assert_allclose(
        rule(x, 1), np.delete(good, [2, 4, 6], axis=0).mean(axis=0), rtol=1e-5, atol=1e-6
    )


def test_signguard_without_agreement_keeps_what_has_the_usual_norm():
    # The largest cluster is that of the three positive ones, all of unusual norm; M = 1.
    signs = [[1, 1], [1, 1], [1, 1], [-1, -1], [-1, -1], [1, -1], [-1, 1]]
    x = np.float32(signs) * column(0.01, 0.01, 100, 1, 1, 1, 1) / np.float32(math.sqrt(2))
    result = jax.jit(rules.signguard(fraction=1.0))(x, 0)
    np.testing.assert_allclose(result, x[3:].mean(axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_signguard_looks_at_one_coordinate_at_least():
    # At either, the second goes with one of the others; by both no two are alike.
    x = np.float32([[1, 1], [1, -1], [-1, -1]])
    rule = jax.jit(rules.signguard(fraction=0.01))
    assert {tuple(np.asarray(rule(x, key)).tolist()) for key in range(12)} == {(1, 0), (0, -1)}


def test_columns_are_drawn_evenly():
    # Of 10 columns in three leaves, the second row is 10 more than the first.
    x = np.arange(10.0) + 10 * np.arange(2.0)[:, None]
    rows = [jnp.asarray(part) for part in (x[:, :6], x[:, :0], x[:, 6:])]
    np.testing.assert_array_equal(sample_columns(rows, jax.random.key(0), 10), x)
    draw = jax.jit(jax.vmap(lambda seed: sample_columns(rows, jax.random.key(seed), 9)))
    draws = np.asarray(draw(np.arange(200)))
    np.testing.assert_array_equal(draws[:, 1], draws[:, 0] + 10)
    counts = np.bincount(draws[:, 0].astype(int).ravel(), minlength=10)
    # Each of 10 has a share of 1800 draws: 180, with standard deviation 12.7.
    assert np.all(np.abs(counts - 180) < 5 * 12.8)


def test_middle():
    both = jax.jit(lambda *x: [middle(one) for one in x])
    x = np.array([3.0, math.inf, 1.0, NAN, 2.0], np.float32), np.array([4.0, 1.0], np.float32)
    assert both(*x) == [3, 2.5]
