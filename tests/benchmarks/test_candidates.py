"""Rules, noise and steps of the compared libraries: the same work, the same result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import steps, workload
from benchmarks.libraries import JAX, MEDJAX, NUMPY, TORCH, torch

X = np.random.default_rng(0).standard_normal((11, 7), np.float32)


@pytest.mark.parametrize("name", NUMPY.rules)
@pytest.mark.parametrize("n", [1, 2, 3, 10, 11])
def test_rules_agree(name, n):
    x, f = X[:n], (n - 1) // 4
    expected = MEDJAX.kernel(name, f)(jnp.asarray(x), None)
    others = [JAX.kernel(name, f)(jnp.asarray(x), None), NUMPY.kernel(name, f)(x, None)]
    if torch is not None and (name != "median" or n % 2):
        others.append(TORCH.kernel(name, f)(torch.from_numpy(x), None).numpy())
    for other in others:
        np.testing.assert_allclose(other, expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["normal", "noisy_sign"])
def test_noise_agrees(name):
    # A column of 0.0005 is above 0 after noise of scale 0.001 with probability Φ(0.5) = 0.69, so
    # that 1001 votes are for +1; what has no noise has variance 1 and mean 0.
    shape = (1001, 100)
    x = np.full(shape, 0.0005, np.float32)
    key = jax.random.key(0)
    drawn = [library.kernel(name, 0)(jnp.asarray(x), key) for library in (MEDJAX, JAX)]
    drawn.append(NUMPY.kernel(name, 0)(x, np.random.default_rng(0)))
    if torch is not None:
        drawn.append(TORCH.kernel(name, 0)(torch.from_numpy(x), None).numpy())
    for values in map(np.asarray, drawn):
        if name == "noisy_sign":
            np.testing.assert_array_equal(values, np.ones(100))
        else:
            assert values.shape == shape
            assert values.std() == pytest.approx(1, abs=0.02)
            assert values.mean() == pytest.approx(0, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("rule", JAX.rules)
def test_obvious_step_is_the_step_of_medjax(rule, monkeypatch):
    for module in (steps, workload):
        monkeypatch.setattr(module, "STEP_SIZE", 0.01)
    work = workload.build(10, 2, hidden=3)
    ours = workload.simulated(work, workload.optimizer(rule, 10))()(2)
    params, _ = steps.obvious_jax(work, rule, workload.num_byzantine(10))()(2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours.params, params)
    moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), params, work.params)
    assert max(jax.tree.leaves(moved)) > 1e-4
