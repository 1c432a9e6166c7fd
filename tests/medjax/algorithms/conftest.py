"""Helpers of the decentralised algorithms' tests, as fixtures because test files can't import."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope="session")
def exchanged() -> Any:
    def exchanged(algorithm: Any, x: Any, num_steps: int = 1) -> np.ndarray:
        """The nodes' vectors after some exchanges alone, of gradients 0."""
        x = jnp.asarray(x, jnp.float32)

        def step(_: Any, carry: Any) -> Any:
            x, state = carry
            moves, state = algorithm.optimizer.update(jnp.zeros_like(x), state, x)
            return x + moves, state

        @jax.jit
        def run(x: Any) -> Any:
            start = x, algorithm.optimizer.init(x[0])
            if num_steps == 1:
                return step(0, start)[0]
            return jax.lax.fori_loop(0, num_steps, step, start)[0]

        return np.asarray(run(x))

    return exchanged


@pytest.fixture(scope="session")
def spread_of() -> Any:
    def spread_of(x: np.ndarray) -> float:
        return float(np.sqrt(np.sum((x - x.mean(axis=0)) ** 2) / len(x)))

    return spread_of
