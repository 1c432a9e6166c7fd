"""FLTrust: trust in directions like the server's own, and its length."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import objectives, rules

N, D = 6, 5
RNG = np.random.default_rng(0)
X = RNG.normal(0.5, 1, (N, D)).astype(np.float32)
OWN = RNG.normal(0.5, 1, D).astype(np.float32)
START = jnp.zeros(D)


def apply(own: Any, x: Any, params: Any = START) -> Any:
    rule = rules.fltrust(lambda params: own)
    out, state = jax.jit(lambda x: rule.update(x, rule.init(params), params))(x)
    assert jax.tree.leaves(state) == []
    return out


def reference(own: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The definition, in float64, one worker after the other."""
    own, x = own.astype(float), x.astype(float)
    total, trusted = np.zeros(len(own)), 0.0
    for row in x:
        cosine = row @ own / (np.linalg.norm(row) * np.linalg.norm(own))
        trust = max(0.0, cosine)
        total += trust * np.linalg.norm(own) / np.linalg.norm(row) * row
        trusted += trust
    return total / trusted


def test_equals_its_definition():
    assert np.any(X @ OWN < 0)  # who isn't trusted
    np.testing.assert_allclose(apply(OWN, X), reference(OWN, X), rtol=1e-5)


@pytest.mark.slow
def test_lengths_of_workers_do_not_matter():
    scales = 10.0 ** np.array([-12, -3, 0, 5, 18, 30])[:, None]
    np.testing.assert_allclose(
        apply(OWN, (X * scales).astype(np.float32)), apply(OWN, X), rtol=1e-4
    )


@pytest.mark.slow
def test_a_pytree_is_one_vector():
    def tree(x: Any) -> Any:
        return {"a": x[..., :2].astype(jnp.bfloat16), "b": x[..., 2:].reshape(*x.shape[:-1], 3, 1)}

    out = apply(tree(jnp.asarray(OWN)), tree(jnp.asarray(X)), tree(START))
    flat = jnp.concatenate([out["a"].astype(jnp.float32), out["b"][:, 0]])
    assert out["a"].dtype == jnp.bfloat16
    np.testing.assert_allclose(flat, reference(OWN, X), rtol=0.03)


@pytest.mark.parametrize("lie", [math.nan, math.inf, -math.inf, 0.0])
def test_what_has_no_direction_is_not_trusted(lie: float):
    x = X.copy()
    x[2] = lie
    np.testing.assert_allclose(apply(OWN, x), reference(OWN, np.delete(x, 2, axis=0)), rtol=1e-5)


@pytest.mark.parametrize("own", [0 * OWN, np.full(D, math.nan), -X[0]])
def test_nothing_is_trusted(own: np.ndarray):
    x = np.tile(X[:1], (N, 1))
    np.testing.assert_array_equal(apply(own.astype(np.float32), x), 0)


@pytest.mark.slow
def test_gradient_is_taken_at_the_parameters():
    optimum = jnp.array([3.0, -1.0])
    tx = medjax.aggregate(rules.fltrust(lambda w: w - optimum))
    w = jnp.array([1.0, 1.0])
    # Of one worker it is a step of the server's length in the worker's direction.
    out, _ = tx.update(jnp.array([[-10.0, 0.0]]), tx.init(w), w)
    np.testing.assert_allclose(out, [-math.sqrt(8), 0.0], rtol=1e-6)


@pytest.mark.slow
def test_trains_on_a_batch_of_the_servers_though_most_workers_lie():
    centre = np.array([3.0, -1.0, 2.0], np.float32)
    examples = centre + RNG.normal(0, 0.1, (10, 8, 3)).astype(np.float32)
    data = medjax.WorkerData(examples, np.full(10, 8))

    def objective(w: Any, x: Any) -> Any:
        return jnp.sum((w[None] - x) ** 2, axis=-1) / 2, {}

    own = objectives.gradient_on(objective, examples[0, :4])
    tx = optax.chain(
        medjax.attack(medjax.attacks.ipm(10.0), 7),
        medjax.aggregate(rules.fltrust(own)),
        medjax.servers.sgd(0.3),
    )
    result = medjax.simulate(objective, jnp.zeros(3), data, tx, num_steps=30, key=0)
    np.testing.assert_allclose(result.params, centre, atol=0.15)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rules.fltrust(jnp.zeros(2)), TypeError, "server_gradient must be built"),
        (lambda: rules.fltrust(lambda: 0), TypeError, "must take 1 argument"),
        (lambda: apply(OWN, X, None), ValueError, "fltrust needs the parameters: give them to upd"),
        (lambda: apply(OWN[:2], X), ValueError, r"must return shapes \(5,\), got \(2,\)"),
    ],
)
def test_mistakes(call: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()
