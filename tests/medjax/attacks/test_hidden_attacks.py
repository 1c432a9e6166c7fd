"""Attacks made against SignGuard and clipped clustering: the rules accept them, and suffer."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import attacks, rules
from medjax._engine.lazy import as_lazy
from medjax._engine.vectors import vectors_of

H, F, D = 16, 4, 200
RNG = np.random.default_rng(0)
# As far apart as heterogeneous workers' gradients: cosines of about 0.2. Most numbers are positive,
# so that a vector turned round shows in the shares of the signs.
MEAN = RNG.normal(0.7, 1, D).astype(np.float32)
HONEST = (MEAN + 2 * RNG.normal(size=(H, D))).astype(np.float32)
X = np.concatenate([HONEST, np.zeros((F, D), np.float32)])
MU = HONEST.mean(axis=0)
LENGTH = np.median(np.linalg.norm(HONEST, axis=1))
OTHERS = {
    "alie": attacks.alie(1.5),
    "alie, downwards": attacks.alie(-1.5),
    "ipm": attacks.ipm(2.0),
    "short ipm": attacks.ipm(0.1),
    "sign_flip": attacks.sign_flip(),
    "min_max": attacks.min_max(),
}


def results(
    rule: rules.Geometric, tried: dict[str, attacks.Attack], keys: int = 1
) -> dict[str, tuple[float, float]]:
    """For each attack the share of its vectors that the rule takes, and ⟨rule, μ⟩/‖μ‖²."""

    def one(sent: jax.Array, key: Any) -> jax.Array:
        given = key if rule.needs_key else None
        weights = rule.weigh(vectors_of(as_lazy(sent)), given)
        along = jnp.dot(rule(sent, given), MU) / jnp.dot(MU, MU)
        return jnp.stack([jnp.mean(weights[H:] > 0), along])

    @jax.jit
    def every(keys: Any) -> jax.Array:
        sent = jnp.stack([attack(X, F, 7) for attack in tried.values()])
        return jax.lax.map(lambda x: jax.lax.map(lambda key: one(x, key), keys).mean(axis=0), sent)

    found = np.asarray(every(jax.random.split(jax.random.key(0), keys)))
    return {name: (float(t), float(a)) for name, (t, a) in zip(tried, found, strict=True)}


def sent_by(attack: attacks.Attack, x: Any = X) -> np.ndarray:
    out = np.asarray(jax.jit(lambda x: attack(x, F))(x))
    np.testing.assert_array_equal(out[: len(x) - F], x[: len(x) - F])
    np.testing.assert_array_equal(out[-F:], np.tile(out[-1], (F, 1)))
    return out[-1]


def test_balanced_flip_has_the_honest_shares_and_length():
    sparse = np.where(np.random.default_rng(1).random(X.shape) < 0.3, 0, X)
    honest = sparse[:H]
    sent = sent_by(attacks.balanced_flip(), sparse)
    for holds in (np.greater, np.less, np.equal):
        assert abs(holds(sent, 0).sum() - holds(honest, 0).sum(axis=1).mean()) <= 1
    expected = np.median(np.linalg.norm(honest, axis=1))
    np.testing.assert_allclose(np.linalg.norm(sent), expected, rtol=1e-5)


def test_balanced_flip_is_the_worst_of_its_shares():
    x = np.random.default_rng(2).normal(0.7, 1, (5 + F, 7)).astype(np.float32)
    honest = x[:5]
    mu, length = honest.mean(axis=0), np.median(np.linalg.norm(honest, axis=1))
    positive = round(float((honest > 0).sum(axis=1).mean()))
    # With signs s the least of ⟨v, μ⟩ is on the coordinates in which s may oppose μ.
    least = min(
        -length * np.linalg.norm(mu[np.array(signs) * mu < 0])
        for signs in itertools.product((1, -1), repeat=7)
        if signs.count(1) == positive
    )
    sent = sent_by(attacks.balanced_flip(), x)
    assert (sent > 0).sum() == positive
    assert least <= sent @ mu <= 0.99 * least


@pytest.mark.slow
def test_signguard_accepts_the_balanced_flip_and_suffers_from_it_most():
    tried = {"balanced": attacks.balanced_flip()} | OTHERS
    found = results(rules.signguard(fraction=0.5), tried, keys=8)
    taken, along = found.pop("balanced")
    assert taken >= 0.75  # of the draws of coordinates
    assert along < min(other for _, other in found.values()) - 0.2, found


@pytest.mark.slow
def test_clustering_accepts_the_turned_mean_and_suffers_from_it_most():
    rule, ways = rules.clipped_clustering(), ("spread", "std", "sign")
    found = results(rule, {way: attacks.optimal_turn(rule, way) for way in ways} | OTHERS)
    turned = {way: found.pop(way) for way in ways}
    for taken, along in turned.values():
        assert taken == 1
        assert along < min(other for _, other in found.values()) - 0.02, (turned, found)


@pytest.mark.slow
def test_turned_as_far_as_the_best_of_a_fine_grid():
    rule = rules.clipped_clustering()
    side = HONEST.std(axis=0, ddof=1)
    across = side - (side @ MU) / (MU @ MU) * MU
    angles = np.linspace(-np.pi, np.pi, 201)[1:, None]
    units = np.cos(angles) * MU / np.linalg.norm(MU)
    units += np.sin(angles) * across / np.linalg.norm(across)
    stacked = jnp.stack([X.copy()] * 200).at[:, H:].set((LENGTH * units)[:, None])
    along = jax.jit(lambda x: jax.lax.map(rule, x) @ MU)(stacked)
    sent = sent_by(attacks.optimal_turn(rule, "std", num_points=16, num_rounds=3))
    found = rule(jnp.asarray(X).at[H:].set(sent)) @ MU
    assert found <= along.min() + 0.02 * abs(along.min())


def test_the_mean_is_turned_round():
    # ⟨mean, μ⟩ is least at θ = π, whatever p.
    sent = sent_by(attacks.optimal_turn(rules.mean()))
    np.testing.assert_allclose(sent, -LENGTH * MU / np.linalg.norm(MU), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: attacks.optimal_turn(rules.mean(), "up"), ValueError, "of spread, std, sign; got"),
        (lambda: attacks.optimal_turn(rules.mean(), num_points=2), ValueError, "at least 3, got 2"),
        (
            lambda: attacks.optimal_turn(rules.fltrust(lambda params: params)),
            TypeError,
            "one without memory, got fltrust",
        ),
    ],
)
def test_mistakes(make: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        make()
