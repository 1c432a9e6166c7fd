from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import medjax

pytestmark = pytest.mark.optimized

A, DELTA, X0 = np.array([1.0, 2.0, 10.0]), 1e-3, 5e-4  # the toy of the paper


def quadratic(x, a):
    """f_i(x) = (x - a_i)²/2, and x itself as a metric."""
    return (x - a) ** 2 / 2, {"x": jnp.broadcast_to(x, a.shape)}


def toy():
    return medjax.stack_workers(A.astype(np.float32), [np.array([i]) for i in range(3)])


run_toy = partial(medjax.simulate, quadratic, key=0)


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "limit"), [(medjax.mean_sgd, 13 / 3), (medjax.median_sgd, 2)])
def test_toy_closed_form(rule, limit):
    result = run_toy(X0, toy(), rule(DELTA), num_steps=6000, eval_every=500)
    t = np.arange(0, 6001, 500)
    # The gradient of the mean is x - 13/3, the median gradient x - 2: x - limit shrinks by 1 - δ.
    x = limit + (X0 - limit) * (1 - DELTA) ** t
    # Each step rounds x < 5 by 2.4e-7 at most, and forgets a thousandth: 2.4e-4 in all.
    error = 2.4e-4
    np.testing.assert_array_equal(result.steps, t)
    np.testing.assert_allclose(result.metrics["train_x"], x, atol=error)
    np.testing.assert_allclose(result.metrics["grad_norm"], np.abs(x - 13 / 3), atol=error)
    np.testing.assert_allclose(result.metrics["median_mean_gap"], 7 / 3, rtol=1e-6)
    loss = ((x[:, None] - A) ** 2 / 2).mean(axis=1)  # its slope is x - 13/3, at most 13/3 in size
    np.testing.assert_allclose(result.metrics["train_loss"], loss, atol=13 / 3 * error)
    np.testing.assert_array_equal(result.params, result.metrics["train_x"][-1])


@pytest.mark.slow
def test_toy_sign_sgd_stalls_at_the_median():
    result = run_toy(X0, toy(), medjax.sign_sgd(DELTA), num_steps=2500, eval_every=500)
    # Two of three vote up until x passes 2 at step 2000; rounding: 2000 steps of 6e-8 at most.
    x = X0 + DELTA * np.array([0, 500, 1000, 1500])
    np.testing.assert_allclose(result.metrics["train_x"][:4], x, atol=1.2e-4)
    np.testing.assert_allclose(result.metrics["train_x"][4:], 2, atol=0.001)
    np.testing.assert_allclose(result.metrics["grad_norm"][4:], 7 / 3, atol=0.001)


@pytest.mark.slow
def test_toy_noisy_median_averages_to_its_mean():
    b, steps = 10.0, 50_000
    optimizer = medjax.noisy_median_sgd(DELTA, b, key=1)
    x = run_toy(4.0, toy(), optimizer, num_steps=steps, eval_every=50).metrics["train_x"]
    # x_{t+1} = (1 - δ) x_t + δ m_t, m_t = median_i(a_i + b ξ_i): x averages to E m. P(m <= y) is
    # the chance that 2 or 3 are below y, and E m = -100 + ∫ (1 - P) dy from -100.
    y = np.linspace(-100, 110, 20_001)
    p, q, r = stats.norm.cdf(y - A[:, None], scale=b)
    expected = -100 + np.trapezoid(1 - (p * q + q * r + r * p - 2 * p * q * r), y)
    assert abs(expected - 4.161) < 0.001
    # Its deviation is b √0.449/√T = 0.03 (0.449: the variance of the median of 3 normals).
    assert abs(x.mean() - expected) < 0.15
    assert np.std(x) > 0.05  # 0.15 in the long run: √(δ/2 · 0.449) b


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_steps", "eval_every", "steps"),
    [
        *[(10, 4, [0, 4, 8, 10]), (10, 5, [0, 5, 10]), (3, 1, [0, 1, 2, 3]), (3, 20, [0, 3])],
        *[(7, None, [0, 7]), (1, None, [0, 1]), (1, 1, [0, 1]), (0, None, [0]), (0, 7, [0])],
    ],
)
def test_recorded_steps(num_steps, eval_every, steps):
    test = np.float32([4, 8])
    result = run_toy(
        0.0, toy(), medjax.mean_sgd(0.5), num_steps=num_steps, eval_every=eval_every, test_data=test
    )
    assert result.steps.tolist() == steps
    x = 13 / 3 * (1 - 0.5 ** np.array(steps))
    losses = {"train_loss": ((x[:, None] - A) ** 2).mean(axis=1) / 2}
    losses |= {"test_loss": ((x[:, None] - test) ** 2).mean(axis=1) / 2}
    gaps = {"grad_norm": 13 / 3 - x, "median_mean_gap": np.full(len(x), 7 / 3)}
    expected = losses | gaps | {"train_x": x, "test_x": x}
    assert set(result.metrics) == {*expected, "nonfinite_workers"}
    np.testing.assert_array_equal(result.metrics["nonfinite_workers"], np.zeros((len(x), 3)))
    for name, values in expected.items():
        np.testing.assert_allclose(result.metrics[name], values, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(result.params, x[-1], rtol=1e-5)


def unequal():
    return medjax.stack_workers(
        np.arange(20, dtype=np.float32), np.split(np.arange(20), [1, 4, 12])
    )


# 12 runs: each of 4 scales with each of 3 seeds.
BS, SEEDS = np.repeat(np.float32([0.0, 0.1, 1.0, 10.0]), 3), np.tile(np.arange(3), 4)


@pytest.mark.slow
def test_a_sweep_is_one_program_and_equals_the_separate_runs():
    traces = []

    def objective(x, a):
        traces.append(None)  # Python calls it only where JAX traces it
        return quadratic(x, a)

    def run(b, seed):
        optimizer = medjax.noisy_median_sgd(0.1, b, key=seed)
        arguments = dict(num_steps=20, eval_every=1, batch_size=2, key=seed)
        return medjax.simulate(objective, jnp.zeros(()), unequal(), optimizer, **arguments)

    sweep, single = jax.jit(jax.vmap(run)), jax.jit(run)
    swept, traces_of_sweep = sweep(BS, SEEDS), len(traces)
    sweep(BS + 1, SEEDS + 3)
    assert (len(traces), sweep._cache_size()) == (traces_of_sweep, 1)  # values: nothing anew
    runs = [single(b, seed) for b, seed in zip(BS, SEEDS, strict=True)]
    assert len(traces) == 2 * traces_of_sweep  # 12 runs together are traced as often as one
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *runs)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), swept, stacked)
    assert len(np.unique(swept.params)) == 12


@pytest.mark.slow
def test_a_sweep_draws_the_noise_of_the_separate_runs():
    def run(b, seed):
        optimizer = optax.chain(medjax.perturb(b, key=seed), medjax.mean_sgd(1.0))
        flat = partial(medjax.simulate, lambda x, a: (0 * x.sum() * a, {}), jnp.zeros(50))
        return flat(toy(), optimizer, num_steps=20, key=0).params  # -Σ_t (1/n) Σ_i b ξ_i

    swept, single = jax.jit(jax.vmap(run))(BS, SEEDS), jax.jit(run)
    for b, seed, sums in zip(BS, SEEDS, swept, strict=True):
        np.testing.assert_allclose(sums, single(b, seed), rtol=1e-6, atol=1e-6 * b)
    by_b = np.asarray(swept).reshape(4, 3, 50)
    assert (by_b[0] == 0).all()
    for b, sums in zip((0.1, 10.0), by_b[[1, 3]], strict=True):  # the same draws, whatever b
        np.testing.assert_allclose(sums / b, by_b[2], atol=1e-5)
    # Of variance 20/3; the mean of 150 squares has a relative deviation of √(2/150) = 0.12.
    assert abs((by_b[2] ** 2).mean() / (20 / 3) - 1) < 5 * 0.12


@pytest.mark.slow
def test_a_sweep_of_learning_rates():
    rates = np.array([0.01, 0.1, 0.5, 1.0, 1.9])
    x = jax.vmap(lambda rate: run_toy(0.0, toy(), medjax.mean_sgd(rate), num_steps=9).params)(rates)
    np.testing.assert_allclose(x, 13 / 3 * (1 - (1 - rates) ** 9), rtol=1e-5)


MEDIAN = medjax.aggregate(medjax.rules.median())
OPTIMIZER = optax.chain(medjax.perturb(0.1, key=0), MEDIAN, optax.rmsprop(0.1))
DRIVEN = medjax.simulation(quadratic, OPTIMIZER, batch_size=2)


def same(a, b):
    bits = [x if x.dtype in (np.int32, np.float32) else jax.random.key_data(x) for x in (a, b)]
    np.testing.assert_array_equal(*bits)


@pytest.mark.slow
def test_advance_is_one_program_whatever_the_length_and_leaves_no_trace_of_the_cuts():
    advance, data, start = jax.jit(DRIVEN.advance), unequal(), DRIVEN.init(jnp.zeros(()), 0)
    whole = advance(start, data, 10)
    jax.tree.map(same, advance(advance(start, data, 3), data, 7), whole)
    jax.tree.map(same, advance(advance(whole, data, 0), data, 0), whole)
    assert advance._cache_size() == 1
    assert whole.step == 10
    result = medjax.simulate(
        quadratic, 0.0, data, OPTIMIZER, num_steps=10, batch_size=2, eval_every=4, key=0
    )
    np.testing.assert_allclose(result.params, whole.params, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("init", [jax.jit(DRIVEN.init), DRIVEN.init], ids=["jitted", "not_jitted"])
def test_a_donated_state_is_used_up_and_the_callers_params_are_not(init):
    params, data = jnp.zeros(()), unequal()
    expected = jax.jit(DRIVEN.advance)(DRIVEN.init(jnp.zeros(()), 0), data, 5)
    state = init(params, 0)
    jax.tree.map(same, jax.jit(DRIVEN.advance, donate_argnums=0)(state, data, 5), expected)
    assert state.params.is_deleted()
    assert not params.is_deleted()


@pytest.mark.slow
def test_python_floats_as_params_do_not_compile_advance_twice():
    advance, data = jax.jit(DRIVEN.advance), unequal()
    advance(advance(DRIVEN.init(0.0, 0), data, 1), data, 1)
    assert advance._cache_size() == 1


@pytest.mark.parametrize(
    "optimizer", [optax.sgd(0.1), optax.rmsprop(0.1), medjax.perturb(0.1, key=0)]
)
def test_an_optimizer_must_aggregate(optimizer):
    with pytest.raises(ValueError, match="must drop the worker axis"):
        run_toy(X0, toy(), optimizer, num_steps=1)


@pytest.mark.parametrize(
    ("setting", "value", "kind", "message"),
    [
        ("batch_size", 0, ValueError, "must be at least 1, got 0"),
        ("batch_size", 1.5, TypeError, r"must be an integer, got 1\.5"),
        ("batch_size", 9, ValueError, "9 is more than the 8 examples of the largest worker"),
        ("num_steps", -1, ValueError, "must be at least 0, got -1"),
        ("num_steps", 2.0, TypeError, r"must be an integer, got 2\.0"),
        ("eval_every", -1, ValueError, "must be at least 1, got -1"),
        ("eval_every", 0, ValueError, "must be at least 1, got 0"),
        ("worker_chunk", 0, ValueError, "must be at least 1, got 0"),
        ("worker_chunk", -1, ValueError, "must be at least 1, got -1"),
        ("worker_chunk", 1.5, TypeError, r"must be an integer, got 1\.5"),
    ],
)
def test_errors(setting, value, kind, message):
    with pytest.raises(kind, match=f"{setting} {message}"):
        run_toy(0.0, unequal(), medjax.mean_sgd(0.1), **{"num_steps": 3, setting: value})


@pytest.mark.parametrize("setting", ["num_steps", "eval_every", "batch_size", "worker_chunk"])
def test_sizes_are_static(setting):
    def run(value):
        return run_toy(0.0, toy(), medjax.mean_sgd(0.1), **{"num_steps": 3, setting: value})

    with pytest.raises(TypeError, match=f"{setting} changes shapes or code and must be static"):
        jax.jit(run)(1)


def test_a_metric_named_loss_is_refused():
    objective = lambda x, a: (quadratic(x, a)[0], {"loss": 0 * a})  # noqa: E731
    with pytest.raises(ValueError, match="loss"):  # or it would be what is minimised
        medjax.simulate(objective, X0, toy(), medjax.mean_sgd(0.1), num_steps=1, key=0)


class Model:  # no __eq__
    def __init__(self, x):
        self.x = x


jax.tree_util.register_pytree_node(Model, lambda m: ((m.x,), None), lambda _, xs: Model(*xs))


def test_params_of_any_pytree_class():
    data, objective = toy(), lambda model, a: quadratic(model.x, a)
    result = medjax.simulate(objective, Model(0.0), data, medjax.mean_sgd(1.0), num_steps=1, key=0)
    np.testing.assert_allclose(result.params.x, 13 / 3, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2**32 - 1])
def test_large_seeds_are_those_of_jax(seed):
    advance, data = jax.jit(DRIVEN.advance), unequal()
    ends = [advance(DRIVEN.init(0.0, key), data, 3).params for key in (seed, jax.random.key(seed))]
    np.testing.assert_array_equal(*ends)


@pytest.mark.slow
def test_float64_averages_are_float64():
    with jax.enable_x64(True):
        data = medjax.stack_workers(np.array([1.0, 2.0, 4.0]), [np.arange(3)])
        x = run_toy(jnp.zeros(()), data, medjax.mean_sgd(1.0), num_steps=1).params
        np.testing.assert_allclose(x, 7 / 3, rtol=1e-15)
