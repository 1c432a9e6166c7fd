"""The paper's algorithms by name, each a chain that a user could have written."""

from typing import Literal

import optax

from medjax import rules
from medjax._engine import checks
from medjax.noise._noisy_sign import noisy_sign
from medjax.noise._perturb import NoiseScale, perturb
from medjax._engine.random import Seed
from medjax.noise import Noise


def mean_sgd(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    """Distributed SGD: x ← x - δ · (1/n) Σ_i g_i.

    Args:
        learning_rate: δ, a number (perhaps traced) or an optax schedule.

    Returns:
        A transform of stacked gradients, leaves (n, *shape), to updates of the parameters' shapes.
    """
    return _server(rules.mean(), learning_rate)


def sign_sgd(
    learning_rate: optax.ScalarOrSchedule,
    *,
    zero: Literal["zero", "plus", "random"] = "zero",
    tie: Literal["zero", "random"] = "zero",
    key: Seed = 0,
) -> optax.GradientTransformationExtraArgs:
    """signSGD with majority vote: x ← x - δ · sign(Σ_i sign(g_i)) (Bernstein et al., 2018).

    Algorithm 1 of Chen et al. (2020): without noise it can stall where the median of the local
    gradients is 0 while their mean is not.

    Args:
        learning_rate: δ, a number (perhaps traced) or an optax schedule.
        zero: what a worker with an exact 0 votes, as in `rules.majority_vote`.
        tie: what a tied vote gives, as in `rules.majority_vote`.
        key: a JAX key or an integer seed, used where an option is "random".

    Returns:
        A transform of stacked gradients, leaves (n, *shape), to updates of the parameters' shapes.
    """
    return _server(rules.majority_vote(zero=zero, tie=tie), learning_rate, key)


def noisy_sign_sgd(
    learning_rate: optax.ScalarOrSchedule,
    b: NoiseScale,
    noise: Noise | None = None,
    *,
    zero: Literal["zero", "plus", "random"] = "zero",
    tie: Literal["zero", "random"] = "zero",
    exact: bool = False,
    key: Seed = 0,
) -> optax.GradientTransformationExtraArgs:
    """Noisy signSGD: x ← x - δ · sign(Σ_i sign(g_i + b ξ_i)); algorithm 3 of Chen et al. (2020).

    Args:
        learning_rate: δ, a number (perhaps traced) or an optax schedule.
        b: the standard deviation of the noise, as in `perturb`.
        noise: the distribution of ξ; standard normal by default.
        zero: what a worker with an exact 0 votes, as in `rules.majority_vote`.
        tie: what a tied vote gives, as in `rules.majority_vote`.
        exact: draw the noise and add it (`perturb`), instead of drawing the sign of the sum itself
            (`noisy_sign`), which is the same in distribution and faster.
        key: a JAX key or an integer seed.

    Returns:
        A transform of stacked gradients, leaves (n, *shape), to updates of the parameters' shapes.
    """
    worker = perturb if exact else noisy_sign
    return optax.chain(worker(b, noise, key), sign_sgd(learning_rate, zero=zero, tie=tie, key=key))


def median_sgd(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    """medianSGD: x ← x - δ · median_i(g_i), coordinate-wise (Yin et al., 2018).

    Algorithm 2 of Chen et al. (2020): without noise it can stall where the median of the local
    gradients is 0 while their mean is not.

    Args:
        learning_rate: δ, a number (perhaps traced) or an optax schedule.

    Returns:
        A transform of stacked gradients, leaves (n, *shape), to updates of the parameters' shapes.
    """
    return _server(rules.median(), learning_rate)


def noisy_median_sgd(
    learning_rate: optax.ScalarOrSchedule,
    b: NoiseScale,
    noise: Noise | None = None,
    *,
    key: Seed = 0,
) -> optax.GradientTransformationExtraArgs:
    """Noisy medianSGD: x ← x - δ · median_i(g_i + b ξ_i); algorithm 4 of Chen et al. (2020).

    Args:
        learning_rate: δ, a number (perhaps traced) or an optax schedule.
        b: the standard deviation of the noise, as in `perturb`.
        noise: the distribution of ξ; standard normal by default.
        key: a JAX key or an integer seed.

    Returns:
        A transform of stacked gradients, leaves (n, *shape), to updates of the parameters' shapes.
    """
    return optax.chain(perturb(b, noise, key), median_sgd(learning_rate))


def _server(
    rule: rules.Rule, learning_rate: optax.ScalarOrSchedule, key: Seed | None = None
) -> optax.GradientTransformationExtraArgs:
    checks.step_size("learning_rate", learning_rate)
    return optax.chain(aggregate(rule, key), optax.scale_by_learning_rate(learning_rate))
