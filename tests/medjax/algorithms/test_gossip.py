"""Gossip between nodes, clipped and attacked: exchanges of vectors alone, of gradients 0."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import medjax
from medjax import algorithms, attacks, topologies

N = 4
RING, SIX = topologies.ring(N), topologies.ring(6)
RNG = np.random.default_rng(0)


def test_clipping_takes_the_length_of_differences_down_to_tau(exchanged: Any):
    x = np.array([[0.0, 0.0], [6.0, 8.0]])
    two = topologies.complete(2)
    found = exchanged(algorithms.clipped_gossip(two, 0.0, 2.0), x)
    # Half of a difference of length 2 in the direction (0.6, 0.8).
    np.testing.assert_allclose(found, [[0.6, 0.8], [5.4, 7.2]], rtol=1e-6)


def test_clipping_at_infinity_is_gossip(exchanged: Any):
    x = RNG.normal(size=(N, 3))
    wanted = RING.weights @ x
    for tau in (math.inf, 1e6):
        found = exchanged(algorithms.clipped_gossip(RING, 0.0, tau), x)
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("epsilon", [1.0, 2.0])
def test_dissensus_undoes_what_honest_neighbours_do(epsilon: float, exchanged: Any):
    # The last of a ring of six: nodes 0 and 4 hear it.
    x = RNG.normal(size=(6, 3))
    attack = attacks.dissensus(1, epsilon)
    found = exchanged(algorithms.d_psgd(SIX, 0.0, attack=attack), x)
    pulled = [
        sum(SIX.weights[i, k] * (x[k] - x[i]) for k in range(5)) * (1 - epsilon * (i in (0, 4)))
        for i in range(5)
    ]
    np.testing.assert_allclose(found[:5], x[:5] + pulled, atol=1e-6)


def test_dissensus_stops_gradient_tracking_too(exchanged: Any):
    x = RNG.normal(size=(6, 3))
    algorithm = algorithms.gradient_tracking(SIX, 0.0, attack=attacks.dissensus(2))
    found = exchanged(algorithm, x)
    np.testing.assert_allclose(found[[0, 3]], x[[0, 3]], atol=1e-6)
    np.testing.assert_allclose(found[1], (SIX.weights @ x)[1], atol=1e-6)


@pytest.mark.slow
def test_dissensus_stops_gossip_but_not_clipped_gossip(exchanged: Any, spread_of: Any):
    complete, x = topologies.complete(6), RNG.normal(size=(6, 3))
    attack = attacks.dissensus(1)
    stopped = exchanged(algorithms.d_psgd(complete, 0.0, attack=attack), x, 20)[:5]
    assert spread_of(stopped) == pytest.approx(spread_of(x[:5]), rel=1e-4)
    for tau in (None, 0.5):
        clipped = algorithms.clipped_gossip(complete, 0.0, tau, attack=attack)
        assert spread_of(exchanged(clipped, x, 20)[:5]) < 0.2 * spread_of(x[:5])


@pytest.mark.slow
def test_nobody_who_attacks_changes_nothing(exchanged: Any):
    x = RNG.normal(size=(N, 3))
    for attack in (attacks.dissensus(0), medjax.attack(attacks.ipm(), 0)):
        found = exchanged(algorithms.clipped_gossip(RING, 0.0, None, attack=attack), x)
        np.testing.assert_allclose(found, RING.weights @ x, atol=1e-6)


@pytest.mark.slow
def test_thresholds_and_attacks_strengths_may_be_traced():
    x = jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)

    def moves(tau: Any, epsilon: Any) -> Any:
        attack = attacks.dissensus(1, epsilon)
        tx = algorithms.clipped_gossip(SIX, 0.0, tau, attack=attack).optimizer
        return tx.update(jnp.zeros_like(x), tx.init(x[0]), x)[0]

    settings = jnp.float32([0.5, jnp.inf]), jnp.float32([1.0, 2.0])
    each = jax.jit(lambda: jnp.stack([moves(0.5, 1.0), moves(math.inf, 2.0)]))()
    np.testing.assert_allclose(jax.jit(jax.vmap(moves))(*settings), each, atol=1e-6)


def test_the_theorys_threshold(exchanged: Any):
    x, attack = RNG.normal(size=(6, 3)), attacks.dissensus(2)
    w, h = topologies.star(6).weights, 4  # of the honest nodes, 0 alone hears the others
    clipped = algorithms.clipped_gossip(topologies.star(6), 0.0, None, attack=attack)
    found = exchanged(clipped, x)[:h]
    tau = np.sqrt(sum(w[0, k] * np.sum((x[k] - x[0]) ** 2) for k in range(h)) / w[0, h:].sum())
    clip = lambda z: z * min(1, tau / np.linalg.norm(z))  # noqa: E731
    lie = -sum(w[0, k] * (x[k] - x[0]) for k in range(h)) / w[0, h:].sum()
    moved = sum(w[0, k] * clip(x[k] - x[0]) for k in range(1, h)) + w[0, h:].sum() * clip(lie)
    np.testing.assert_allclose(found[0], x[0] + moved, atol=1e-5)
    np.testing.assert_allclose(found[1:], x[1:h] + w[0, 1] * (x[0] - x[1:h]), atol=1e-5)


@pytest.mark.slow
def test_attacks_of_one_message_for_all(exchanged: Any):
    x = RNG.normal(size=(N, 3))
    sent = np.vstack([x[:3], -2 * x[:3].mean(axis=0)])
    wanted = (RING.weights @ sent)[:3]
    stage = medjax.attack(attacks.ipm(2.0), 1)
    found = exchanged(algorithms.d_psgd(RING, 0.0, attack=stage), x)[:3]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    # The second is Byzantine: node 3 doesn't hear it.
    other = medjax.attack(attacks.nonfinite(), 1, byzantine=[1])
    found = exchanged(algorithms.clipped_gossip(RING, 0.0, None, attack=other), x)
    np.testing.assert_allclose(found[3], (RING.weights @ x)[3], atol=1e-6)
    np.testing.assert_allclose(found[0], x[0] + (x[3] - x[0]) / 3, atol=1e-6)
