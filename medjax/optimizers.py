"""The paper's algorithms by name, each a short chain of the library's stages."""

from typing import Literal

import optax

from medjax import rules
from medjax._engine import checks
from medjax._engine.random import Seed
from medjax.noise import Noise, NoiseScale, Sample, noisy_sign, perturb
from medjax.rules import aggregate


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
    key: Seed | None = None,
) -> optax.GradientTransformationExtraArgs:
    """signSGD with majority vote: x ← x - δ · sign(Σ_i sign(g_i)) (Bernstein et al., 2018).

    Algorithm 1 of Chen et al. (2020): without noise it can stall where the median of the local
    gradients is 0 while their mean is not.

    Args:
        learning_rate: δ, a number (perhaps traced) or an optax schedule.
        zero: the vote of a worker with an exact 0, as in `rules.majority_vote`.
        tie: the result of a tied vote, as in `rules.majority_vote`.
        key: a JAX key or an integer seed, needed where an option is "random".

    Returns:
        A transform of stacked gradients, leaves (n, *shape), to updates of the parameters' shapes.
    """
    return _server(rules.majority_vote(zero=zero, tie=tie), learning_rate, key)


def noisy_sign_sgd(
    learning_rate: optax.ScalarOrSchedule,
    b: NoiseScale,
    noise: Noise | Sample | None = None,
    *,
    zero: Literal["zero", "plus", "random"] = "zero",
    tie: Literal["zero", "random"] = "zero",
    exact: bool = False,
    key: Seed,
) -> optax.GradientTransformationExtraArgs:
    """Noisy signSGD: x ← x - δ · sign(Σ_i sign(g_i + b ξ_i)); algorithm 3 of Chen et al. (2020).

    Args:
        learning_rate: δ, a number (perhaps traced) or an optax schedule.
        b: the standard deviation of the noise, as in `perturb`.
        noise: the distribution of ξ; standard normal by default.
        zero: the vote of a worker with an exact 0, as in `rules.majority_vote`.
        tie: the result of a tied vote, as in `rules.majority_vote`.
        exact: whether to draw the noise and add it (`perturb`), instead of drawing the sign of the
            sum directly (`noisy_sign`), which is the same in distribution and faster.
        key: a JAX key or an integer seed.

    Returns:
        A transform of stacked gradients, leaves (n, *shape), to updates of the parameters' shapes.
    """
    stage = perturb if exact else noisy_sign
    vote = sign_sgd(learning_rate, zero=zero, tie=tie, key=key)
    return optax.chain(stage(b, noise, key=key), vote)


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
    noise: Noise | Sample | None = None,
    *,
    key: Seed,
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
    return optax.chain(perturb(b, noise, key=key), median_sgd(learning_rate))


def _server(
    rule: rules.Rule, learning_rate: optax.ScalarOrSchedule, key: Seed | None = None
) -> optax.GradientTransformationExtraArgs:
    checks.step_size("learning_rate", learning_rate)
    return optax.chain(aggregate(rule, key), optax.scale_by_learning_rate(learning_rate))
