"""Algorithms on quadratics f_i(x) = a_i/2 (x - m_i)², where their fixed points are known."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import algorithms, compressors, mixing, rules

pytestmark = pytest.mark.slow

A, M = np.array([1.0, 2.0, 5.0, 0.3]), np.array([1.0, -2.0, 4.0, 10.0])
N = len(A)
OPTIMUM = (A @ M) / A.sum()
K, GAMMA = 5, 0.1
IDENTITY: Any = lambda vector: (vector, 32 * vector.size)  # noqa: E731


def quadratic(x: Any, batch: Any) -> Any:
    a, m = batch
    return a / 2 * (x - m) ** 2, {}


DATA = medjax.stack_workers((A.astype(np.float32), M.astype(np.float32)), np.arange(N)[:, None])


def end(algorithm: Any, num_steps: Any, start: float = 0.0, **settings: Any) -> jax.Array:
    """The parameters after some steps; without measuring, which takes longer to compile."""
    parts = medjax.simulation(quadratic, algorithm, **settings)
    return parts.advance(parts.init(jnp.float32(start), 0, N), DATA, num_steps).params


def ends(algorithm: Any, num_steps: int, start: float = 0.0, **settings: Any) -> float:
    return float(jax.jit(lambda steps: end(algorithm, steps, start, **settings))(num_steps))


def weighted(weights: np.ndarray) -> float:
    return float(weights @ M / weights.sum())


def test_fedavg_ends_where_each_worker_weighs_how_far_it_gets():
    # A step shrinks the distance to m_i by 1 - γ a_i: Σ_i (1 - (1 - γ a_i)^K) (x - m_i) = 0.
    wanted = weighted(1 - (1 - GAMMA * A) ** K)
    assert wanted == pytest.approx(1.98578, abs=1e-5)
    assert ends(algorithms.fedavg(K, GAMMA), 200) == pytest.approx(wanted, rel=1e-5)
    assert ends(algorithms.fedavg(K, local_optimizer=optax.sgd(GAMMA)), 200) == pytest.approx(
        wanted, rel=1e-5
    )
    assert ends(algorithms.fedavg(K, GAMMA, 0.5), 400) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("mu", [0.0, 1.0, 3.0])
def test_fedprox(mu: float):
    # From x towards the minimum of f_i + μ/2 ‖y - x‖², whose distance from x is a_i/(a_i + μ) of
    # that of m_i, with curvature a_i + μ.
    wanted = weighted(A / (A + mu) * (1 - (1 - GAMMA * (A + mu)) ** K))
    found = ends(algorithms.fedprox(K, GAMMA, mu=mu), 400)
    assert found == pytest.approx(wanted, rel=1e-5)
    if mu == 0:
        assert found == ends(algorithms.fedavg(K, GAMMA), 400)


@pytest.mark.parametrize(
    "algorithm",
    [
        algorithms.scaffold(K, GAMMA),
        algorithms.scaffold(K, GAMMA, option="I"),
        algorithms.feddyn(50, GAMMA, alpha=1.0),
        algorithms.mime(K, GAMMA),
        algorithms.mime(K, GAMMA, beta=0.5),
    ],
    ids=["scaffold II", "scaffold I", "feddyn", "mime", "mime momentum"],
)
def test_corrected_local_steps_end_at_the_optimum(algorithm: Any):
    assert ends(algorithm, 400) == pytest.approx(OPTIMUM, abs=1e-5)


def test_scaffold_of_cohorts_ends_at_the_optimum():
    found = ends(algorithms.scaffold(K, GAMMA), 2000, participants=2)
    assert found == pytest.approx(OPTIMUM, abs=1e-4)


WEIGHTED: Any = rules.mean([1, 1, 1, 7])


@pytest.mark.parametrize(
    ("algorithm", "participants"),
    [
        (algorithms.scaffold(K, 0.05, rule=WEIGHTED), 2),
        (algorithms.scaffold(K, 0.02, option="I", rule=WEIGHTED), 2),
        (algorithms.feddyn(K, 0.05, alpha=1.0, rule=WEIGHTED), 2),
        (algorithms.mime(K, 0.02, rule=WEIGHTED), None),
        (algorithms.ef21(0.02, IDENTITY, rule=WEIGHTED), 2),
        (algorithms.diana(0.02, IDENTITY, alpha=0.5, rule=WEIGHTED), 2),
    ],
    ids=["scaffold II", "scaffold I", "feddyn", "mime", "ef21", "diana"],
)
def test_weights_are_those_of_the_objective(algorithm: Any, participants: int | None):
    wanted = weighted(np.array([1, 1, 1, 7]) * A)
    found = ends(algorithm, 4000, participants=participants)
    assert found == pytest.approx(wanted, abs=1e-4)


def test_storm_of_full_batches_is_descent_also_with_cohorts():
    # v_i is the whole gradient, corrected from the point before or, after a pause, begun anew.
    storm, plain = (
        ends(algorithm, 10, participants=2)
        for algorithm in (algorithms.storm(0.05, 0.1), medjax.mean_sgd(0.05))
    )
    assert storm == pytest.approx(plain, rel=1e-5)


def test_a_liars_nan_stays_out_of_a_momentum_that_is_not_there():
    lie: Any = medjax.attack(medjax.attacks.nonfinite(), 1, 0)
    lite, plain = (
        ends(algorithm.preceded_by(lie), 3)
        for algorithm in (
            algorithms.mime_lite(K, GAMMA, rule=rules.median()),
            algorithms.fedavg(K, GAMMA, rule=rules.median()),
        )
    )
    assert lite == pytest.approx(plain, rel=1e-5)


def test_scaffolds_variates_average_to_the_servers():
    algorithm = algorithms.scaffold(K, GAMMA)
    parts = medjax.simulation(quadratic, algorithm)
    advance = jax.jit(parts.advance)
    state = parts.init(jnp.float32(0), 0, N)
    for _ in range(3):
        state = advance(state, DATA, 1)
        np.testing.assert_allclose(
            state.worker_state.mean(), algorithm.broadcast(state.opt_state), rtol=1e-5
        )


def test_mime_lite_without_momentum_is_fedavg():
    found = ends(algorithms.mime_lite(K, GAMMA), 7)
    assert found == pytest.approx(ends(algorithms.fedavg(K, GAMMA), 7), rel=1e-6)


def test_fednova_minimises_the_mean_where_fedavg_weighs_steps():
    steps, gamma = [1, 2, 4, 3], 1e-3
    found = ends(algorithms.fednova(steps, gamma), 5000)
    assert found == pytest.approx(OPTIMUM, rel=5e-3)
    # The mean of the moves themselves goes to Σ τ_i a_i m_i / Σ τ_i a_i.
    moves = algorithms.fednova(steps, gamma)
    scaled = moves.preceded_by(optax.stateless(lambda sent, params: sent * jnp.float32(steps)))
    assert ends(scaled, 5000) == pytest.approx(weighted(np.array(steps) * A), rel=5e-3)
    assert ends(algorithms.fednova(K, GAMMA), 9) == pytest.approx(
        ends(algorithms.fedavg(K, GAMMA), 9), rel=1e-5
    )
    # τ̄ has the weights of the objective: 0.1 · 1 + 0.9 · 9 = 8.2 (Wang et al., 2020). From 0, with
    # a tiny γ, each worker's average direction is its gradient there, -a_i m_i.
    unequal = algorithms.fednova([1, 9, 9, 9], 1e-5, rule=rules.mean([1, 9, 0, 0]))
    wanted = 1e-5 * 8.2 * (0.1 * A[0] * M[0] + 0.9 * A[1] * M[1])
    assert ends(unequal, 1) == pytest.approx(wanted, rel=1e-3)
    # Numbers of steps aren't sent, so that nobody can lie about them.
    lie: Any = medjax.attack(medjax.attacks.ipm(10.0), 1, 0)
    fednova, fedavg = (
        ends(make(K, GAMMA, rule=rules.median()).preceded_by(lie), 3)
        for make in (algorithms.fednova, algorithms.fedavg)
    )
    assert fednova == pytest.approx(fedavg, rel=1e-5)


def test_diloco_of_plain_steps_is_sgd():
    algorithm = algorithms.diloco(1, optax.sgd(GAMMA), 1.0, momentum=0.0)
    assert ends(algorithm, 6) == pytest.approx(ends(medjax.mean_sgd(GAMMA), 6), rel=1e-6)


def test_a_single_worker_with_adam_is_adam():
    algorithm = algorithms.diloco(1, optax.adam(0.1), 1.0, momentum=0.0, rule=lambda x: x[0])
    x, adam = jnp.float32(3.0), optax.adam(0.1)
    state = adam.init(x)
    for _ in range(6):
        with jax.numpy_dtype_promotion("standard"):  # as optax's own code has it
            updates, state = adam.update(A[0] * (x - M[0]), state, x)
        x = optax.apply_updates(x, updates)
    assert ends(algorithm, 6, start=3.0) == pytest.approx(float(x), rel=1e-5)


BUCKETED = mixing.premixed(rules.mean(), mixing.bucketing(2))  # which draws, to the same mean


@pytest.mark.parametrize(
    "algorithm",
    [
        algorithms.ef21(GAMMA, IDENTITY),
        algorithms.diana(GAMMA, IDENTITY, alpha=0.5),
        algorithms.dasha(GAMMA, IDENTITY, momentum=1.0),
        algorithms.marina(GAMMA, 1.0, compressors.qsgd(1), 0),
        algorithms.marina(GAMMA, 0.3, IDENTITY, 0),
        algorithms.byz_vr_marina(GAMMA, 0.3, IDENTITY, 0, rule=rules.mean()),
        algorithms.byz_vr_marina(GAMMA, 0.3, IDENTITY, 0, rule=BUCKETED),
        algorithms.ef21(GAMMA, IDENTITY, rule=BUCKETED, key=0),
        algorithms.storm(GAMMA, 1.0),
        algorithms.storm(GAMMA, 0.3),
        algorithms.delayed_sgd(GAMMA, 0),
    ],
    ids=[
        *("ef21", "diana", "dasha", "marina whole", "marina", "byz_vr_marina"),
        *("byz_vr_marina of buckets", "ef21 of buckets", "storm whole", "storm", "delays of 0"),
    ],
)
def test_without_compression_or_noise_it_is_gradient_descent(algorithm: Any):
    assert ends(algorithm, 9) == pytest.approx(ends(medjax.mean_sgd(GAMMA), 9), rel=1e-5)


@pytest.mark.parametrize(
    "algorithm",
    [
        algorithms.diana(0.05, compressors.qsgd(1), alpha=0.5, key=0),
        algorithms.marina(0.05, 0.3, compressors.qsgd(1), 0),
        algorithms.dasha(0.05, compressors.qsgd(1), momentum=0.5, key=0),
    ],
    ids=["diana", "marina", "dasha"],
)
def test_compressed_differences_vanish_at_the_optimum(algorithm: Any):
    assert ends(algorithm, 1500) == pytest.approx(OPTIMUM, abs=1e-4)


def test_z_sign_is_unbiased_within_sigma_for_uniform_noise():
    # E[σ sign(v + σ ξ)] = v while |v| ≤ σ: on average a step is one of FedAvg.
    sent = [
        ends(algorithms.z_sign_fedavg(1, GAMMA, sigma=100.0, z=math.inf, key=k), 1)
        for k in range(3)
    ]
    assert {round(abs(x), 4) for x in sent} <= {0.0, 5.0, 10.0}  # means of four signs
    many = jax.jit(
        jax.vmap(
            lambda key: (
                medjax.simulate(
                    quadratic,
                    jnp.float32(0),
                    medjax.stack_workers((A, M), np.arange(N)[:, None]),
                    algorithms.z_sign_fedavg(1, GAMMA, sigma=30.0, z=math.inf, key=key),
                    num_steps=1,
                    key=0,
                ).params
            )
        )
    )(jax.random.split(jax.random.key(1), 20_000))
    wanted = GAMMA * (A @ M) / N
    error = GAMMA * 30 / math.sqrt(N * 20_000)
    assert float(many.mean()) == pytest.approx(wanted, abs=4 * error)


@pytest.mark.parametrize("tau", [1, 3])
@pytest.mark.parametrize(("share", "stable"), [(0.99, True), (1.01, False)])
def test_delayed_sgd_is_stable_up_to_the_known_step_size(tau: int, share: float, stable: bool):
    curvature = A.mean()
    bound = 2 * math.sin(math.pi / (2 * (2 * tau + 1))) / curvature
    far = abs(ends(algorithms.delayed_sgd(share * bound, tau), 2000) - OPTIMUM)
    assert (far < 1) == stable


def test_fedbuff_without_delays_is_fedavg():
    algorithm = algorithms.fedbuff(K, GAMMA, delays=0, drawn=False)
    assert ends(algorithm, 8) == pytest.approx(ends(algorithms.fedavg(K, GAMMA), 8), rel=1e-6)


def test_old_updates_weigh_less():
    # At the start all models are the first one: a worker's move is that of FedAvg, over √(1 + τ).
    delays = [0, 1, 3, 8]
    moves = -(1 - (1 - GAMMA * A) ** K) * (0 - M)
    wanted = (moves / np.sqrt(1 + np.array(delays))).mean()
    algorithm = algorithms.fedbuff(K, GAMMA, delays=delays, drawn=False)
    assert ends(algorithm, 1) == pytest.approx(wanted, rel=1e-5)


def test_dp_fedavg_clips_moves_and_adds_noise_to_their_sum():
    moves = (1 - (1 - GAMMA * A) ** K) * M
    clip = 1.5
    plain = algorithms.dp_fedavg(K, GAMMA, clip=clip, noise_multiplier=0.0, key=0)
    wanted = np.clip(moves, -clip, clip).mean()
    assert ends(plain, 1) == pytest.approx(wanted, rel=1e-5)

    def one(key: Any) -> Any:
        return end(algorithms.dp_fedavg(K, GAMMA, clip=clip, noise_multiplier=2.0, key=key), 1)

    # What isn't finite can't be clipped: such a worker is as one who doesn't move.
    lost = np.where(np.arange(N) == 2, np.nan, M).astype(np.float32)
    data = medjax.stack_workers((A.astype(np.float32), lost), np.arange(N)[:, None])
    parts = medjax.simulation(quadratic, plain)
    found = parts.advance(parts.init(jnp.float32(0), 0, N), data, 1).params
    present = np.arange(N) != 2
    assert float(found) == pytest.approx(np.clip(moves, -clip, clip)[present].sum() / N, rel=1e-5)

    found = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 4000))
    assert float(found.mean()) == pytest.approx(wanted, abs=4 * 2 * clip / N / math.sqrt(4000))
    assert float(found.std()) == pytest.approx(2 * clip / N, rel=0.05)
