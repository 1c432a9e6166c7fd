"""A run's settings: the command line, the defaults, and which setting goes with which."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import optax

import medjax
from experiments import algorithms
from experiments.options import ADAPTIVE, AUTO, CONSTANT, THEORY, defaults, schedule_pairs
from medjax.noise import NOISES, Noise
from medjax.partition import PARTITIONS, Partition


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run depends on. None marks a setting that doesn't apply to it."""

    rule: str
    workers: int
    declared_byzantine: int | None
    zero: str | None
    tie: str | None
    lr: float | str
    lr_schedule: str
    momentum: float | None
    b: float | str | None
    noise: str | None
    df: float | None
    dataset: str
    validation: float
    partition: str
    classes_per_worker: int | None
    shards_per_worker: int | None
    alpha: float | None
    examples_per_worker: int | None
    model: str
    steps: int
    batch_size: int | str
    worker_chunk: int | str | None
    eval_every: int
    seed: int
    out: str | None


@dataclass(frozen=True)
class _Conditional:
    """A setting that only some runs have: its default there, and which runs those are."""

    default: Callable[[argparse.Namespace], Any]
    applies: Callable[[argparse.Namespace], bool]
    to: str


def _of_rule(option: str, default: Callable[[argparse.Namespace], Any]) -> _Conditional:
    return _Conditional(
        default,
        lambda a: option in algorithms.rule_options(a.rule),
        f"--rule {algorithms.rules_with(option)}",
    )


def _default_byzantine(a: argparse.Namespace) -> int:
    """A tenth of the workers, at least 1 where 2f < n allows."""
    return max(a.workers // 10, min(1, (a.workers - 1) // 2))


def _partitioned(name: str) -> Callable[[argparse.Namespace], bool]:
    return lambda a: a.partition == name


def _noisy(a: argparse.Namespace) -> bool:
    return algorithms.is_noisy(a.rule)


_CONDITIONAL = {
    "b": _Conditional(lambda a: 0.01, _noisy, "a noisy rule, such as noisy_sign"),
    "noise": _Conditional(lambda a: "normal", _noisy, "a noisy rule, such as noisy_sign"),
    "df": _Conditional(lambda a: 5.0, lambda a: a.noise == "student_t", "--noise student_t"),
    "declared_byzantine": _of_rule("num_byzantine", _default_byzantine),
    "zero": _of_rule("zero", lambda a: "zero"),
    "tie": _of_rule("tie", lambda a: "zero"),
    "worker_chunk": _Conditional(
        lambda a: "auto",
        lambda a: algorithms.is_additive(a.rule),
        f"--rule {', '.join(filter(algorithms.is_additive, algorithms.RULE_NAMES))}",
    ),
    "classes_per_worker": _Conditional(
        lambda a: 1, _partitioned("by_label"), "--partition by_label"
    ),
    "shards_per_worker": _Conditional(lambda a: 2, _partitioned("shards"), "--partition shards"),
    "alpha": _Conditional(lambda a: 0.1, _partitioned("dirichlet"), "--partition dirichlet"),
}


def resolve(arguments: argparse.Namespace, *, drop: bool = False) -> RunConfig:
    """The settings with their defaults filled in.

    Args:
        arguments: what is given; None, or nothing, where a setting isn't.
        drop: whether settings that don't apply to the run are left out, and no error.

    Raises:
        ValueError: if a setting is given that doesn't apply to the run.
    """
    values = {field.name: getattr(arguments, field.name, None) for field in fields(RunConfig)}
    a = argparse.Namespace(**values)
    for name, setting in _CONDITIONAL.items():
        if not setting.applies(a):
            if getattr(a, name) is not None and not drop:
                flag = "--" + name.replace("_", "-")
                raise ValueError(f"{flag} {getattr(a, name)} goes only with {setting.to}")
            setattr(a, name, None)
        elif getattr(a, name) is None:
            setattr(a, name, setting.default(a))
    if a.b == AUTO:
        a.b = algorithms.auto_scale(a.rule)
        if a.b is None:
            names = ", ".join(filter(algorithms.auto_scale, algorithms.RULE_NAMES))
            raise ValueError(f"--b {AUTO} goes only with --rule {names}")
    if a.lr is None:
        a.lr = THEORY if a.b == THEORY else algorithms.default_step_size(a.rule)
    if THEORY in (a.b, a.lr) and algorithms.theorem(a.rule) is None:
        flag = "--b" if a.b == THEORY else "--lr"
        names = ", ".join(filter(algorithms.theorem, algorithms.RULE_NAMES))
        raise ValueError(f"{flag} {THEORY} goes only with --rule {names}")
    if a.eval_every is None:
        a.eval_every = max(1, a.steps // 40)
    return RunConfig(**vars(a))


def static(config: RunConfig) -> RunConfig:
    """The same for all runs that one compiled program can serve: numbers that may be traced are 0.

    Two runs differ in code or in shapes just where this differs.
    """
    b = config.b
    if b is not None:
        b = b.partition(":")[0] if isinstance(b, str) and ":" in b else 0.0
    momentum = None if config.momentum is None else 0.0
    return replace(config, lr=0.0, b=b, momentum=momentum, seed=0, out=None)


def noise_scale(config: RunConfig, value: Any) -> Any:
    """What `medjax.perturb` takes for b, given the number, perhaps traced, that there is in it."""
    adaptive = isinstance(config.b, str) and config.b.startswith(ADAPTIVE)
    return medjax.adaptive_scale(value) if adaptive else value


def step_size(config: RunConfig, lr: Any) -> optax.ScalarOrSchedule:
    """The step size, or its schedule, from that of the first step, perhaps traced."""
    if config.lr_schedule == CONSTANT:
        return lr
    pairs = schedule_pairs(config.lr_schedule)
    divisors = list(pairs.values())
    # optax's factors multiply up, our divisors are all of the first step's.
    factors = [old / new for old, new in zip([1.0, *divisors], divisors, strict=False)]
    scale = optax.piecewise_constant_schedule(1.0, dict(zip(pairs, factors, strict=True)))
    return lambda step: lr * scale(step)


def noise_distribution(config: RunConfig) -> Noise | None:
    """The noise's distribution; None if the rule isn't noisy."""
    if config.noise is None:
        return None
    return NOISES[config.noise](**({} if config.df is None else {"df": config.df}))


def partitioner(config: RunConfig) -> Partition:
    """The split of the examples among the workers."""
    settings = ("classes_per_worker", "shards_per_worker", "alpha")
    given = {name: getattr(config, name) for name in settings}
    return PARTITIONS[config.partition](**{k: v for k, v in given.items() if v is not None})


def configure(**settings: Any) -> RunConfig:
    """A run's settings from some of them, the others as on an empty command line.

    Raises:
        ValueError: if a setting is given that doesn't apply to the run.
    """
    return resolve(argparse.Namespace(**defaults() | settings))
