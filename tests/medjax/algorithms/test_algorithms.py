"""Laws that all algorithms obey, and those of signs and of compressed differences."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import algorithms, attacks, compressors, rules, sharding, topologies

N, K = 6, 3
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(24, 3)).astype(np.float32)
TARGETS = RNG.normal(size=24).astype(np.float32)
DATA = medjax.stack_workers((INPUTS, TARGETS), np.array_split(np.arange(24), [2, 7, 11, 12, 20]))
START = {"w": jnp.array([0.5, -1.0, 0.2]), "c": jnp.float32(0.3)}


def least_squares(params: Any, batch: Any) -> Any:
    x, y = batch
    w, c = jax.tree.map(lambda p: p.astype(x.dtype), (params["w"], params["c"]))
    return (x @ w + c - y) ** 2 / 2, {}


def make(name: str, lr: Any = 0.05) -> Any:
    """An algorithm with usual settings, whose step size may be traced."""
    qsgd, ring, attack = compressors.qsgd(2), topologies.ring(N), attacks.dissensus(1)
    return {
        "fedavg": lambda: algorithms.fedavg(K, lr),
        "fedprox": lambda: algorithms.fedprox(K, lr, mu=0.5),
        "scaffold": lambda: algorithms.scaffold(K, lr),
        "feddyn": lambda: algorithms.feddyn(K, lr, alpha=0.5),
        "fednova": lambda: algorithms.fednova([1, 2, 3, 1, 2, 3], lr),
        "mime": lambda: algorithms.mime(K, lr, beta=0.5),
        "mime_lite": lambda: algorithms.mime_lite(K, lr, beta=0.5),
        "diloco": lambda: algorithms.diloco(K, optax.adam(lr)),
        "distributed_lion": lambda: algorithms.distributed_lion(lr, weight_decay=0.1),
        "signum": lambda: algorithms.signum(lr),
        "z_sign_fedavg": lambda: algorithms.z_sign_fedavg(K, lr, sigma=1.0, key=3),
        "sign_fv": lambda: algorithms.sign_fv(lr, N),
        "ef21": lambda: algorithms.ef21(lr, compressors.top_k(2)),
        "diana": lambda: algorithms.diana(lr, qsgd, alpha=0.3, key=3),
        "marina": lambda: algorithms.marina(lr, 0.3, qsgd, 3),
        "byz_vr_marina": lambda: algorithms.byz_vr_marina(lr, 0.3, qsgd, 3, rule=rules.median()),
        "dasha": lambda: algorithms.dasha(lr, qsgd, momentum=0.3, key=3),
        "storm": lambda: algorithms.storm(lr, 0.3, rule=rules.majority_vote()),
        "delayed_sgd": lambda: algorithms.delayed_sgd(lr, [0, 1, 2, 3, 0, 1]),
        "fedbuff": lambda: algorithms.fedbuff(K, lr, delays=3, key=3),
        "dp_fedavg": lambda: algorithms.dp_fedavg(K, lr, clip=0.1, noise_multiplier=1.0, key=3),
        "d_psgd": lambda: algorithms.d_psgd(ring, lr),
        "gradient_tracking": lambda: algorithms.gradient_tracking(ring, lr),
        "choco_sgd": lambda: algorithms.choco_sgd(ring, lr, qsgd, consensus_step=0.3, key=3),
        "clipped_gossip": lambda: algorithms.clipped_gossip(ring, lr, None, attack=attack),
    }[name]()


NAMES = tuple(algorithms.ALGORITHMS)


def run(algorithm: Any, data: Any = DATA, **settings: Any) -> Any:
    """The parameters after some steps; without measuring, which takes longer to compile."""
    parts = medjax.simulation(least_squares, algorithm, **settings)
    return jax.jit(lambda data: parts.advance(parts.init(START, 1, data.num_workers), data, 4))(
        data
    ).params


def assert_close(found: Any, wanted: Any, atol: float = 1e-6) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), found, wanted)


# What draws examples and workers takes longest to compile, and is the same for all but in which
# gradients have the same examples.
DRAWING = ("scaffold", "byz_vr_marina", "d_psgd")
BATCHES: dict[str, Any] = {"batch_size": 2}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_grids_runs_that_go_on_and_devices_give_the_same(name: str):
    settings: dict[str, Any] = BATCHES if name in DRAWING else {}
    if name in DRAWING and name != "d_psgd":  # of whose nodes all take part
        settings = BATCHES | {"participants": 5}

    def after(lr: Any, cuts: Any, mesh: Any = None) -> Any:
        parts = medjax.simulation(least_squares, make(name, lr), mesh=mesh, **settings)
        state = parts.init(START, 1, N)
        go_on = lambda i, state: parts.advance(state, DATA, cuts[i])  # noqa: E731
        return jax.lax.fori_loop(0, 2, go_on, state).params

    # Without measuring, which takes longer to compile.
    grid = jax.jit(jax.vmap(after, (0, None)))
    rates = np.array([0.02, 0.05], np.float32)
    whole, halves = (grid(rates, np.array(cuts)) for cuts in ((4, 0), (3, 1)))
    jax.tree.map(np.testing.assert_array_equal, halves, whole)
    moved = jax.tree.map(lambda x, y: np.abs(np.asarray(x) - np.asarray(y)).max(), whole, START)
    assert max(jax.tree.leaves(moved)) > 1e-3
    spread = jax.jit(lambda cuts: after(0.05, cuts, sharding.make_mesh(4)))(np.array([4, 0]))
    assert_close(jax.tree.map(lambda x: x[1], whole), spread, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scaffold", "diloco", "ef21"])
def test_a_workers_state_stays_while_it_is_away(name: str):
    parts = medjax.simulation(least_squares, make(name), participants=2)
    before = jax.jit(parts.init, static_argnums=2)(START, 1, N)
    after = jax.jit(parts.advance)(before, DATA, 1)
    changed = [
        np.abs(np.asarray(x - y, float).reshape(N, -1)).max(axis=1) > 0
        for x, y in zip(
            jax.tree.leaves(after.worker_state), jax.tree.leaves(before.worker_state), strict=True
        )
    ]
    assert np.any(changed, axis=0).sum() == 2


@pytest.mark.slow
def test_one_worker_with_lion_is_lion():
    data = medjax.stack_workers((INPUTS, TARGETS), [np.arange(24)])
    lion: Any = {"learning_rate": 0.01, "b1": 0.8, "b2": 0.9, "weight_decay": 0.2}
    theirs = run(optax.chain(medjax.aggregate(rules.mean()), optax.lion(**lion)), data)
    for average in (False, True):
        ours = algorithms.distributed_lion(
            0.01, beta1=0.8, beta2=0.9, weight_decay=0.2, average=average
        )
        assert_close(run(ours, data), theirs)


@pytest.mark.slow
def test_signum_is_a_vote_of_momenta():
    chain = optax.chain(medjax.worker_momentum(0.9, N), medjax.sign_sgd(0.01))
    assert_close(run(algorithms.signum(0.01)), run(chain))


def test_learned_weights_turn_a_liar_round():
    tx = algorithms.sign_fv(1.0, 4).optimizer
    state, update = tx.init(jnp.zeros(50)), jax.jit(tx.update)
    truth = RNG.choice(np.array([-1, 1], np.float32), 50)
    lies = np.stack([truth, truth, truth, -truth])
    for _ in range(3):
        decided, state = update(lies, state)
        np.testing.assert_array_equal(decided, -truth)
    (errors, steps), *_ = state
    np.testing.assert_allclose(np.asarray(errors) / np.asarray(steps), [0, 0, 0, 1])
    unsure, _ = update(np.stack([truth, truth, truth * np.nan, truth]), state)
    np.testing.assert_array_equal(unsure, -truth)
    # With ε = 0.01 each of the two weighs ln 99 or its negative: two against two are one voice.
    decided, _ = update(np.stack([truth, truth, -truth, -truth]), state)
    np.testing.assert_array_equal(decided, -truth)


@pytest.mark.slow
def test_ef21_converges_where_naive_compression_drifts_away():
    # Three workers, f_i = ⟨a_i, x⟩² + ‖x‖²/2: the largest coordinate of each gradient alone leads
    # away from 0 (Beznosikov et al., 2020).
    a = np.array([[-3, 2, 2], [2, -3, 2], [2, 2, -3]], np.float32)
    data = medjax.stack_workers(a, np.arange(3)[:, None])

    def objective(x: Any, batch: Any) -> Any:
        return (batch @ x) ** 2 + x @ x / 2, {}

    def far(algorithm: Any, num_steps: int) -> float:
        found = jax.jit(
            lambda data: (
                medjax.simulate(
                    objective, jnp.ones(3), data, algorithm, num_steps=num_steps, key=0
                ).params
            )
        )(data)
        return float(jnp.linalg.norm(found))

    top_1 = compressors.top_k(1)
    naive = optax.chain(medjax.compress(top_1), medjax.mean_sgd(0.02))
    assert far(naive, 300) > 2 * math.sqrt(3)
    assert far(algorithms.ef21(0.02, top_1), 1500) < 1e-6


def test_compressed_differences_need_a_key_only_where_they_draw():
    with pytest.raises(ValueError, match=r"draws random numbers: give ef21 a key$"):
        algorithms.ef21(0.1, compressors.qsgd(2))


@pytest.mark.slow
def test_an_attack_forges_any_entry_of_a_message():
    # The last worker sends ten times the others' mean, reversed, in both entries: with 5 honest
    # ones the mean of all is (5 - 10)/6 of theirs.
    plain, forged = (algorithms.scaffold(1, 0.1, option="I") for _ in range(2))
    forged = forged.preceded_by(medjax.attack(attacks.ipm(10.0), 1, 0))
    honest = medjax.stack_workers(
        (INPUTS, TARGETS), np.array_split(np.arange(24), [2, 7, 11, 12, 20])[:5]
    )
    found = []
    for algorithm, data in ((plain, honest), (forged, DATA)):
        parts = medjax.simulation(least_squares, algorithm)
        state = jax.jit(parts.init, static_argnums=2)(START, 0, data.num_workers)
        state = jax.jit(parts.advance)(state, data, 1)
        moves = jax.tree.map(lambda x, y: np.asarray(x) - np.asarray(y), state.params, START)
        found.append((moves, algorithm.broadcast(state.opt_state)))
    factor = (5 - 10) / 6
    assert_close(found[1], jax.tree.map(lambda x: factor * x, found[0]), atol=1e-5)


@pytest.mark.slow
def test_robust_rules_take_the_place_of_the_mean():
    median = algorithms.fedavg(1, 0.1, rule=rules.median())
    assert_close(run(median), run(medjax.median_sgd(0.1)))


@pytest.mark.parametrize(
    "algorithm",
    [algorithms.fednova([1, 2], 0.1), algorithms.delayed_sgd(0.1, [0, 1])],
    ids=["fednova", "delayed_sgd"],
)
def test_there_is_one_number_for_each_worker_or_for_all(algorithm: Any):
    with pytest.raises(ValueError, match="has 2 values for 6 workers; valid: one for each"):
        run(algorithm)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "calls"), [("scaffold", 6), ("mime", 6), ("ef21", 2)])
def test_models_states_change_once_with_each_batch(name: str, calls: int):
    def counted(params: Any, state: Any, batch: Any, key: Any) -> Any:
        return *least_squares(params, batch), state + 1

    objective = medjax.objectives.Stateful(counted, jnp.float32(0))
    parts = medjax.simulation(objective, make(name))
    state = jax.jit(lambda: parts.advance(parts.init(START, 1, N), DATA, 2))()
    np.testing.assert_array_equal(state.model_state, [calls] * N)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_stays(name: str):
    start = jax.tree.map(lambda x: x.astype(jnp.bfloat16), START)
    parts = medjax.simulation(least_squares, make(name), batch_size=2)
    after = jax.eval_shape(lambda: parts.advance(parts.init(start, 1, N), DATA, 2))
    assert {x.dtype for x in jax.tree.leaves(after.params)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.slow
def test_stateful_algorithms_are_not_streamed():
    with pytest.raises(ValueError, match=r"the algorithm has a state of every worker$"):
        run(make("scaffold"), streaming="require")
    streamed = run(make("fedprox"), streaming="require", worker_chunk=2)
    assert_close(streamed, run(make("fedprox"), streaming="off"))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: algorithms.fedavg(0, 0.1), "local_steps must be at least 1, got 0"),
        (lambda: algorithms.fedavg(2), "takes local_lr or local_optimizer, and not both"),
        (lambda: algorithms.fedprox(2, 0.1, mu=-1.0), "mu must be a finite number at least 0"),
        (lambda: algorithms.scaffold(2, 0.1, option="III"), "option must be one of I, II"),
        (lambda: algorithms.sign_fv(0.1, 3, epsilon=0.5), "epsilon must be below 0.5"),
        (
            lambda: algorithms.z_sign_fedavg(2, 0.1, sigma=1.0, z=2, key=0),
            "z must be 1 or math.inf",
        ),
        (
            lambda: algorithms.marina(0.1, 1.5, compressors.sign(), 0),
            "probability must be at most 1, got 1.5",
        ),
        (lambda: algorithms.fedavg(2, 0.1, -1.0), "server_lr must be a finite number at least 0"),
        (lambda: algorithms.storm(-1.0, 0.5), "the step size must be a finite number at least 0"),
        (lambda: algorithms.distributed_lion(-1.0), "lr must be a finite number at least 0"),
        (
            lambda: algorithms.diloco(2, optax.sgd(0.1), -1.0),
            "server_lr must be a finite number at least 0",
        ),
        (lambda: algorithms.delayed_sgd(0.1, -1), "delays must be at least 0, got -1"),
        (lambda: algorithms.delayed_sgd(0.1, np.array([])), "delays needs a number for each"),
        (lambda: algorithms.storm(0.1, 3.0), "momentum must be at most 1, got 3"),
        (lambda: run(algorithms.sign_fv(0.1, 3)), "sign_fv is built for 3 workers, there are 6"),
        (lambda: algorithms.fedbuff(2, 0.1, delays=1), "delays are drawn: give fedbuff a key"),
        (lambda: run(make("fedavg"), local_steps=2, local_lr=0.1), "the algorithm has its own"),
    ],
)
def test_mistakes(build: Any, message: str):
    with pytest.raises(ValueError, match=message):
        build()


def test_wrong_types():
    with pytest.raises(TypeError, match=r"delays must be an integer, got 1\.5"):
        algorithms.delayed_sgd(0.1, 1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"local_optimizer must be an optax .*, got 0\.1"):
        algorithms.diloco(2, 0.1)  # type: ignore[arg-type]


def test_bits_of_a_vote():
    lion = algorithms.distributed_lion(0.1, zero="plus")
    params = {"w": jnp.zeros((3, 2)), "c": jnp.zeros(())}
    assert algorithms.communication(lion, params, 5) == (5 * 7, 5 * 7)
    assert algorithms.communication(lion, params, 4) == (4 * 7, 4 * 2 * 7)  # a tie may be 0
    assert algorithms.communication(algorithms.signum(0.1), params, 5) == (5 * 2 * 7, 5 * 2 * 7)
