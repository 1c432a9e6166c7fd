"""language_modelling: the loss of a window is the mean over its places."""

import jax.numpy as jnp
import numpy as np
import pytest

from medjax.objectives import language_modelling


@pytest.mark.slow
def test_uniform_logits_cost_log_v() -> None:
    tokens = jnp.zeros((3, 4), int)
    losses, _ = language_modelling(lambda w, x: w[x])(jnp.zeros((7, 7)), (tokens, tokens))
    np.testing.assert_allclose(losses, np.full(3, np.log(7)), rtol=1e-6)


@pytest.mark.slow
def test_numpy_reference() -> None:
    rng = np.random.default_rng(0)
    w, x, y = rng.normal(size=(5, 5)), rng.integers(0, 5, (3, 4)), rng.integers(0, 5, (3, 4))
    logits = w[x]
    chosen = np.take_along_axis(logits, y[..., None], -1)[..., 0]
    expected = (np.log(np.exp(logits).sum(-1)) - chosen).mean(-1)
    losses, metrics = language_modelling(lambda w, x: w[x])(
        jnp.asarray(w, jnp.float32), (jnp.asarray(x), jnp.asarray(y))
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], (logits.argmax(-1) == y).mean(-1))
