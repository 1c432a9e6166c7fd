"""A run's settings: the command line, the defaults, and which setting goes with which."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import medjax
from experiments import algorithms, cli
from experiments.data import SOURCES
from experiments.models import MODELS
from medjax.noise import NOISES, Noise
from medjax.partition import PARTITIONS, Partition

_ADAPTIVE = "adaptive:"


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run depends on. None marks a setting that doesn't apply to it."""

    rule: str
    workers: int
    declared_byzantine: int | None
    zero: str | None
    tie: str | None
    lr: float
    b: float | str | None
    noise: str | None
    df: float | None
    dataset: str
    partition: str
    classes_per_worker: int | None
    shards_per_worker: int | None
    alpha: float | None
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


def add_options(parser: argparse.ArgumentParser) -> None:
    """The settings of a run, in groups."""
    group = parser.add_argument_group("algorithm")
    group.add_argument(
        "--rule",
        metavar="NAME",
        default="noisy_sign",
        type=cli.one_of("rule", algorithms.RULE_NAMES),
        help="how the server aggregates; noisy_NAME adds b·ξ to every local gradient first: "
        f"{', '.join(algorithms.RULE_NAMES)} (default: noisy_sign)",
    )
    group.add_argument(
        "--lr",
        metavar="δ",
        type=cli.number(0, exclusive=True),
        help="step size (default: 0.003 for votes, 0.1 for mean, 0.03 for others)",
    )
    group.add_argument(
        "--b",
        metavar="B",
        type=_noise_scale,
        help="standard deviation of the noise, or adaptive[:FRACTION], the paper's per-tensor "
        "scale, of fraction 0.1 (default: 0.01)",
    )
    group.add_argument(
        "--noise",
        metavar="NAME",
        type=cli.one_of("noise", NOISES),
        help=f"distribution of the noise: {', '.join(NOISES)} (default: normal)",
    )
    group.add_argument(
        "--df",
        metavar="DF",
        type=cli.number(2, exclusive=True),
        help="degrees of freedom of --noise student_t (default: 5)",
    )
    group.add_argument(
        "--declared-byzantine",
        metavar="F",
        type=cli.integer(0),
        help="how many Byzantine workers trimmed_mean is to tolerate (default: a tenth of them)",
    )
    group.add_argument(
        "--zero",
        type=cli.one_of("vote of a zero", ("zero", "plus", "random")),
        metavar="VOTE",
        help="what a worker with an exact 0 votes: zero, plus, random (default: zero)",
    )
    group.add_argument(
        "--tie",
        type=cli.one_of("tied vote", ("zero", "random")),
        metavar="VOTE",
        help="what a tied vote gives: zero, random (default: zero)",
    )

    group = parser.add_argument_group("workers and data")
    group.add_argument(
        "--workers", metavar="N", type=cli.integer(1), default=10, help="number (default: 10)"
    )
    group.add_argument(
        "--dataset",
        metavar="NAME",
        default="mnist5k",
        help=f"{', '.join(SOURCES)}; DIR holds four IDX files (default: mnist5k)",
    )
    group.add_argument(
        "--partition",
        metavar="NAME",
        default="by_label",
        type=cli.one_of("partition", PARTITIONS),
        help=f"who has which example: {', '.join(PARTITIONS)} (default: by_label)",
    )
    group.add_argument(
        "--classes-per-worker",
        metavar="C",
        type=cli.integer(1),
        help="for by_label: each worker has examples of C classes only (default: 1)",
    )
    group.add_argument(
        "--shards-per-worker",
        metavar="S",
        type=cli.integer(1),
        help="for shards: each worker has S runs of the examples sorted by label (default: 2)",
    )
    group.add_argument(
        "--alpha",
        metavar="α",
        type=cli.number(0, exclusive=True),
        help="for dirichlet: small is heterogeneous (default: 0.1)",
    )

    group = parser.add_argument_group("training")
    group.add_argument(
        "--model",
        metavar="NAME",
        default="mlp",
        type=cli.one_of("model", MODELS),
        help=f"{', '.join(MODELS)} (default: mlp, the paper's 784-128-10)",
    )
    group.add_argument(
        "--steps", metavar="T", type=cli.integer(0), default=1000, help="(default: 1000)"
    )
    group.add_argument(
        "--batch-size",
        metavar="N|full",
        type=cli.integer_or("full", 1),
        default="full",
        help="examples that each worker draws at each step, or all it has (default: full)",
    )
    group.add_argument(
        "--worker-chunk",
        metavar="N|auto",
        type=cli.integer_or("auto", 1),
        help="for rules that need only a sum over the workers: how many workers' gradients exist "
        "at a time; fewer take less memory; the plain mean and an adaptive noise have no use for "
        "it (default: auto, the fastest, about 64 MiB)",
    )
    group.add_argument(
        "--eval-every",
        metavar="K",
        type=cli.integer(1),
        help="steps between measurements (default: a fortieth of the steps)",
    )
    group.add_argument(
        "--seed", metavar="SEED", type=cli.integer(0), default=0, help="(default: 0)"
    )

    group = parser.add_argument_group("output")
    group.add_argument(
        "--out",
        metavar="DIR",
        help="a new folder for the results (default: one under runs/, named after the settings)",
    )


def resolve(arguments: argparse.Namespace) -> RunConfig:
    """The settings with their defaults filled in.

    Raises:
        ValueError: if a setting is given that doesn't apply to the run.
    """
    for name, setting in _CONDITIONAL.items():
        if not setting.applies(arguments):
            if getattr(arguments, name) is not None:
                flag = "--" + name.replace("_", "-")
                raise ValueError(f"{flag} {getattr(arguments, name)} goes only with {setting.to}")
        elif getattr(arguments, name) is None:
            setattr(arguments, name, setting.default(arguments))
    if arguments.lr is None:
        arguments.lr = algorithms.default_step_size(arguments.rule)
    if arguments.eval_every is None:
        arguments.eval_every = max(1, arguments.steps // 40)
    values: dict[str, Any] = {f.name: getattr(arguments, f.name) for f in fields(RunConfig)}
    return RunConfig(**values)


def noise_scale(config: RunConfig) -> float | medjax.AdaptiveScale | None:
    """What `medjax.perturb` takes for b; None if the rule isn't noisy."""
    if not isinstance(config.b, str):
        return config.b
    return medjax.adaptive_scale(float(config.b.removeprefix(_ADAPTIVE)))


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


def _noise_scale(text: str) -> float | str:
    """A number, or adaptive:FRACTION, the paper's 0.1 where none is given."""
    if text == _ADAPTIVE.rstrip(":"):
        return f"{_ADAPTIVE}0.1"
    if text.startswith(_ADAPTIVE):
        cli.number(0)(text.removeprefix(_ADAPTIVE))
        return text
    return cli.number(0)(text)
