"""From a run's settings to what medjax takes for them; the numbers may be traced."""

from typing import Any

import optax

import medjax
from medjax.lab.settings import algorithms
from medjax.lab.settings.config import RunConfig
from medjax.lab.settings.options import ADAPTIVE, CONSTANT, UNDAMPED, read_schedule
from medjax.noise import NOISES, Noise
from medjax.partition import PARTITIONS, Partition


def is_adaptive(config: RunConfig) -> bool:
    """Whether the noise's scale follows the gradients."""
    return isinstance(config.b, str) and config.b.startswith(ADAPTIVE)


def noise_scale(config: RunConfig, value: Any) -> Any:
    """What `medjax.perturb` takes for b, given the number, perhaps traced, that there is in it."""
    return medjax.adaptive_scale(value) if is_adaptive(config) else value


def step_size(config: RunConfig, lr: Any) -> optax.ScalarOrSchedule:
    """The step size, or its schedule, from its full length, perhaps traced.

    A warm-up is linear, as that of Goyal et al. (2017): of length K, it takes (t + 1)/K at step t.
    """
    if config.lr_schedule == CONSTANT:
        return lr
    warmup, divisors, cosine = read_schedule(config.lr_schedule)
    # optax's factors multiply up, our divisors are all of the full length.
    numbers = list(divisors.values())
    factors = [old / new for old, new in zip([1.0, *numbers], numbers, strict=False)]
    scale = optax.piecewise_constant_schedule(1.0, dict(zip(divisors, factors, strict=True)))
    if cosine:
        scale = optax.cosine_decay_schedule(1.0, max(1, config.steps - warmup))
        scale = optax.join_schedules([optax.constant_schedule(1.0), scale], [warmup])
    # With K - 1 transitions for K steps, none is lost at 0.
    rise = optax.linear_schedule(1 / max(1, warmup), 1.0, warmup - 1)
    return lambda step: lr * rise(step) * scale(step)


def noise_distribution(config: RunConfig) -> Noise | None:
    """The noise's distribution; None if the rule isn't noisy."""
    if config.noise is None:
        return None
    return NOISES[config.noise](**({} if config.df is None else {"df": config.df}))


def partitioner(config: RunConfig) -> Partition:
    """The split of the examples among the workers."""
    settings = ("classes_per_worker", "shards_per_worker", "alpha", "similarity", "exponent")
    given = {name: getattr(config, name) for name in settings}
    return PARTITIONS[config.partition](**{k: v for k, v in given.items() if v is not None})


def worker_momentum(config: RunConfig, beta: Any) -> optax.GradientTransformation | None:
    """The workers' momentum, given the number in it; None if they have none."""
    if config.worker_momentum is None:
        return None
    undamped = isinstance(config.worker_momentum, str)
    return medjax.worker_momentum(beta, config.workers, damped=not undamped)


def number_in(setting: float | str | None) -> float | None:
    """The number of a setting that may have a word before it, as adaptive:0.1 has."""
    if isinstance(setting, str):
        return float(setting.removeprefix(ADAPTIVE).removeprefix(UNDAMPED))
    return setting


def server(config: RunConfig, lr: Any, momentum: Any) -> optax.GradientTransformation:
    """The server's optimizer, given the step size and its momentum, if it has one."""
    return algorithms.build_server(config.server, step_size(config, lr), momentum=momentum)
