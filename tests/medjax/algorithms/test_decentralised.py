"""Decentralised algorithms, on quadratics f_i(x) = a_i/2 (x - m_i)² and on vectors alone."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import medjax
from medjax import algorithms, attacks, compressors, sharding, topologies

A, M = np.array([1.0, 2.0, 5.0, 0.3]), np.array([1.0, -2.0, 4.0, 10.0])
N, GAMMA = len(A), 0.1
OPTIMUM = (A @ M) / A.sum()
COMPLETE, RING = topologies.complete(N), topologies.ring(N)
DATA = medjax.stack_workers((A.astype(np.float32), M.astype(np.float32)), np.arange(N)[:, None])
RNG = np.random.default_rng(0)
IDENTITY: Any = lambda vector: (vector, 32 * vector.size)  # noqa: E731


def quadratic(x: Any, batch: Any) -> Any:
    a, m = batch
    return a / 2 * (x - m) ** 2, {}


def ends(algorithm: Any, num_steps: int) -> np.ndarray:
    """The nodes' models after some steps from 0."""
    parts = medjax.simulation(quadratic, algorithm)
    state = parts.init(jnp.float32(0), 0, N)
    return np.asarray(jax.jit(parts.advance)(state, DATA, num_steps).params)


def exchanged(algorithm: Any, x: Any, num_steps: int = 1) -> np.ndarray:
    """The nodes' vectors after some exchanges alone, of gradients 0."""
    x = jnp.asarray(x, jnp.float32)

    def step(_: Any, carry: Any) -> Any:
        x, state = carry
        moves, state = algorithm.optimizer.update(jnp.zeros_like(x), state, x)
        return x + moves, state

    start = x, algorithm.optimizer.init(x[0])
    if num_steps == 1:  # nothing to compile
        return np.asarray(step(0, start)[0])
    return np.asarray(jax.jit(lambda start: jax.lax.fori_loop(0, num_steps, step, start)[0])(start))


def spread_of(x: np.ndarray) -> float:
    return float(np.sqrt(np.sum((x - x.mean(axis=0)) ** 2) / len(x)))


def test_adapt_then_combine_with_all_is_sgd_at_every_node():
    x = 0.0
    for _ in range(5):
        x -= GAMMA * np.mean(A * (x - M))
    found = ends(algorithms.d_psgd(COMPLETE, GAMMA, adapt_first=True), 5)
    np.testing.assert_allclose(found, np.full(N, x), rtol=1e-5)


def test_combine_then_adapt_with_all_ends_where_curvatures_count_less():
    # x_i = x̄ - γ a_i (x_i - m_i) means x_i - x̄ = -γ u_i (x̄ - m_i), the sum of which is 0.
    u = A / (1 + GAMMA * A)
    wanted = u @ M / u.sum()
    assert abs(wanted - OPTIMUM) > 0.1
    found = ends(algorithms.d_psgd(COMPLETE, GAMMA), 300)
    assert found.mean() == pytest.approx(wanted, rel=1e-5)


def test_a_ring_ends_at_the_fixed_point_a_distance_of_order_gamma_away():
    # x = W x - γ A (x - m).
    w, biases = RING.weights, []
    for gamma, steps in ((0.02, 1000), (0.01, 2000)):
        wanted = np.linalg.solve(np.eye(N) - w + gamma * np.diag(A), gamma * A * M)
        found = ends(algorithms.d_psgd(RING, gamma), steps)
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
        biases.append(found.mean() - OPTIMUM)
    assert biases[0] / biases[1] == pytest.approx(2, rel=0.1)
    # x = W (x - γ A (x - m)).
    wanted = np.linalg.solve(np.eye(N) - w + 0.02 * w * A, 0.02 * w @ (A * M))
    found = ends(algorithms.d_psgd(RING, 0.02, adapt_first=True), 1000)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_without_steps_the_distance_to_consensus_falls_with_the_second_eigenvalue():
    n, second = 8, 1 / 3 + 2 / 3 * math.cos(2 * math.pi / 8)
    ring = topologies.ring(n)
    assert ring.spectral_gap == pytest.approx(1 - second)
    x = 3 + np.cos(2 * np.pi * np.arange(n) / n)  # an eigenvector beside the mean
    found = exchanged(algorithms.d_psgd(ring, 0.0), x, 10)
    np.testing.assert_allclose(found - 3, second**10 * (x - 3), atol=1e-6)
    # No vector falls more slowly.
    y = RNG.normal(size=(n, 3))
    found = exchanged(algorithms.d_psgd(ring, 0.0), y, 10)
    assert spread_of(found) <= second**10 * spread_of(y) * (1 + 1e-4)
    np.testing.assert_allclose(found.mean(axis=0), y.mean(axis=0), atol=1e-6)


def test_gradient_tracking_ends_at_the_optimum():
    found = ends(algorithms.gradient_tracking(RING, 0.05), 1000)
    np.testing.assert_allclose(found, np.full(N, OPTIMUM), rtol=1e-5)


def test_gradient_trackings_first_steps():
    w, x, t, last = RING.weights, np.zeros(N), np.zeros(N), np.zeros(N)
    for _ in range(4):
        g = A * (x - M)
        t, last = w @ t + g - last, g
        np.testing.assert_allclose(t.mean(), g.mean())
        x = w @ x - GAMMA * t
    np.testing.assert_allclose(ends(algorithms.gradient_tracking(RING, GAMMA), 4), x, rtol=1e-5)


def test_choco_without_compression_is_adapt_then_combine():
    found = ends(algorithms.choco_sgd(RING, GAMMA, IDENTITY, consensus_step=1.0), 7)
    wanted = ends(algorithms.d_psgd(RING, GAMMA, adapt_first=True), 7)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_choco_reaches_consensus_on_the_mean_with_one_coordinate_of_three():
    x = RNG.normal(size=(N, 3))
    top_1 = compressors.top_k(1)
    found = exchanged(algorithms.choco_sgd(RING, 0.0, top_1, consensus_step=0.3), x, 120)
    np.testing.assert_allclose(found, np.tile(x.mean(axis=0), (N, 1)), atol=1e-4)
    # Nodes that average what they compress forget what is left out.
    assert np.abs(found).min() > 1e-2


def test_clipping_takes_the_length_of_differences_down_to_tau():
    x = np.array([[0.0, 0.0], [6.0, 8.0]])
    two = topologies.complete(2)
    found = exchanged(algorithms.clipped_gossip(two, 0.0, 2.0), x)
    # Half of a difference of length 2 in the direction (0.6, 0.8).
    np.testing.assert_allclose(found, [[0.6, 0.8], [5.4, 7.2]], rtol=1e-6)


def test_clipping_at_infinity_is_gossip():
    x = RNG.normal(size=(N, 3))
    wanted = RING.weights @ x
    for tau in (math.inf, 1e6, jnp.float32(jnp.inf)):
        found = exchanged(algorithms.clipped_gossip(RING, 0.0, tau), x)
        np.testing.assert_allclose(found, wanted, atol=1e-6)


SIX = topologies.ring(6)


@pytest.mark.parametrize("epsilon", [1.0, 2.0])
def test_dissensus_undoes_what_honest_neighbours_do(epsilon: float):
    # The last of a ring of six: nodes 0 and 4 hear it.
    x = RNG.normal(size=(6, 3))
    attack = attacks.dissensus(1, epsilon)
    found = exchanged(algorithms.d_psgd(SIX, 0.0, attack=attack), x)
    pulled = [
        sum(SIX.weights[i, k] * (x[k] - x[i]) for k in range(5)) * (1 - epsilon * (i in (0, 4)))
        for i in range(5)
    ]
    np.testing.assert_allclose(found[:5], x[:5] + pulled, atol=1e-6)


def test_dissensus_stops_gradient_tracking_too():
    x = RNG.normal(size=(6, 3))
    algorithm = algorithms.gradient_tracking(SIX, 0.0, attack=attacks.dissensus(2))
    found = exchanged(algorithm, x)
    np.testing.assert_allclose(found[[0, 3]], x[[0, 3]], atol=1e-6)
    np.testing.assert_allclose(found[1], (SIX.weights @ x)[1], atol=1e-6)


def test_dissensus_stops_gossip_but_not_clipped_gossip():
    complete, x = topologies.complete(6), RNG.normal(size=(6, 3))
    attack = attacks.dissensus(1)
    stopped = exchanged(algorithms.d_psgd(complete, 0.0, attack=attack), x, 20)[:5]
    assert spread_of(stopped) == pytest.approx(spread_of(x[:5]), rel=1e-4)
    for tau in (None, 0.5):
        clipped = algorithms.clipped_gossip(complete, 0.0, tau, attack=attack)
        assert spread_of(exchanged(clipped, x, 20)[:5]) < 0.2 * spread_of(x[:5])


def test_nobody_who_attacks_changes_nothing():
    x = RNG.normal(size=(N, 3))
    for attack in (attacks.dissensus(0), medjax.attack(attacks.ipm(), 0)):
        found = exchanged(algorithms.clipped_gossip(RING, 0.0, None, attack=attack), x)
        np.testing.assert_allclose(found, RING.weights @ x, atol=1e-6)


def test_thresholds_and_attacks_strengths_may_be_traced():
    x = jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)

    def moves(tau: Any, epsilon: Any) -> Any:
        attack = attacks.dissensus(1, epsilon)
        tx = algorithms.clipped_gossip(SIX, 0.0, tau, attack=attack).optimizer
        return tx.update(jnp.zeros_like(x), tx.init(x[0]), x)[0]

    settings = jnp.float32([0.5, jnp.inf]), jnp.float32([1.0, 2.0])
    each = [moves(0.5, 1.0), moves(math.inf, 2.0)]
    np.testing.assert_allclose(jax.vmap(moves)(*settings), jnp.stack(each), atol=1e-6)


def test_the_theorys_threshold():
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


def test_attacks_of_one_message_for_all():
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


def test_nodes_that_never_talk_are_alone():
    alone = topologies.from_matrix(np.eye(N))
    found = ends(algorithms.d_psgd(alone, GAMMA), 3)
    np.testing.assert_allclose(found, M * (1 - (1 - GAMMA * A) ** 3), rtol=1e-5)


def test_momentum_comes_before_the_step():
    momentum = medjax.worker_momentum(0.5, N)
    algorithm = algorithms.d_psgd(RING, GAMMA).preceded_by(momentum)
    m, x = np.zeros(N), np.zeros(N)
    for _ in range(4):
        m = 0.5 * m + 0.5 * A * (x - M)
        x = RING.weights @ x - GAMMA * m
    np.testing.assert_allclose(ends(algorithm, 4), x, rtol=1e-5)


def short_run(data: Any, mesh: Any = None) -> Any:
    """Three steps under an attack, with metrics."""
    test = (jnp.float32([2.0]), jnp.float32([1.0]))
    algorithm = algorithms.d_psgd(RING, GAMMA, attack=attacks.dissensus(1))
    settings: Any = {"num_steps": 3, "key": 0, "test_data": test, "mesh": mesh}
    run = jax.jit(lambda x: medjax.simulate(quadratic, jnp.float32(0), x, algorithm, **settings))
    return run(data)


def test_nodes_on_devices_give_the_same():
    # Three devices for four nodes.
    mesh = sharding.make_mesh(3)
    run, spread = short_run(DATA), short_run(sharding.place_workers(DATA, mesh), mesh)
    np.testing.assert_allclose(spread.params, run.params, rtol=1e-6)
    for name, wanted in run.metrics.items():
        np.testing.assert_allclose(spread.metrics[name], wanted, rtol=1e-5, err_msg=name)


def test_metrics_are_those_of_the_honest_nodes_mean():
    run = short_run(DATA)
    assert run.params.shape == (N,)
    x, metrics = np.asarray(run.params)[:3], {k: v[-1] for k, v in run.metrics.items()}
    a, m, mean = A[:3], M[:3], x.mean()
    assert metrics["train_loss"] == pytest.approx(np.mean(a / 2 * (mean - m) ** 2), rel=1e-5)
    assert metrics["grad_norm"] == pytest.approx(abs(np.mean(a * (mean - m))), rel=1e-4)
    assert metrics["test_loss"] == pytest.approx((mean - 1) ** 2, rel=1e-5)
    assert metrics["consensus_distance"] == pytest.approx(spread_of(x), rel=1e-5)
    assert run.metrics["consensus_distance"][0] == 0


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            lambda: medjax.simulation(quadratic, algorithms.d_psgd(RING, 0.1), participants=2),
            *(ValueError, "got 2: the algorithm is decentralised, and all its 4 nodes take part"),
        ),
        (
            lambda: medjax.simulation(quadratic, algorithms.d_psgd(RING, 0.1), streaming="require"),
            *(ValueError, r"streaming isn't possible: .* has a model of every worker$"),
        ),
        (
            lambda: ends(algorithms.d_psgd(topologies.ring(8), 0.1), 1),
            *(ValueError, "the topology is built for 8 workers, there are 4"),
        ),
        (lambda: algorithms.d_psgd(np.eye(4), 0.1), TypeError, "topology must be one"),  # pyright: ignore
        (
            lambda: algorithms.d_psgd(RING, 0.1, attack=attacks.alie()),  # pyright: ignore
            *(TypeError, r"attack must be attacks.dissensus\(f\) or a stage"),
        ),
        (
            lambda: algorithms.d_psgd(RING, 0.1, attack=attacks.dissensus(4)),
            *(ValueError, "f < n, got f = 4 and n = 4 nodes"),
        ),
        (lambda: algorithms.d_psgd(RING, -0.1), ValueError, "lr must be .* at least 0, got -0.1"),
        (lambda: algorithms.clipped_gossip(RING, 0.1, 0.0), ValueError, "above 0, got 0"),
        (lambda: algorithms.clipped_gossip(RING, 0.1, None), ValueError, "who is Byzantine"),
        (lambda: attacks.dissensus(1, -1.0), ValueError, "epsilon must be .* at least 0, got -1"),
        (
            lambda: algorithms.choco_sgd(RING, 0.1, compressors.qsgd(2), consensus_step=0.5),
            *(ValueError, "draws random numbers: give choco_sgd a key"),
        ),
        (
            lambda: algorithms.choco_sgd(RING, 0.1, IDENTITY, consensus_step=1.5),
            *(ValueError, "consensus_step must be at most 1, got 1.5"),
        ),
    ],
)
def test_mistakes(build: Any, error: Any, message: str):
    with pytest.raises(error, match=message):
        build()
