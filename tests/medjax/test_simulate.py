import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import medjax
from medjax import rules
from medjax._gradients import local_gradients, sample_batches

A, DELTA, X0 = np.array([1.0, 2.0, 10.0]), 1e-3, 5e-4  # the toy of the paper


def quadratic(x, a):
    """f_i(x) = (x - a_i)²/2, and x itself as a metric."""
    return (x - a) ** 2 / 2, {"x": jnp.broadcast_to(x, a.shape)}


def toy():
    return medjax.stack_workers(A.astype(np.float32), [np.array([i]) for i in range(3)])


run_toy = partial(medjax.simulate, quadratic, key=0)


@pytest.mark.parametrize(("rule", "limit"), [(medjax.sgd, 13 / 3), (medjax.median_sgd, 2)])
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


def test_toy_sign_sgd_stalls_at_the_median():
    result = run_toy(X0, toy(), medjax.sign_sgd(DELTA), num_steps=2500, eval_every=500)
    # Two of three vote up until x passes 2 at step 2000; rounding: 2000 steps of 6e-8 at most.
    x = X0 + DELTA * np.array([0, 500, 1000, 1500])
    np.testing.assert_allclose(result.metrics["train_x"][:4], x, atol=1.2e-4)
    np.testing.assert_allclose(result.metrics["train_x"][4:], 2, atol=0.001)
    np.testing.assert_allclose(result.metrics["grad_norm"][4:], 7 / 3, atol=0.001)


def test_toy_noisy_median_averages_to_the_mean_of_the_noisy_median():
    b, steps = 10.0, 50_000
    optimizer = medjax.noisy_median_sgd(DELTA, b, key=1)
    x = run_toy(4.0, toy(), optimizer, num_steps=steps, eval_every=50).metrics["train_x"]
    # x_{t+1} = (1 - δ) x_t + δ m_t, m_t = median_i(a_i + b ξ_i): x averages to E m, 4.161. P(m <= y)
    # is the chance that 2 or 3 are below; E m = ∫ (1 - P) dy from the lower end + the lower end.
    y, h = np.linspace(-100, 110, 20_001, retstep=True)
    p, q, r = stats.norm.cdf(y - A[:, None], scale=b)
    expected = -100 + h * (1 - (p * q + q * r + r * p - 2 * p * q * r)).sum()
    assert abs(expected - 4.161) < 0.01
    # Its deviation is b √0.449/√T = 0.03 (0.449: the variance of the median of 3 normals).
    assert abs(x.mean() - expected) < 0.15
    assert np.std(x) > 0.05  # 0.15 in the long run: √(δ/2 · 0.449) b


@pytest.mark.parametrize(
    ("num_steps", "eval_every", "steps"),
    [
        *[(10, 4, [0, 4, 8, 10]), (10, 5, [0, 5, 10]), (3, 1, [0, 1, 2, 3]), (3, 20, [0, 3])],
        *[(7, None, [0, 7]), (1, None, [0, 1]), (1, 1, [0, 1]), (0, None, [0]), (0, 7, [0])],
    ],
)
def test_recorded_steps(num_steps, eval_every, steps):
    test = jnp.array([4.0, 8.0])
    result = run_toy(
        0.0, toy(), medjax.sgd(0.5), num_steps=num_steps, eval_every=eval_every, test_data=test
    )
    assert result.steps.tolist() == steps
    x = 13 / 3 * (1 - 0.5 ** np.array(steps))
    losses = {"train_loss": ((x[:, None] - A) ** 2).mean(axis=1) / 2}
    losses |= {"test_loss": ((x[:, None] - test) ** 2).mean(axis=1) / 2}
    gaps = {"grad_norm": 13 / 3 - x, "median_mean_gap": np.full(len(x), 7 / 3)}
    expected = losses | gaps | {"train_x": x, "test_x": x}
    assert set(result.metrics) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(result.metrics[name], values, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(result.params, x[-1], rtol=1e-5)


# Softmax regression on workers of 1, 3, 7, 2 and 5 examples.
RNG = np.random.default_rng(0)
INPUTS, LABELS = RNG.normal(size=(18, 4)), RNG.integers(0, 3, 18)
PARTS = np.split(RNG.permutation(18), [1, 4, 11, 13])
PARAMS = {"w": RNG.normal(size=(4, 3)), "c": RNG.normal(size=3)}
softmax = medjax.objectives.classification(lambda p, x: x @ p["w"] + p["c"])


def unequal():
    return medjax.stack_workers((INPUTS.astype(np.float32), LABELS.astype(np.int32)), PARTS)


def start():
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), PARAMS)


def one_worker(params, x, y):
    """Average loss, accuracy and gradient over one worker's own examples, in float64."""
    logits = x @ params["w"] + params["c"]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    residual = (p - np.eye(3)[y]) / len(y)
    gradient = {"w": x.T @ residual, "c": residual.sum(axis=0)}
    return -np.log(p[np.arange(len(y)), y]).mean(), (logits.argmax(axis=1) == y).mean(), gradient


def all_workers(params):
    losses, accuracies, gradients = zip(
        *[one_worker(params, INPUTS[part], LABELS[part]) for part in PARTS], strict=True
    )
    stacked = {k: np.stack([g[k] for g in gradients]) for k in PARAMS}
    return {"loss": np.array(losses), "accuracy": np.array(accuracies)}, stacked


# 7 rows each: 5 workers in one piece; one by one; in pieces of 2, 2, 1; and of 3, 2.
@pytest.mark.parametrize("at_once", [8192, 35, 1, 7, 14, 21])
def test_local_gradients_are_those_of_own_examples(at_once, monkeypatch):
    monkeypatch.setattr("medjax._gradients._EXAMPLES_AT_ONCE", at_once)
    got = jax.jit(partial(local_gradients, softmax))(start(), unequal())
    for tree, expected in zip(got, all_workers(PARAMS), strict=True):
        assert set(tree) == set(expected)
        for name in tree:
            np.testing.assert_allclose(tree[name], expected[name], rtol=1e-5, atol=1e-6)


def test_the_loop_is_distributed_sgd():
    optimizer = optax.chain(medjax.aggregate(rules.mean()), optax.sgd(0.5, momentum=0.9))
    result = jax.jit(
        lambda p, d: medjax.simulate(softmax, p, d, optimizer, num_steps=20, eval_every=1, key=0)
    )(start(), unequal())
    params, momentum = dict(PARAMS), {"w": 0.0, "c": 0.0}
    for t in range(21):
        metrics, gradients = all_workers(params)
        means = {k: g.mean(axis=0) for k, g in gradients.items()}
        gaps = [np.median(gradients[k], axis=0) - means[k] for k in PARAMS]
        expected = {"train_loss": metrics["loss"].mean(), "train_accuracy": metrics["accuracy"].mean()}
        expected["grad_norm"] = math.sqrt(sum((g**2).sum() for g in means.values()))
        expected["median_mean_gap"] = math.sqrt(sum((g**2).sum() for g in gaps))
        assert set(result.metrics) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(result.metrics[name][t], value, rtol=1e-4, err_msg=name)
        if t < 20:
            momentum = {k: 0.9 * momentum[k] + means[k] for k in PARAMS}
            params = {k: params[k] - 0.5 * momentum[k] for k in PARAMS}
    for k in PARAMS:
        np.testing.assert_allclose(result.params[k], params[k], rtol=1e-4, atol=1e-5)


def names():
    """Examples that are their own number: workers of 1, 3, 8 and 8 examples."""
    parts = np.split(np.random.default_rng(1).permutation(20), [1, 4, 12])
    return parts, medjax.stack_workers(np.arange(20), parts)


def uniform(counts):
    counts = np.asarray(counts)
    statistic = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    return statistic < stats.chi2.isf(1e-6, counts.size - 1)


def test_batches_are_uniform_and_independent_draws_of_own_examples():
    parts, data = names()
    keys = jax.random.split(jax.random.key(0), 4000)
    batches = jax.vmap(lambda key: sample_batches(data, 4, key))(keys)
    assert batches.sizes.tolist() == [[4] * 4] * 4000
    drawn = np.asarray(batches.examples)  # (4000, n, 4)
    for worker, part in enumerate(parts):
        values, counts = np.unique(drawn[:, worker], return_counts=True)
        np.testing.assert_array_equal(values, np.sort(part))
        assert uniform(counts)
    # All pairs alike, of two workers and of two places in a batch: 64 kinds, of 62.5 each.
    for one, other in ((drawn[:, 2, 0], drawn[:, 3, 0]), (drawn[:, 2, 1], drawn[:, 2, 2])):
        pairs, counts = np.unique(np.stack([one, other]), axis=1, return_counts=True)
        assert pairs.shape == (2, 64)
        assert uniform(counts)


def test_batches_depend_on_the_key_and_the_worker_alone():
    _, data = names()
    batches = sample_batches(data, 6, jax.random.key(3)).examples
    np.testing.assert_array_equal(sample_batches(data, 6, jax.random.key(3)).examples, batches)
    assert (sample_batches(data, 6, jax.random.key(4)).examples != batches).any(axis=1)[1:].all()
    fewer = jax.tree.map(lambda x: x[:3], data)
    np.testing.assert_array_equal(sample_batches(fewer, 6, jax.random.key(3)).examples, batches[:3])


def test_a_run_counts_what_it_draws():
    # The loss of example j is params_j: a gradient is how often each was drawn, over the batch
    # size 4, and the mean rule with n = 4 and δ = 16 adds up the counts, exactly.
    parts, data = names()

    def run(key, b, noise_key):
        optimizer = optax.chain(medjax.perturb(b, key=noise_key), medjax.sgd(16.0))
        result = medjax.simulate(
            lambda p, j: (p[j], {}), jnp.zeros(20), data, optimizer, num_steps=512, key=key, batch_size=4
        )
        return -result.params

    counts = np.asarray(run(5, 0.0, 5))
    for part in parts:
        assert counts[part].sum() == 512 * 4
        assert uniform(counts[part])
    np.testing.assert_array_equal(run(jax.random.key(5), 0.0, 6), counts)
    assert (np.asarray(run(6, 0.0, 5)) != counts).any()
    # Noise, of the same key or another, doesn't change what is drawn: 16 b √512/√4 = 0.02.
    for noise_key in (5, 6):
        noisy = np.asarray(run(5, 1e-4, noise_key))
        assert 0 < np.abs(noisy - counts).max() < 0.2
