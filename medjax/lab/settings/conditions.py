"""Settings that only some runs have."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from medjax.lab.settings import algorithms, named
from medjax.mixing import MIXINGS


@dataclass(frozen=True)
class Conditional:
    """A setting that only some runs have: its default there, and which runs those are.

    The default may look at all settings as they were given, and whether it applies at those that
    are always there or stand before it in the table.
    """

    default: Callable[[argparse.Namespace], Any]
    applies: Callable[[argparse.Namespace], bool]
    to: str


def _of_rule(option: str, default: Callable[[argparse.Namespace], Any]) -> Conditional:
    return Conditional(
        default,
        lambda a: option in algorithms.rule_options(a.rule),
        f"--rule {algorithms.rules_with(option)}",
    )


def _default_byzantine(given: argparse.Namespace) -> int:
    """As many as attack, or are declared; else a tenth of n, at least 1 where 2f < n allows."""
    n = given.participation or given.workers
    numbers = (given.byzantine, given.declared_byzantine, max(n // 10, min(1, (n - 1) // 2)))
    return next(number for number in numbers if number is not None)


def _takes_byzantine(a: argparse.Namespace) -> bool:
    """Whether the rule, or a mixing before it, is to be told of Byzantine workers."""
    mixings = named.links(a.mix) if a.mix else []
    factories = [MIXINGS[named.split(mixing)[0]] for mixing in mixings]
    options = [algorithms.rule_options(a.rule), *map(named.parameters, factories)]
    return any("num_byzantine" in names for names in options)


def _partitioned(name: str) -> Callable[[argparse.Namespace], bool]:
    return lambda a: a.partition == name


def _noisy(a: argparse.Namespace) -> bool:
    return algorithms.is_noisy(a.rule)


CONDITIONAL = {
    "b": Conditional(lambda a: 0.01, _noisy, "a noisy rule, such as noisy_sign"),
    "noise": Conditional(lambda a: "normal", _noisy, "a noisy rule, such as noisy_sign"),
    "df": Conditional(lambda a: 5.0, lambda a: a.noise == "student_t", "--noise student_t"),
    "byzantine": Conditional(
        _default_byzantine,
        lambda a: a.attack is not None,
        "--attack",
    ),
    "declared_byzantine": Conditional(
        _default_byzantine,
        _takes_byzantine,
        f"--rule {algorithms.rules_with('num_byzantine')}, or --mix nnm, arc",
    ),
    "local_lr": Conditional(lambda a: 0.1, lambda a: a.local_steps is not None, "--local-steps"),
    "error_feedback": Conditional(lambda a: "no", lambda a: a.compress is not None, "--compress"),
    "weights": _of_rule("weights", lambda a: "equal"),
    "momentum": Conditional(lambda a: 0.9, lambda a: a.server == "momentum", "--server momentum"),
    "zero": _of_rule("zero", lambda a: "zero"),
    "tie": _of_rule("tie", lambda a: "zero"),
    "worker_chunk": Conditional(
        lambda a: "auto",
        lambda a: algorithms.is_additive(a.rule),
        f"--rule {', '.join(filter(algorithms.is_additive, algorithms.RULE_NAMES))}",
    ),
    "classes_per_worker": Conditional(
        lambda a: 1, _partitioned("by_label"), "--partition by_label"
    ),
    "shards_per_worker": Conditional(lambda a: 2, _partitioned("shards"), "--partition shards"),
    "alpha": Conditional(lambda a: 0.1, _partitioned("dirichlet"), "--partition dirichlet"),
    "similarity": Conditional(
        lambda a: 0.5, _partitioned("gamma_similarity"), "--partition gamma_similarity"
    ),
    "exponent": Conditional(lambda a: 1.0, _partitioned("power_law"), "--partition power_law"),
}
"""By the setting's name, in the order in which their defaults are filled in."""
