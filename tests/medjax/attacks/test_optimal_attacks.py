from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import medjax
from medjax import attacks, mixing, rules

N, F, D = 10, 2, 6
X = np.random.default_rng(0).normal(1, 1, (N, D)).astype(np.float32)
H = N - F
MEAN, STD = X[:H].mean(axis=0), X[:H].std(axis=0, ddof=1)
RULES = {
    "mean": rules.mean(),
    "median": rules.median(),
    "krum": rules.krum(F),
    "nnm, trimmed_mean": mixing.premixed(rules.trimmed_mean(F), mixing.nnm(F)),
    "bucketing, median": mixing.premixed(rules.median(), mixing.bucketing(2)),
}
# What is sent at τ, and the attack.
KINDS = {
    "ipm": (lambda tau: -tau * MEAN, attacks.optimal_ipm),
    "alie": (lambda tau: MEAN + tau * STD, attacks.optimal_alie),
}


def distances(rule: rules.Rule, sent: np.ndarray) -> np.ndarray:
    """How far the rule is moved by each of the vectors, sent by both attackers."""
    stacked = np.stack([np.concatenate([X[:H], np.tile(s, (F, 1))]) for s in sent])
    moved = jax.jit(jax.vmap(rule))(stacked)
    return np.linalg.norm(np.asarray(moved) - MEAN, axis=1)


def found(attack: attacks.Attack, key: int | None = None) -> np.ndarray:
    sent = np.asarray(jax.jit(lambda x: attack(x, F, key))(X))
    np.testing.assert_array_equal(sent[:H], X[:H])
    np.testing.assert_array_equal(sent[H], sent[H + 1])
    return sent[H]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"),
    [("ipm", "mean"), ("ipm", "krum"), ("alie", "median"), ("alie", "nnm, trimmed_mean")],
)
def test_moves_the_rule_as_far_as_every_tau_of_a_fine_grid(kind: str, name: str):
    line, make = KINDS[kind]
    grid = np.geomspace(0.1, 10, 1000)
    farthest = distances(RULES[name], np.stack([line(tau) for tau in grid])).max()
    # 20 points to two powers of 10, then 10 times and 10 times more of them: steps of 0.23 %.
    sent = found(make(RULES[name], num_points=20))
    assert distances(RULES[name], sent[None])[0] >= 0.995 * farthest


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sent_is_on_the_line_and_no_worse_than_its_first_round(kind: str):
    (line, make), name = KINDS[kind], "krum"
    sent = found(make(RULES[name], max_tau=4.0))
    tau = -sent[0] / MEAN[0] if kind == "ipm" else (sent[0] - MEAN[0]) / STD[0]
    assert 0 < tau <= 4 + 1e-5
    np.testing.assert_allclose(sent, line(tau), rtol=1e-5, atol=1e-5)
    first = distances(
        RULES[name], np.stack([line(tau) for tau in 4.0 * 100 ** (np.arange(1, 9) / 8 - 1)])
    ).max()
    assert distances(RULES[name], sent[None])[0] >= first * (1 - 1e-6)


@pytest.mark.slow
def test_goes_to_the_end_against_the_mean_and_not_against_krum():
    # Krum may choose an attacker who is far off, but not one who is farther from all others than
    # they are from each other.
    np.testing.assert_allclose(found(attacks.optimal_ipm(RULES["mean"])), -10 * MEAN, rtol=1e-5)
    tau = (found(attacks.optimal_alie(RULES["krum"])) - MEAN) / STD
    assert 0.1 < tau[0] < 3


@pytest.mark.slow
def test_the_best_tau_is_found_beside_a_jump():
    # A rule that trusts what is at most 1.2345 off, and drops what isn't: the farthest is there.
    limit = 1.2345

    class Trusting:
        name, needs_key = "trusting", False

        def __call__(self, updates, key=None):
            (x,) = updates
            return [jnp.where(jnp.abs(x[-1]) <= limit, x[-1], 0)]

    honest = np.float32([[-1], [1]])
    attack = attacks.optimal_alie(Trusting(), num_points=8, num_rounds=6)
    sent = attack(np.concatenate([honest, honest[:1]]), 1)[-1, 0]
    # The exponents are at last 2/8 · (2/8)⁵ apart.
    assert limit * 10 ** -(4.0**-6) <= sent <= limit


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [[8, 1], "random"])
def test_the_rule_is_given_the_vectors_in_the_order_of_the_workers(chosen: Any):
    # MoNNA averages those nearest to worker 7, among which -τμ is for some τ only.
    trusting = rules.monna(F, reference=7)
    optimal = attacks.optimal_ipm(trusting, num_points=20)
    tx = medjax.attack(optimal, F, key=1, byzantine=chosen)
    attacked = jax.jit(lambda x: tx.update(x, tx.init(x[0]))[0])
    rule = jax.jit(jax.vmap(trusting))
    for seed in (2, 4, 5, 8):
        x = np.random.default_rng(seed).normal(1, 1, (N, D)).astype(np.float32)
        sent = np.asarray(attacked(x))
        byzantine = np.flatnonzero(np.any(sent != x, axis=1))
        assert chosen == "random" or byzantine.tolist() == sorted(chosen)
        mean = np.delete(x, byzantine, axis=0).mean(axis=0)
        grid = np.tile(x, (400, 1, 1))
        grid[:, byzantine] = -np.geomspace(0.1, 10, 400)[:, None, None] * mean
        moved = np.linalg.norm(np.asarray(rule(np.stack([sent, *grid]))) - mean, axis=1)
        assert moved[0] >= 0.99 * moved.max()
        assert moved.max() > 0.5


@pytest.mark.slow
def test_a_broken_rule_is_moved_infinitely_far():
    class Breaking:
        name, needs_key = "breaking", False

        def __call__(self, updates, key=None):
            (x,) = updates
            return [jnp.where(x[-1] > 5, jnp.nan, 0)]

    sent = attacks.optimal_alie(Breaking())(np.float32([[-1], [1], [0]]), 1)[-1, 0]
    assert sent > 5


@pytest.mark.slow
def test_a_rule_that_draws_is_given_a_key():
    attack = attacks.optimal_alie(RULES["bucketing, median"])
    assert attack.needs_key
    sent = found(attack, 5)
    np.testing.assert_array_equal(sent, found(attack, 5))
    with pytest.raises(ValueError, match=r"optimal_alie\(bucketing\(bucket_size=2\), median\) dra"):
        attack(X, F)
