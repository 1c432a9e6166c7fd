import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.objectives import classification


def linear(params, inputs):
    """Logits of images of any shape, flattened."""
    return inputs.reshape(inputs.shape[0], -1) @ params["w"] + params["c"]


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
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_losses_and_accuracy_equal_numpys(seed, wrap):
    params, images, labels = problem(seed)
    batch = (jnp.asarray(images, jnp.float32), jnp.asarray(labels, jnp.int32))
    losses, metrics = wrap(classification(linear))(float32(params), batch)
    expected_losses, expected_accuracy = reference(linear(params, images), labels)
    assert 0 < expected_accuracy.mean() < 1
    assert set(metrics) == {"accuracy"}
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(metrics["accuracy"], expected_accuracy)


def test_the_gradient_is_softmax_minus_one_hot():
    _, _, labels = problem(0)
    logits = np.random.default_rng(1).normal(size=(40, 5))
    objective = classification(lambda z, inputs: z)
    batch = (jnp.zeros(40), jnp.asarray(labels, jnp.int32))
    gradient = jax.grad(lambda z: objective(z, batch)[0].sum())(jnp.asarray(logits, jnp.float32))
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(gradient, softmax - np.eye(5)[labels], atol=1e-6)


def test_values_by_hand():
    logits = jnp.array([[0.0, 0.0], [0.0, 0.0], [2.0, 0.0], [1e4, 0.0], [1e4, 0.0], [-1e4, 3e4]])
    labels = jnp.array([0, 1, 1, 0, 1, 1])
    losses, metrics = classification(lambda z, inputs: z)(logits, (jnp.zeros(6), labels))
    # log 2 twice; log(1 + e^2) = 2.126928; then exp overflows unless the largest logit is taken
    # out: log(1 + e^-10000) = 0, log(1 + e^10000) = 10000 and log(1 + e^-40000) = 0.
    np.testing.assert_allclose(losses, [np.log(2), np.log(2), 2.126928, 0, 1e4, 0], rtol=1e-6)
    # A tie goes to the first of the classes.
    np.testing.assert_array_equal(metrics["accuracy"], [1, 0, 0, 1, 0, 1])


def test_a_single_class_costs_nothing():
    # softmax of one number is 1, and -log 1 = 0.
    objective = classification(lambda z, inputs: z)
    losses, metrics = objective(jnp.ones((3, 1)), (jnp.ones(3), jnp.zeros(3, jnp.int32)))
    np.testing.assert_array_equal(losses, np.zeros(3))
    np.testing.assert_array_equal(metrics["accuracy"], np.ones(3))


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
