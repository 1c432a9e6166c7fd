"""What f workers can do by sending 1e6, NaN or ±∞: to robust rules little, to others anything."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import mixing, rules

N, F, D = 11, 2, 6
NAN, INF = np.nan, np.inf
ATTACKS = [
    np.full((F, D), 1e6),
    [[1e6] * D, [-1e6] * D],
    np.full((F, D), NAN),
    [[INF] * D, [-INF] * D],
    [[1e6] * D, [NAN] + [0] * (D - 1)],
]
each_attack = pytest.mark.parametrize("attack", ATTACKS, ids=["far", "apart", "NaN", "∞", "mixed"])


def honest(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(1, 1, (N, D)).astype(np.float32)


# No honest vector is as long as 8, so that only the others are clipped.
MIXINGS = [(mixing.nnm(F),), (mixing.bucketing(2),), (mixing.clip(8.0),), (mixing.arc(F),)]
MIXINGS.append((mixing.arc(F), mixing.nnm(F)))


@functools.cache
def mixed() -> Callable[[Any], dict[str, jax.Array]]:
    """Rules of two families after every mixing, and the mean after those that shorten."""
    pairs = [(rule, stages) for rule in (rules.median(), rules.krum(F)) for stages in MIXINGS]
    built = [mixing.premixed(rule, *stages) for rule, stages in pairs]
    built.append(mixing.premixed(rules.trimmed_mean(F), mixing.nnm(F)))
    built += [mixing.premixed(rules.mean(), stage) for stage in (mixing.clip(8.0), mixing.arc(F))]
    return jax.jit(lambda x: {rule.name: rule(x, 0 if rule.needs_key else None) for rule in built})


@pytest.mark.slow
@each_attack
def test_rules_after_mixing_stay_as_near_to_the_honest_mean_as_honest_workers(attack: Any):
    for seed in range(5):
        x = honest(seed)
        where = np.random.default_rng(seed).choice(N, F, replace=False)
        x[where] = attack
        good = np.delete(x, where, axis=0)
        mean = good.mean(axis=0)
        radius = np.linalg.norm(good - mean, axis=1).max()
        for name, out in mixed()(x).items():
            # Of the mean: f of n vectors, each of length 8 at most, in place of honest ones; and
            # arc makes honest ones shorter by no more than their lengths differ.
            of_mean = F / N * (8 + np.linalg.norm(mean)) + radius
            bound = of_mean if name.endswith(", mean") else radius
            assert np.linalg.norm(out - mean) <= bound, name


TAU = 2.0


@functools.cache
def remembered() -> Callable[[Any], dict[str, jax.Array]]:
    """What rules with a memory give at the last of 30 steps with the same vectors."""

    def run(rule: rules.StatefulRule, x: Any) -> jax.Array:
        params = jnp.ones(D)

        def step(state: Any, _: None) -> tuple[Any, jax.Array]:
            return rule.update(x, state, params)[::-1]

        return jax.lax.scan(step, rule.init(params), length=30)[1][-1]

    sgd = rules.byzantine_sgd(F, N, 5.0, 1e3, 1e3)
    clipping = rules.centered_clipping_from_last(TAU)
    return jax.jit(lambda x: {"sgd": run(sgd, x), "clipping": run(clipping, x)})


@pytest.mark.slow
@each_attack
def test_rules_that_remember_stay_near_the_honest_mean(attack: Any):
    for seed in range(5):
        x = (1 + 0.1 * (honest(seed) - 1)).astype(np.float32)
        x[[0, 4]] = attack
        mean = np.delete(x, [0, 4], axis=0).mean(axis=0)
        out = remembered()(x)
        # Who sends such things is dropped at the first step.
        np.testing.assert_allclose(out["sgd"], mean, rtol=1e-5)
        # At rest h (mean - v) and the f vectors of length τ, at most, are in balance.
        assert np.linalg.norm(out["clipping"] - mean) <= F / (N - F) * TAU + 1e-4


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "x", "expected"),
    [
        # One worker is enough, with buckets as without.
        (rules.mean(), column(1, 1, 1, 1e6), 250_000.75),
        (rules.mean(), column(1, 1, 1, NAN), NAN),
        (rules.mean(), column(1, 1, 1, -INF), -INF),
        (mixing.premixed(rules.mean(), mixing.bucketing(2)), column(1, 1, 1, 1e6), 250_000.75),
        (mixing.premixed(rules.mean(), mixing.bucketing(2)), column(1, 1, 1, NAN), NAN),
        # The longest aren't used: a short vector is, though all honest ones are equal.
        (rules.cge(1), column(1, 1, 1, -0.99), (1 + 1 - 0.99) / 3),
        # Clipping to a length that is too great for them.
        (mixing.premixed(rules.mean(), mixing.clip(1e5)), column(1, 1, 1, 1e6), 25_000.75),
        (rules.centered_clipping(1e5), column(1, 1, 1, 1e6), 25_000.75),
        # As many as the honest, or more than was declared.
        (rules.majority_vote(), column(1, 1, -1, -1), 0),
        (rules.majority_vote(), column(1, 1, -1, -1, -1), -1),
        (rules.median(), column(1, 1, 1e6, 1e6), 500_000.5),
        (rules.trimmed_mean(1), column(1, 1, 1, 1e6, 1e6), (1 + 1 + 1e6) / 3),
        (rules.krum(1), column(1, 2, 9, 9, 9), 9),
    ],
)
def test_where_rules_break(rule: rules.Rule, x: np.ndarray, expected: float):
    out = jax.jit(lambda x: rule(x, 0 if rule.needs_key else None))(x)
    np.testing.assert_allclose(out, [expected], rtol=1e-3)
