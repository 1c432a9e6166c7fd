"""Objectives, and what the simulator makes of them: averages, local gradients, mini-batches."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import medjax
from medjax.objectives import Stateful, classification, gradient_on
from medjax.training._gradients import local_gradients
from medjax.training._local import Local, sample_batches


def linear(params, inputs):
    """Logits of images of any shape, flattened."""
    return inputs.reshape(inputs.shape[0], -1) @ params["w"] + params["c"][None]


def problem(seed):
    """Params, images (40, 2, 3) and labels of 5 classes."""
    rng = np.random.default_rng(seed)
    params = {"w": rng.normal(size=(6, 5)), "c": rng.normal(size=5)}
    return params, rng.normal(size=(40, 2, 3)), rng.integers(0, 5, 40)


def float32(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def reference(logits, labels):
    """-log softmax(z)_y = log Σ_k exp(z_k - z_y), and whether y has the largest logit."""
    own = logits[np.arange(len(labels)), labels]
    losses = np.log(np.exp(logits - own[:, None]).sum(axis=1))
    return losses, (logits.argmax(axis=1) == labels).astype(float)


@pytest.mark.parametrize("seed", range(5))
def test_losses_and_accuracy_equal_numpys(seed):
    params, images, labels = problem(seed)
    batch = (jnp.asarray(images, jnp.float32), jnp.asarray(labels, jnp.int32))
    losses, metrics = jax.jit(classification(linear))(float32(params), batch)
    expected_losses, expected_accuracy = reference(linear(params, images), labels)
    assert 0 < expected_accuracy.mean() < 1
    assert set(metrics) == {"accuracy"}
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(metrics["accuracy"], expected_accuracy)


@pytest.mark.slow
def test_the_gradient_is_softmax_minus_one_hot():
    _, _, labels = problem(0)
    logits = np.random.default_rng(1).normal(size=(40, 5))
    objective = classification(lambda z, inputs: z)
    batch = (jnp.zeros(40), jnp.asarray(labels, jnp.int32))
    gradient = jax.grad(lambda z: objective(z, batch)[0].sum())(jnp.asarray(logits, jnp.float32))
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(gradient, softmax - np.eye(5)[labels], atol=1e-6)


@pytest.mark.slow
def test_values_by_hand():
    logits = jnp.array([[0.0, 0.0], [0.0, 0.0], [2.0, 0.0], [1e4, 0.0], [1e4, 0.0], [-1e4, 3e4]])
    labels = jnp.array([0, 1, 1, 0, 1, 1])
    losses, metrics = classification(lambda z, inputs: z)(logits, (jnp.zeros(6), labels))
    # log 2 twice; log(1 + e^2) = 2.126928; then exp overflows unless the largest logit is taken
    # out: log(1 + e^-10000) = 0, log(1 + e^10000) = 10000 and log(1 + e^-40000) = 0.
    np.testing.assert_allclose(losses, [np.log(2), np.log(2), 2.126928, 0, 1e4, 0], rtol=1e-6)
    # A tie goes to the first of the classes.
    np.testing.assert_array_equal(metrics["accuracy"], [1, 0, 0, 1, 0, 1])


@pytest.mark.slow
def test_a_single_class_costs_nothing():
    # softmax of one number is 1, and -log 1 = 0.
    objective = classification(lambda z, inputs: z)
    losses, metrics = objective(jnp.ones((3, 1)), (jnp.ones(3), jnp.zeros(3, jnp.int32)))
    np.testing.assert_array_equal(losses, np.zeros(3))
    np.testing.assert_array_equal(metrics["accuracy"], np.ones(3))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_half_precision_to_its_own_rounding(dtype):
    params, images, labels = problem(2)
    logits = jnp.asarray(linear(params, images), dtype)
    batch = (jnp.zeros(40), jnp.asarray(labels, jnp.int32))
    losses, metrics = classification(lambda z, inputs: z)(logits, batch)
    expected, accuracy = reference(np.asarray(logits, np.float64), labels)
    # The loss is a difference of numbers below 16, each rounded a few times to eps/2 of itself.
    tolerance = 4 * 16 * float(jnp.finfo(dtype).eps) / 2
    assert np.abs(expected).max() < 16
    assert np.abs(np.asarray(logits, np.float64)).max() < 16
    np.testing.assert_allclose(np.asarray(losses, np.float64), expected, atol=tolerance)
    np.testing.assert_array_equal(np.asarray(metrics["accuracy"], np.float64), accuracy)


# Softmax regression on workers of 1, 3, 7, 2 and 5 examples.
RNG = np.random.default_rng(0)
INPUTS, LABELS = RNG.normal(size=(18, 4)), RNG.integers(0, 3, 18)
PARTS = np.split(RNG.permutation(18), [1, 4, 11, 13])
PARAMS = {"w": RNG.normal(size=(4, 3)), "c": RNG.normal(size=3)}
softmax = classification(lambda p, x: x @ p["w"] + p["c"][None])


def unequal():
    return medjax.stack_workers((INPUTS.astype(np.float32), LABELS.astype(np.int32)), PARTS)


def start():
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), PARAMS)


def one_worker(params, x, y):
    """Average loss, accuracy and gradient over one worker's own examples, in float64."""
    logits = x @ params["w"] + params["c"][None]
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


# 7 rows each: 5 workers in one chunk; in chunks of 1; of 2, 2 and 1.
@pytest.mark.slow
@pytest.mark.parametrize("examples_per_chunk", [35, 7, 14])
def test_local_gradients_are_those_of_own_examples(examples_per_chunk, monkeypatch):
    monkeypatch.setattr("medjax.training._chunks._EXAMPLES_PER_CHUNK", examples_per_chunk)
    local = Local(unequal().examples, unequal().sizes)
    got = jax.jit(partial(local_gradients, softmax))(start(), local)
    assert got.states is None
    for tree, expected in zip(got[:2], all_workers(PARAMS), strict=True):
        assert set(tree) == set(expected)
        for name in tree:
            np.testing.assert_allclose(tree[name], expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_loop_is_distributed_sgd():
    optimizer = optax.chain(medjax.aggregate(medjax.rules.mean()), optax.sgd(0.5, momentum=0.9))
    run = partial(medjax.simulate, softmax, num_steps=20, eval_every=1, key=0)
    result = jax.jit(lambda params, data: run(params, data, optimizer))(start(), unequal())
    params, momentum = dict(PARAMS), {"w": 0.0, "c": 0.0}
    for t in range(21):
        metrics, gradients = all_workers(params)
        means = {k: g.mean(axis=0) for k, g in gradients.items()}
        gaps = [np.median(gradients[k], axis=0) - means[k] for k in PARAMS]
        expected = {f"train_{name}": values.mean() for name, values in metrics.items()}
        expected["grad_norm"] = math.sqrt(sum((g**2).sum() for g in means.values()))
        expected["median_mean_gap"] = math.sqrt(sum((g**2).sum() for g in gaps))
        assert set(result.metrics) == {*expected, "nonfinite_workers"}
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
    return statistic < stats.chi2.isf(1e-6, max(1, counts.size - 1))


@pytest.mark.slow
def test_batches_are_uniform_and_independent_draws_of_own_examples():
    parts, data = names()
    keys = jax.random.split(jax.random.key(0), 4000)
    batches = jax.vmap(lambda key: sample_batches(data, 4, key, jnp.arange(4)))(keys)
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


@pytest.mark.slow
def test_batches_depend_on_the_key_and_the_worker_alone():
    _, data = names()

    @partial(jax.jit, static_argnums=3)
    def draw(data, seed, first, count):
        batches = sample_batches(data, 6, jax.random.key(seed), first + jnp.arange(count))
        assert batches.sizes.shape == (count,)
        return batches.examples

    batches = draw(data, 3, 0, 4)
    np.testing.assert_array_equal(draw(data, 3, 0, 4), batches)
    assert (draw(data, 4, 0, 4) != batches).any(axis=1)[1:].all()  # the first has one example only
    np.testing.assert_array_equal(draw(jax.tree.map(lambda x: x[:3], data), 3, 0, 3), batches[:3])
    for first, count in ((1, 2), (3, 1)):
        part = draw(data, 3, first, count)
        np.testing.assert_array_equal(part, batches[first : first + count])


@pytest.mark.slow
def test_a_run_counts_what_it_draws():
    # The loss of example j is params_j: a gradient is how often each was drawn, over the batch
    # size 4, and the mean rule with n = 4 and δ = 16 adds up the counts, exactly.
    parts, data = names()

    @jax.jit
    def run(key, b, noise_key):
        optimizer = optax.chain(medjax.perturb(b, key=noise_key), medjax.mean_sgd(16.0))
        parts = medjax.simulation(lambda p, j: (p[j], {}), optimizer, batch_size=4)
        return -parts.advance(parts.init(jnp.zeros(20), key), data, 512).params

    counts = np.asarray(run(5, 0.0, 5))
    for part in parts:
        assert counts[part].sum() == 512 * 4
        assert uniform(counts[part])
    np.testing.assert_array_equal(run(jax.random.key(5), 0.0, 6), counts)
    assert (run(6, 0.0, 5) != counts).any()
    # Noise, of the same key or another, doesn't change what is drawn: 16 b √512/√4 = 0.02.
    for noise_key in (5, 6):
        assert 0 < np.abs(run(5, 1e-4, noise_key) - counts).max() < 0.2


@pytest.mark.slow
def test_gradient_on_a_batch_is_that_of_the_average_loss():
    params, x, labels = problem(3)
    objective = classification(linear)
    found = jax.jit(gradient_on(objective, (x, labels)))(params)
    expected = jax.grad(lambda p: objective(p, (x, labels))[0].mean())(params)
    for name in params:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)


def test_gradient_on_a_batch_with_local_steps_is_what_a_worker_sends():
    # ∇ = w - 2 at each step of length 0.1: w - 2 shrinks by 0.9, and moves by 0.1 of the sum.
    at = gradient_on(lambda w, x: ((w - x) ** 2 / 2, {}), jnp.array([1.0, 3.0]), 3, 0.1)
    np.testing.assert_allclose(at(jnp.array(7.0)), 5 * (1 - 0.9**3) / 0.1, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((Stateful(lambda *_: None, None), 0), TypeError, "objective must be one without a state"),
        ((lambda *_: None, 0, 3), ValueError, "local_steps and local_lr must be given together"),
        ((lambda *_: None, 0, 0, 0.1), ValueError, "local_steps must be at least 1, got 0"),
    ],
)
def test_impossible_gradient_on_a_batch(arguments, error, message):
    with pytest.raises(error, match=message):
        gradient_on(*arguments)
