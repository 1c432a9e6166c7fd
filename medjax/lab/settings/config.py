"""A run's settings, with their defaults filled in."""

import argparse
from dataclasses import dataclass, fields, replace
from typing import Any

from medjax.lab.settings import algorithms
from medjax.lab.settings.conditions import CONDITIONAL
from medjax.lab.settings.options import AUTO, THEORY, defaults


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run depends on. None marks a setting that doesn't apply to it."""

    rule: str
    workers: int
    local_steps: int | None
    local_lr: float | None
    participation: int | None
    weights: str | None
    worker_momentum: float | str | None
    compress: str | None
    error_feedback: str | None
    attack: str | None
    byzantine: int | None
    mix: str | None
    declared_byzantine: int | None
    server: str
    momentum: float | None
    zero: str | None
    tie: str | None
    lr: float | str
    lr_schedule: str
    b: float | str | None
    noise: str | None
    df: float | None
    dataset: str
    validation: float
    partition: str
    classes_per_worker: int | None
    shards_per_worker: int | None
    alpha: float | None
    similarity: float | None
    exponent: float | None
    examples_per_worker: int | None
    copies: int
    model: str
    steps: int
    batch_size: int | str
    worker_chunk: int | str | None
    eval_every: int
    seed: int
    out: str | None


def resolve(arguments: argparse.Namespace, *, drop: bool = False) -> RunConfig:
    """The settings with their defaults filled in.

    Args:
        arguments: what is given; None, or nothing, where a setting isn't.
        drop: whether settings that don't apply to the run are left out, and no error.

    Raises:
        ValueError: if a setting is given that doesn't apply to the run.
    """
    values = {field.name: getattr(arguments, field.name, None) for field in fields(RunConfig)}
    given, a = argparse.Namespace(**values), argparse.Namespace(**values)
    if a.server is None:
        a.server = "sgd" if a.momentum is None else "momentum"
    for name, setting in CONDITIONAL.items():
        if not setting.applies(a):
            if getattr(a, name) is not None and not drop:
                flag = "--" + name.replace("_", "-")
                raise ValueError(f"{flag} {getattr(a, name)} goes only with {setting.to}")
            setattr(a, name, None)
        elif getattr(a, name) is None:
            setattr(a, name, setting.default(given))
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
    traced = ("b", "local_lr", "worker_momentum", "momentum")
    kinds = {name: _kind(getattr(config, name)) for name in traced}
    return replace(config, **kinds, lr=0.0, seed=0, out=None)


def _kind(setting: float | str | None) -> float | str | None:
    """A number may be traced, the word that may stand before it not."""
    if setting is None:
        return None
    return setting.partition(":")[0] if isinstance(setting, str) and ":" in setting else 0.0


def configure(*, drop: bool = False, **settings: Any) -> RunConfig:
    """A run's settings from some of them, the others as on an empty command line.

    Args:
        drop: whether settings that don't apply to the run are left out, and no error.
        settings: by name.

    Raises:
        ValueError: if a setting is given that doesn't apply to the run.
    """
    return resolve(argparse.Namespace(**defaults() | settings), drop=drop)
