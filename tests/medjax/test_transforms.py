import functools
import math
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.experimental import aggregating

import medjax
from medjax import aggregate, noise, per_worker, perturb, rules

N, NUM_STEPS = 5, 4
EVERY_OTHER = optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation()
RBG = jax.random.key(0, impl="rbg")
CENTRES = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
START = np.array([0.3, -0.2, 0.1], np.float32)


def fold(seed: int, stage: str, *path: int) -> jax.Array:
    """The documented scheme: the stage's name, then the step, leaf and worker, are folded in."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(stage.encode()))
    return functools.reduce(jax.random.fold_in, path, key)


def noise_by_hand(seed: int, step: int, leaf: int, shape: tuple[int, ...]) -> np.ndarray:
    keys = [fold(seed, "perturb", step, leaf, worker) for worker in range(shape[0])]
    return np.stack([jax.random.normal(key, shape[1:]) for key in keys])


def apply(tx: optax.GradientTransformation, updates: Any, num_steps: int = 1) -> list[Any]:
    state, outs = tx.init(jax.tree.map(lambda leaf: leaf[0], updates)), []
    for _ in range(num_steps):
        out, state = tx.update(updates, state)
        outs.append(out)
    return outs


def assert_close(actual: Any, expected: Any) -> None:
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=2e-6, atol=2e-6)


def test_perturb_adds_the_documented_noise():
    g = {"a": np.ones((N, 2, 3), np.float32), "b": [CENTRES]}
    for step, out in enumerate(apply(perturb(0.5, key=7), g, 3)):
        assert_close(out["a"], 1 + 0.5 * noise_by_hand(7, step, 0, (N, 2, 3)))
        assert_close(out["b"], [CENTRES + 0.5 * noise_by_hand(7, step, 1, (N, 3))])


def test_noise_is_independent_of_the_number_of_workers_and_of_all_other_draws():
    zeros = {"a": np.zeros((N, 4), np.float32), "b": np.zeros((N, 4), np.float32)}
    draws = apply(perturb(1.0), zeros, 2)
    fewer = apply(perturb(1.0), jax.tree.map(lambda leaf: leaf[:2], zeros), 2)
    np.testing.assert_array_equal(fewer[1]["b"], draws[1]["b"][:2])
    everything = np.concatenate([out[leaf].ravel() for out in draws for leaf in "ab"])
    assert len(np.unique(everything)) == 2 * 2 * N * 4  # steps, leaves, workers, coordinates


@pytest.mark.parametrize("name", noise.NOISES)
def test_perturb_by_other_noise_and_in_half_precision(name: str):
    distribution, g = noise.NOISES[name](), jnp.asarray(CENTRES, jnp.bfloat16)
    (out,) = apply(perturb(2.0, distribution), g)
    xi = distribution.sample(fold(0, "perturb", 0, 0, 3), (3,), jnp.bfloat16)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out[3], g[3] + 2 * xi)


def test_b_may_be_a_schedule_or_traced_or_0():
    for step, out in enumerate(apply(perturb(lambda t: 0.5 * (t + 1)), CENTRES, 3)):
        assert_close(out, CENTRES + 0.5 * (step + 1) * noise_by_hand(0, step, 0, (N, 3)))
    traced = jax.jit(lambda b: apply(perturb(b), CENTRES)[0])
    assert_close(traced(3.0), CENTRES + 3 * noise_by_hand(0, 0, 0, (N, 3)))
    np.testing.assert_array_equal(traced(0.0), CENTRES)


def test_adaptive_scale_follows_the_largest_finite_entry_of_each_tensor():
    g = {"a": CENTRES.copy(), "b": -10 * CENTRES, "c": np.full((N, 1), np.inf, np.float32)}
    g["a"][:3, 0] = [np.nan, np.inf, -np.inf]
    b_a, b_b = (0.2 * np.abs(x[np.isfinite(x)]).max() for x in (g["a"], g["b"]))

    def run(fraction: Any) -> Any:
        return apply(perturb(medjax.adaptive_scale(fraction)), g)[0]

    for out in (run(0.2), jax.jit(run)(0.2)):
        assert_close(out["a"], g["a"] + b_a * noise_by_hand(0, 0, 0, (N, 3)))
        assert_close(out["b"], g["b"] + b_b * noise_by_hand(0, 0, 1, (N, 3)))
        np.testing.assert_array_equal(out["c"], g["c"])  # nothing finite: a scale of 0


@pytest.mark.parametrize("seed", [7, -1, 2**31, 2**32 - 1])
def test_all_kinds_of_keys_agree(seed: int):
    (expected,) = apply(perturb(1.0, key=jax.random.key(seed)), CENTRES)
    for key in (jax.random.PRNGKey(seed), seed):
        np.testing.assert_array_equal(apply(perturb(1.0, key=key), CENTRES)[0], expected)
    traced = jax.jit(lambda key: apply(perturb(1.0, key=key), CENTRES)[0])
    assert_close(traced(jax.random.PRNGKey(seed)), expected)
    assert_close(traced(jax.random.key(seed)), expected)


@pytest.mark.parametrize(
    "inner",
    [optax.trace(0.9), optax.scale_by_adam(), optax.add_noise(0.1, 0.5, key=3), optax.identity()],
)
def test_per_worker_equals_separate_runs(inner: optax.GradientTransformation):
    tx, gradients = per_worker(inner, N), np.stack([CENTRES, 2 * CENTRES, -CENTRES])
    actual = jax.lax.scan(lambda state, g: tx.update(g, state)[::-1], tx.init(START), gradients)[1]
    for i in range(N):
        state = inner.init(START)
        if hasattr(state, "rng_key"):  # worker i's key is folded with i
            state = state._replace(rng_key=jax.random.fold_in(jax.random.key(3), i))
        for t, g in enumerate(gradients):
            out, state = inner.update(g[i], state)
            assert_close(actual[t, i], out)


def test_per_worker_passes_params_and_extra_arguments():
    def update(g: Any, state: Any, params: Any = None, *, value: Any, **extra: Any) -> Any:
        return g + params * value, state

    inner = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    tx = per_worker(inner, N)
    out, _ = tx.update(CENTRES, tx.init(START), START, value=2.0, other=1)
    assert_close(out, CENTRES + 2 * START)


@pytest.mark.parametrize("server", [optax.adam(0.1), optax.sgd(0.1, momentum=0.9), EVERY_OTHER])
@pytest.mark.parametrize("name", ["mean", "median"])
def test_any_server_optimizer_follows(name: str, server: optax.GradientTransformation):
    rule = rules.RULES[name]()
    worker = per_worker(optax.trace(0.5), N)
    chain = optax.chain(worker, aggregate(rule), server)
    states = [chain.init(START), worker.init(START), server.init(START)]
    for scale in (1, -2, 3):
        out, states[0] = chain.update(scale * CENTRES, states[0], START)
        g, states[1] = worker.update(scale * CENTRES, states[1])
        expected, states[2] = server.update(rule(g), states[2], START)
        assert_close(out, expected)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_aggregate_stands_anywhere_in_a_chain_and_takes_extra_arguments(position: int):
    stages = [optax.scale(-2.0), optax.scale(3.0)]
    stages.insert(position, aggregate(rules.median()))
    tx = optax.chain(*stages)
    out, _ = tx.update(CENTRES, tx.init(START), START, value=1.0, key=2)
    assert_close(out, -6 * np.median(CENTRES, axis=0))
    assert isinstance(aggregate(rules.median()), aggregating.Aggregator)


def test_a_rule_that_draws_gets_a_new_key_at_each_step():
    rule, zeros = rules.majority_vote(zero="random"), np.zeros((3, 50), np.float32)
    outs = apply(aggregate(rule, key=4), zeros, 2)
    for step, out in enumerate(outs):
        np.testing.assert_array_equal(out, rule(zeros, fold(4, "aggregate", step)))
    assert np.any(outs[0] != outs[1])


def vote(g: np.ndarray, axis: int) -> np.ndarray:
    return np.sign(np.sign(g).sum(axis))


PLAIN = {"sgd": np.mean, "sign_sgd": vote, "median_sgd": np.median}
RULE = PLAIN | {"noisy_sign_sgd": vote, "noisy_median_sgd": np.median}
each_alias = pytest.mark.parametrize("name", RULE)


def by_hand(name: str, lr: Callable[[int], Any], b: Callable[[int], Any], seed: int) -> np.ndarray:
    """x_1, x_2, ... by the paper's formula for f_i(x) = ‖x - a_i‖²/2, so that g_i = x - a_i."""
    iterates = [START.astype(np.float64)]
    for t in range(NUM_STEPS):
        g = iterates[-1] - CENTRES
        if name.startswith("noisy"):
            g = g + b(t) * noise_by_hand(seed, t, 0, (N, 3))
        iterates.append(iterates[-1] - lr(t) * RULE[name](g, axis=0))
    return np.stack(iterates[1:])


def descend(tx: optax.GradientTransformation) -> jax.Array:
    """The same by optax, in a scan."""

    def step(carry: Any, _: None) -> Any:
        updates, state = tx.update(carry[0] - CENTRES, carry[1], carry[0])
        x = optax.apply_updates(carry[0], updates)
        return (x, state), x

    start = jnp.asarray(START)
    return jax.lax.scan(step, (start, tx.init(start)), None, NUM_STEPS)[1]


def settings(name: str, lr: Any, b: Any, seed: Any) -> dict[str, Any]:
    noisy = {"b": b, "key": seed} if name.startswith("noisy") else {}
    # Without `exact` signs are drawn, not noise.
    return {"learning_rate": lr} | noisy | ({"exact": True} if name == "noisy_sign_sgd" else {})


@each_alias
@pytest.mark.parametrize("inject", [False, True])
def test_alias_is_the_papers_formula(name: str, inject: bool):
    alias = getattr(medjax, name)
    alias = optax.inject_hyperparams(alias) if inject else alias
    constant = descend(alias(**settings(name, 0.1, 0.5, 3)))
    assert_close(constant, by_hand(name, lambda t: 0.1, lambda t: 0.5, 3))
    lr, b = (lambda t: 0.1 / (t + 1)), (lambda t: 0.5 * (t + 1))
    scheduled = descend(alias(**settings(name, lr, b, jax.random.key(3))))
    assert_close(scheduled, by_hand(name, lr, b, 3))


@each_alias
def test_injected_hyperparameters_change_between_steps(name: str):
    tx = optax.inject_hyperparams(getattr(medjax, name))(**settings(name, 9.0, 9.0, 3))
    x, state, update = jnp.asarray(START), tx.init(START), jax.jit(tx.update)
    for t in range(NUM_STEPS):
        new = settings(name, jnp.float32(0.1 * (t + 1)), jnp.float32(1 - 0.2 * t), jnp.int32(3))
        state.hyperparams.update({k: v for k, v in new.items() if k != "exact"})
        updates, state = update(x - CENTRES, state, x)
        x = optax.apply_updates(x, updates)
    assert_close(x, by_hand(name, lambda t: 0.1 * (t + 1), lambda t: 1 - 0.2 * t, 3)[-1])


@each_alias
def test_alias_is_swept_by_vmap(name: str):
    sweep = (np.float32([0.1, 0.2, 0.3]), np.float32([0, 0.5, 2]), np.int32([3, 4, 4]))
    run = jax.vmap(lambda *swept: descend(getattr(medjax, name)(**settings(name, *swept))))
    for actual, lr, b, seed in zip(jax.jit(run)(*sweep), *sweep, strict=True):
        assert_close(actual, by_hand(name, lambda t, v=lr: v, lambda t, v=b: v, int(seed)))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: perturb(-1.0), ValueError, "b must be a finite number at least 0, got -1"),
        (lambda: perturb(math.nan), ValueError, "b must be a finite number .*, got nan"),
        (lambda: medjax.noisy_sign_sgd(1.0, math.inf), ValueError, "b must .* number .* got inf"),
        (lambda: perturb("x"), TypeError, "b must be a real number, got 'x'"),
        (lambda: perturb(1.0, noise.normal), TypeError, r"such as .*normal\(\), got <func"),
        (lambda: medjax.adaptive_scale(-0.1), ValueError, "fraction must be .* 0, got -0.1"),
        (lambda: perturb(0.1, key=RBG).init(START), TypeError, "a threefry2x32 key, got key<rbg>"),
        (lambda: per_worker(optax.trace(0.9), 0), ValueError, "at least 1, got 0"),
        (lambda: apply(per_worker(optax.identity(), 3), CENTRES), ValueError, "for 3 .* from 5"),
        (lambda: aggregate(rules.median), TypeError, "rule must be built, .* got <function"),
        (lambda: aggregate(rules.majority_vote(tie="random")), ValueError, "give aggregate a key"),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        make()
