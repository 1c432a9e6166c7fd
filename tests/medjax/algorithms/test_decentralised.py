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


def test_without_steps_the_distance_to_consensus_falls_with_the_second_eigenvalue(
    exchanged: Any, spread_of: Any
):
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


def test_choco_reaches_consensus_on_the_mean_with_one_coordinate_of_three(exchanged: Any):
    x = RNG.normal(size=(N, 3))
    top_1 = compressors.top_k(1)
    found = exchanged(algorithms.choco_sgd(RING, 0.0, top_1, consensus_step=0.3), x, 120)
    np.testing.assert_allclose(found, np.tile(x.mean(axis=0), (N, 1)), atol=1e-4)
    # Nodes that average what they compress forget what is left out.
    assert np.abs(found).min() > 1e-2


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


@pytest.mark.slow
def test_nodes_on_devices_give_the_same():
    # Three devices for four nodes.
    mesh = sharding.make_mesh(3)
    run, spread = short_run(DATA), short_run(sharding.place_workers(DATA, mesh), mesh)
    np.testing.assert_allclose(spread.params, run.params, rtol=1e-6)
    for name, wanted in run.metrics.items():
        np.testing.assert_allclose(spread.metrics[name], wanted, rtol=1e-5, err_msg=name)


def test_metrics_are_those_of_the_honest_nodes_mean(spread_of: Any):
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
        (
            lambda: algorithms.communication(algorithms.d_psgd(RING, 0.1), jnp.zeros(3), 3),
            *(ValueError, "the topology is built for 4 workers, there are 3"),
        ),
    ],
)
def test_mistakes(build: Any, error: Any, message: str):
    with pytest.raises(error, match=message):
        build()
