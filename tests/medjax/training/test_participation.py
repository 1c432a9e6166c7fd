"""Steps of only some of the workers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import aggregate, per_worker, perturb, rules
from medjax._engine.participation import draw_participants
from medjax._engine.random import stage_key
from medjax.training._local import sample_batch, sample_batches

N, DIM = 6, 3
CENTRES = np.random.default_rng(0).normal(size=(N, DIM)).astype(np.float32)
ONE_EACH = medjax.stack_workers(CENTRES, np.arange(N)[:, None])
START = np.float32([0.3, -0.2, 0.1])
KEY = stage_key(4, "simulate")


def quadratic(x: Any, a: Any) -> Any:
    """f_i(x) = ‖x - a_i‖²/2, so that g_i = x - a_i."""
    return jnp.sum((x[None] - a) ** 2, axis=-1) / 2, {"index": 0 * jnp.sum(a, axis=-1)}


def cohorts(steps: int, m: int, always: int = 0, n: int = N, key: Any = KEY) -> np.ndarray:
    draw = jax.vmap(lambda step: draw_participants(key, step, n, m, always))
    return np.asarray(draw(jnp.arange(steps)))


def driven(optimizer: Any, **settings: Any) -> medjax.Simulation:
    return medjax.simulation(quadratic, optimizer, **settings)


def final(optimizer: Any, num_steps: int = 5, **settings: Any) -> Any:
    parts = driven(optimizer, **settings)
    return jax.jit(parts.advance)(parts.init(START, 4), ONE_EACH, num_steps)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [None, 1, 2])
@pytest.mark.parametrize("name", ["mean", "median", "vote"])
def test_a_step_is_that_of_the_cohort_alone(name: str, chunk: int | None):
    rule, by_hand = {
        "mean": (rules.mean(), np.mean),
        "median": (rules.median(), np.median),
        "vote": (rules.majority_vote(), lambda g, axis: np.sign(np.sign(g).sum(axis))),
    }[name]
    optimizer = optax.chain(aggregate(rule), optax.scale_by_learning_rate(0.3))
    x = START.astype(np.float64)
    for cohort in cohorts(5, 4, 1):
        x = x - 0.3 * by_hand(x - CENTRES[cohort], axis=0)
    state = final(optimizer, participants=4, always=1, worker_chunk=chunk)
    np.testing.assert_allclose(state.params, x, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_with_local_steps():
    x = START.astype(np.float64)
    for cohort in cohorts(4, 3):  # the mean of the cohort's models after 2 steps of length 0.2
        x = np.mean(CENTRES[cohort] + 0.8**2 * (x - CENTRES[cohort]), axis=0)
    state = final(medjax.mean_sgd(0.2), 4, participants=3, local_steps=2, local_lr=0.2)
    np.testing.assert_allclose(state.params, x, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("traced", [False, True])
def test_federated_averaging_of_cohorts_weighted_by_their_examples(traced: bool):
    # McMahan et al. (2017), algorithm 1: x ← Σ_{k in S} (n_k / Σ_{j in S} n_j) x_k.
    sizes = [1, 2, 3, 5, 8, 1]
    examples = np.random.default_rng(1).normal(size=(20, DIM)).astype(np.float32)
    owned = np.split(np.arange(20), np.cumsum(sizes)[:-1])
    data = medjax.stack_workers(examples, owned)

    def advance(data: medjax.WorkerData) -> Any:
        rule = rules.mean(data.sizes if traced else sizes)
        settings: Any = dict(participants=3, always=1, local_steps=2, local_lr=0.2)
        parts = driven(optax.chain(aggregate(rule), medjax.servers.sgd(0.2)), **settings)
        return parts.advance(parts.init(START, 4), data, 5).params

    x = START.astype(np.float64)
    for cohort in cohorts(5, 3, 1):
        models = []
        for k in cohort:
            own = x
            for _ in range(2):
                own = own - 0.2 * (own - examples[owned[k]].mean(axis=0))
            models.append(own)
        x = np.average(models, axis=0, weights=np.array(sizes)[cohort])
    np.testing.assert_allclose(jax.jit(advance)(data), x, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_workers_mini_batch_does_not_depend_on_who_else_is_there():
    examples = medjax.stack_workers(np.arange(60), np.arange(60).reshape(N, 10))
    key, cohort = jax.random.key(1), jnp.array([0, 2, 5], jnp.int32)
    draw = jax.jit(sample_batches, static_argnums=1)
    everyone = draw(examples, 4, key, jnp.arange(N)).examples
    some = draw(examples, 4, key, cohort)
    np.testing.assert_array_equal(some.examples, everyone[cohort])
    own = jax.tree.map(lambda x: x[cohort[1:]], examples)
    last = jax.vmap(lambda place, worker: sample_batch(own, 4, key, place, worker))(
        jnp.arange(2), cohort[1:]
    )
    np.testing.assert_array_equal(last.examples, everyone[cohort[1:]])
    assert some.sizes.tolist() == [4, 4, 4]


@pytest.mark.slow
def test_a_run_with_mini_batches_is_that_of_the_cohorts_batches():
    data = medjax.stack_workers(np.arange(40.0, dtype=np.float32), np.arange(40).reshape(N + 2, 5))
    parts = medjax.simulation(
        lambda x, a: ((x - a) ** 2 / 2, {}), medjax.mean_sgd(0.5), batch_size=2, participants=3
    )
    state = jax.jit(parts.advance)(parts.init(0.0, 4), data, 4)
    draw = jax.jit(lambda t: sample_batches(data, 2, jax.random.fold_in(KEY, t), jnp.arange(N + 2)))
    x = 0.0
    for t, cohort in enumerate(cohorts(4, 3, n=N + 2)):
        batches = draw(t).examples
        x = x - 0.5 * (x - np.asarray(batches)[cohort].mean())
    np.testing.assert_allclose(state.params, x, rtol=1e-6)


@pytest.mark.slow
def test_all_participants_are_all_workers():
    optimizer = optax.chain(
        medjax.worker_momentum(0.5, N), perturb(0.1, key=0), medjax.median_sgd(0.2)
    )
    plain, named = final(optimizer), final(optimizer, participants=N)
    np.testing.assert_array_equal(named.params, plain.params)
    jax.tree.map(np.testing.assert_array_equal, named.opt_state[0], plain.opt_state[0])


@pytest.mark.slow
def test_momenta_are_the_workers_own_and_stay_while_they_are_away():
    optimizer = optax.chain(per_worker(optax.trace(0.9), N), medjax.mean_sgd(0.1))
    parts = driven(optimizer, participants=3, always=1)
    advance = jax.jit(parts.advance)
    state = parts.init(START, 4)
    x, m = START.astype(np.float64), np.zeros((N, DIM))
    for cohort in cohorts(6, 3, 1):
        before = np.asarray(state.opt_state[0].trace)
        state = advance(state, ONE_EACH, 1)
        after = np.asarray(state.opt_state[0].trace)
        away = np.setdiff1d(range(N), cohort)
        np.testing.assert_array_equal(after[away], before[away])  # bit for bit
        m[cohort] = 0.9 * m[cohort] + x - CENTRES[cohort]
        x = x - 0.1 * m[cohort].mean(axis=0)
        np.testing.assert_allclose(after, m, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(state.params, x, rtol=1e-5, atol=1e-6)
    whole = advance(parts.init(START, 4), ONE_EACH, 6)
    np.testing.assert_array_equal(whole.params, state.params)


@pytest.mark.slow
def test_states_with_keys_and_counts():
    optimizer = optax.chain(per_worker(optax.add_noise(0.1, 0.5, key=3), N), medjax.mean_sgd(0.1))
    parts = driven(optimizer, participants=2)
    start = parts.init(START, 4)
    end = jax.jit(parts.advance)(start, ONE_EACH, 5)
    times = np.bincount(cohorts(5, 2).ravel(), minlength=N)
    np.testing.assert_array_equal(end.opt_state[0].count, times)
    keys = [jax.random.key_data(state.opt_state[0].rng_key) for state in (start, end)]
    np.testing.assert_array_equal((keys[0] == keys[1]).all(axis=1), times == 0)


@pytest.mark.slow
def test_the_optimizer_is_told_who_is_there_and_sees_them_alone():
    told = []

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        told.append((jnp.shape(updates), sorted(extra), extra.get("num_workers")))
        sent = jnp.where(jnp.arange(4)[:, None] >= 3, 100.0, updates)  # the last is Byzantine
        return sent, (extra["workers"], updates)

    stage = optax.GradientTransformationExtraArgs(
        lambda params: (jnp.zeros(4, jnp.int32), jnp.zeros((4, DIM))), update
    )
    parts = driven(optax.chain(stage, medjax.mean_sgd(0.3)), participants=4, always=1)
    state = parts.advance(parts.init(START, 4), ONE_EACH, 1)
    (cohort,) = cohorts(1, 4, 1)
    assert told[-1] == ((4, DIM), ["num_workers", "workers"], N)
    np.testing.assert_array_equal(state.opt_state[0][0], cohort)
    np.testing.assert_allclose(state.opt_state[0][1], START - CENTRES[cohort])
    honest = (START - CENTRES[cohort[:3]]).sum(axis=0)
    np.testing.assert_allclose(state.params, START - 0.3 * (honest + 100) / 4, rtol=1e-5)


def test_without_participants_there_are_no_extra_arguments():
    # Some transforms of optax's raise at any.
    stage = optax.experimental.aggregating.average_per_element_updates(0)
    parts = driven(optax.chain(stage, optax.sgd(0.1)))
    state = parts.advance(parts.init(START, 4), ONE_EACH, 1)
    np.testing.assert_allclose(
        state.params, START - 0.1 * (START - CENTRES).mean(axis=0), rtol=1e-6
    )


def test_only_the_cohorts_gradients_are_computed():
    def program(**settings: Any) -> str:
        parts = medjax.simulation(
            lambda x, a: quadratic(x.sum(axis=1), a), medjax.median_sgd(0.1), **settings
        )
        return str(jax.make_jaxpr(parts.advance)(parts.init(jnp.zeros((DIM, 7)), 0), ONE_EACH, 2))

    every, some = f"f32[{N},{DIM},7]", f"f32[4,{DIM},7]"
    assert every in program()
    assert every not in program(participants=4)
    assert some in program(participants=4)


@pytest.mark.slow
def test_metrics_are_of_all_workers():
    result = medjax.simulate(
        quadratic, START, ONE_EACH, medjax.mean_sgd(0.1), num_steps=2, key=4, participants=2
    )
    x = START.astype(np.float64)
    for t, cohort in enumerate([*cohorts(2, 2), None]):
        if t in (0, 2):
            at = t // 2
            loss = ((x - CENTRES) ** 2).sum(axis=1).mean() / 2
            np.testing.assert_allclose(result.metrics["train_loss"][at], loss, rtol=1e-5)
            norm = np.linalg.norm(x - CENTRES.mean(axis=0))
            np.testing.assert_allclose(result.metrics["grad_norm"][at], norm, rtol=1e-5)
        if cohort is not None:
            x = x - 0.1 * (x - CENTRES[cohort]).mean(axis=0)


@pytest.mark.slow
def test_a_sweep_equals_the_separate_runs():
    def run(beta: Any, seed: Any) -> Any:
        optimizer = optax.chain(medjax.worker_momentum(beta, N), medjax.mean_sgd(0.2))
        settings = dict(num_steps=6, participants=2, key=seed)
        return medjax.simulate(quadratic, START, ONE_EACH, optimizer, **settings).params

    betas, seeds = np.float32([0.0, 0.5, 0.9, 0.9]), np.int32([1, 1, 1, 2])
    swept, single = jax.vmap(run)(betas, seeds), jax.jit(run)
    for beta, seed, x in zip(betas, seeds, swept, strict=True):
        np.testing.assert_allclose(x, single(beta, seed), rtol=1e-5, atol=1e-6)
    assert len(np.unique(swept[:, 0])) == 4


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"participants": 0}, ValueError, "participants must be at least 1, got 0"),
        ({"participants": 1.5}, TypeError, r"participants must be an integer, got 1\.5"),
        ({"participants": 7}, ValueError, "7 participants are more than the 6 workers"),
        ({"participants": 3, "always": -1}, ValueError, "always must be at least 0, got -1"),
        ({"participants": 3, "always": 4}, ValueError, "4 workers that always .* the 3 particip"),
        ({"always": 1.0}, TypeError, r"always must be an integer, got 1\.0"),
    ],
)
def test_errors(settings: dict[str, Any], kind: type[Exception], message: str):
    with pytest.raises(kind, match=message):
        medjax.simulate(
            quadratic, START, ONE_EACH, medjax.mean_sgd(0.1), num_steps=1, key=0, **settings
        )


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (per_worker(optax.trace(0.9), 4), "per_worker is built for 4 workers, there are 6"),
        (aggregate(rules.mean(np.ones(4))), r"mean\(weights\) is built for 4 workers, there are 6"),
        (aggregate(rules.trimmed_mean(2)), "2f < n, got f = 2 and n = 4"),
    ],
)
def test_stages_of_another_number_of_workers(stage: Any, message: str):
    parts = driven(optax.chain(stage, medjax.mean_sgd(0.1)), participants=4)
    with pytest.raises(ValueError, match=message):
        parts.advance(parts.init(START, 0), ONE_EACH, 1)
