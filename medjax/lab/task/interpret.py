"""From a run's settings to what medjax takes for them; the numbers may be traced."""

from typing import Any, NamedTuple

import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Shaped

import medjax
from medjax._engine.precision import as_optax_promotes
from medjax.lab.settings import rules
from medjax.lab.settings.config import Settings
from medjax.lab.settings.values import THEORY, Adaptive, Schedule, Undamped
from medjax.noise import Noise
from medjax.noise._distributions import as_noise
from medjax.partition import PARTITIONS, Partition

_OF_PARTITIONS = ("classes_per_worker", "shards_per_worker", "alpha", "similarity", "exponent")


class Hyperparameters(NamedTuple):
    """The inputs that the runs of a program may differ in: numbers, or arrays of them under vmap.

    Attributes:
        lr: the step size.
        b: the scale of the noise, or the fraction of an adaptive one; None without noise.
        local_lr: the length of the workers' own steps; None if they take none.
        worker_momentum: the workers'; None without.
        momentum: the server's; None without.
        seed: of the model, the noise and the mini-batches.
        server: the server's own inputs and labels, (m, ...); None if the rule has no use for them.
    """

    lr: float | Float[Array, "..."]
    b: float | Float[Array, "..."] | None
    local_lr: float | Float[Array, "..."] | None
    worker_momentum: float | Float[Array, "..."] | None
    momentum: float | Float[Array, "..."] | None
    seed: int | Int[Array, "..."]
    server: tuple[Shaped[Array, "..."], Shaped[Array, "..."]] | None = None


def hyperparameters(config: Settings, num_params: int) -> Hyperparameters:
    """Return a run's numbers, the theorems' where it asks for them."""
    lr, b, beta = config.lr, config.b, config.worker_momentum
    theorem = rules.theorem(config.rule)
    if theorem is not None and config.algorithm is None:
        rates = theorem(max(1, config.steps), num_params)
        lr = rates.lr if lr == THEORY else lr
        b = rates.b if b == THEORY else b
    b = b.fraction if isinstance(b, Adaptive) else b
    return Hyperparameters(
        float(lr),
        None if b is None else float(b),
        config.local_lr,
        beta.beta if isinstance(beta, Undamped) else beta,
        config.momentum,
        config.seed,
    )


def noise_scale(config: Settings, value: Any) -> Any:
    """Return what `medjax.perturb` takes for b, given its number, perhaps traced."""
    return medjax.adaptive_scale(value) if isinstance(config.b, Adaptive) else value


def step_size(config: Settings, lr: Any) -> optax.ScalarOrSchedule:
    """Return the step size, or its schedule, from its full length, perhaps traced.

    A warm-up is linear, as that of Goyal et al. (2017): of length K, it takes (t + 1)/K at step t.
    """
    schedule = config.lr_schedule
    if schedule == Schedule():
        return lr
    warmup, divisors = schedule.warmup, dict(schedule.divisors)
    # optax's factors multiply up, our divisors are all of the full length.
    numbers = list(divisors.values())
    factors = [old / new for old, new in zip([1.0, *numbers], numbers, strict=False)]
    scale = optax.piecewise_constant_schedule(1.0, dict(zip(divisors, factors, strict=True)))
    if schedule.cosine:
        scale = optax.cosine_decay_schedule(1.0, max(1, config.steps - warmup))
        scale = optax.join_schedules([optax.constant_schedule(1.0), scale], [warmup])
    # With K - 1 transitions for K steps, none is lost at 0.
    rise = optax.linear_schedule(1 / max(1, warmup), 1.0, warmup - 1)

    def length(step: ArrayLike) -> Array:
        with as_optax_promotes():
            return lr * rise(step) * scale(step)

    return length


def noise_distribution(config: Settings) -> Noise | None:
    """Return the noise's distribution; None if the rule isn't noisy."""
    return None if config.noise is None else as_noise(config.noise.build(df=config.df))


def partitioner(config: Settings) -> Partition:
    """Return the function that splits the examples among the workers."""
    given = {name: getattr(config, name) for name in _OF_PARTITIONS}
    return PARTITIONS[config.partition](**{k: v for k, v in given.items() if v is not None})


def worker_momentum(config: Settings, beta: Any) -> optax.GradientTransformation | None:
    """Return the workers' momentum, given its number; None if they have none."""
    if config.worker_momentum is None:
        return None
    damped = not isinstance(config.worker_momentum, Undamped)
    return medjax.worker_momentum(beta, config.workers, damped=damped)


def server(config: Settings, lr: Any, momentum: Any) -> optax.GradientTransformation:
    """Return the server's optimizer, given the step size and its momentum, if it has one.

    Raises:
        ValueError: if it can't have its settings, or isn't an optimizer.
    """
    assert config.server is not None
    built = config.server.build(learning_rate=step_size(config, lr), momentum=momentum)
    if not isinstance(built, optax.GradientTransformation):
        raise ValueError(
            f"--server {config.server} makes {type(built).__name__}; valid: a factory of an optax "
            "transformation, such as optax:adamw"
        )
    return built
