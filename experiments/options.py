"""The command line's flags for the settings of a run; a sweep takes several values for each."""

import argparse
import math
from collections.abc import Callable
from typing import Any

from experiments import algorithms, cli
from experiments.data import SOURCES
from experiments.models import MODELS
from medjax.noise import NOISES
from medjax.partition import PARTITIONS

ADAPTIVE = "adaptive:"
"""How a noise scale begins that follows the gradients; the fraction is after the colon."""

THEORY = "theory"
"""For b and the step size: what the theorems say."""

AUTO = "auto"
"""For b: what `experiments.which_b` found to need no tuning."""

CONSTANT = "constant"
"""The schedule of a step size that stays the same."""


def add_options(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """The settings of a run, in groups.

    Args:
        parser: what to add them to.
        several: whether each takes several values, and none has a default.
    """

    def group(title: str) -> Callable[..., Any]:
        added = parser.add_argument_group(title)

        def add(flag: str, **settings: Any) -> None:
            if several:
                settings |= {"nargs": "+", "action": cli.Once, "default": None}
            added.add_argument(flag, **settings)

        return add

    add = group("algorithm")
    add(
        "--rule",
        metavar="NAME",
        default="noisy_sign",
        type=cli.one_of("rule", algorithms.RULE_NAMES),
        help="how the server aggregates; noisy_NAME adds b·ξ to every local gradient first: "
        f"{', '.join(algorithms.RULE_NAMES)} (default: noisy_sign)",
    )
    add(
        "--lr",
        metavar="δ",
        type=cli.number_or((THEORY,), 0, exclusive=True),
        help="step size, or theory, that of theorems 5 and 6 (default: 0.003 for votes, 0.1 for "
        "mean, 0.03 for others; theory with --b theory)",
    )
    add(
        "--lr-schedule",
        metavar="STEP:DIVISOR,...",
        type=_schedule,
        default=CONSTANT,
        help="divide the step size from each STEP on: 1000:2,3000:10,5000:20 is the paper's for "
        "CIFAR-10 (default: constant)",
    )
    add(
        "--momentum",
        metavar="M",
        type=cli.number(0, below=1),
        help="the server's: it moves by the sum of M^k times the aggregate of k steps ago "
        "(default: none)",
    )
    add(
        "--b",
        metavar="B",
        type=_noise_scale,
        help="standard deviation of the noise, or adaptive[:FRACTION], the paper's per-tensor "
        "scale, of fraction 0.1; auto, for votes, what needs no tuning (that fraction); or theory, "
        "that of theorems 5 and 6 (default: 0.01)",
    )
    add(
        "--noise",
        metavar="NAME",
        type=cli.one_of("noise", NOISES),
        help=f"distribution of the noise: {', '.join(NOISES)} (default: normal)",
    )
    add(
        "--df",
        metavar="DF",
        type=cli.number(2, exclusive=True),
        help="degrees of freedom of --noise student_t (default: 5)",
    )
    add(
        "--declared-byzantine",
        metavar="F",
        type=cli.integer(0),
        help="how many Byzantine workers trimmed_mean is to tolerate (default: a tenth of them)",
    )
    add(
        "--zero",
        type=cli.one_of("vote of a zero", ("zero", "plus", "random")),
        metavar="VOTE",
        help="what a worker with an exact 0 votes: zero, plus, random (default: zero)",
    )
    add(
        "--tie",
        type=cli.one_of("tied vote", ("zero", "random")),
        metavar="VOTE",
        help="what a tied vote gives: zero, random (default: zero)",
    )

    add = group("workers and data")
    add("--workers", metavar="N", type=cli.integer(1), default=10, help="number (default: 10)")
    add(
        "--dataset",
        metavar="NAME",
        default="mnist5k",
        help=f"{', '.join(SOURCES)}; DIR holds four IDX files (default: mnist5k)",
    )
    add(
        "--validation",
        metavar="FRACTION",
        type=cli.number(0, below=1),
        default=0.0,
        help="how much of the training data is held out of training, the same share of every "
        "class, to choose settings by (default: none; a tenth in a sweep)",
    )
    add(
        "--partition",
        metavar="NAME",
        default="by_label",
        type=cli.one_of("partition", PARTITIONS),
        help=f"who has which example: {', '.join(PARTITIONS)} (default: by_label)",
    )
    add(
        "--classes-per-worker",
        metavar="C",
        type=cli.integer(1),
        help="for by_label: each worker has examples of C classes only (default: 1)",
    )
    add(
        "--shards-per-worker",
        metavar="S",
        type=cli.integer(1),
        help="for shards: each worker has S runs of the examples sorted by label (default: 2)",
    )
    add(
        "--alpha",
        metavar="α",
        type=cli.number(0, exclusive=True),
        help="for dirichlet: small is heterogeneous (default: 0.1)",
    )

    add(
        "--examples-per-worker",
        metavar="N",
        type=cli.integer(1),
        help="of its examples each worker keeps N, drawn at random, and the others are nobody's "
        "(default: all)",
    )

    add = group("training")
    add(
        "--model",
        metavar="NAME",
        default="mlp",
        type=cli.one_of("model", MODELS),
        help=f"{', '.join(MODELS)} (default: mlp, the paper's 784-128-10)",
    )
    add("--steps", metavar="T", type=cli.integer(0), default=1000, help="(default: 1000)")
    add(
        "--batch-size",
        metavar="N|full",
        type=cli.integer_or("full", 1),
        default="full",
        help="examples that each worker draws at each step, or all it has (default: full)",
    )
    add(
        "--worker-chunk",
        metavar="N|auto",
        type=cli.integer_or("auto", 1),
        help="for rules that need only a sum over the workers: how many workers' gradients exist "
        "at a time; fewer take less memory; the plain mean and an adaptive noise have no use for "
        "it (default: auto, the fastest, about 64 MiB)",
    )
    add(
        "--eval-every",
        metavar="K",
        type=cli.integer(1),
        help="steps between measurements (default: a fortieth of the steps)",
    )
    add("--seed", metavar="SEED", type=cli.integer(0), default=0, help="(default: 0)")


def defaults() -> dict[str, Any]:
    """What the settings are where none is given."""
    parser = cli.Parser("", "")
    add_options(parser)
    return vars(parser.parse_args([]))


def add_out(parser: argparse.ArgumentParser) -> None:
    """Where the results go."""
    parser.add_argument_group("output").add_argument(
        "--out",
        metavar="DIR",
        help="a new folder for the results (default: one under runs/, named after the settings)",
    )


def _noise_scale(text: str) -> float | str:
    """A number, a word, or adaptive:FRACTION, the paper's 0.1 where none is given."""
    if text == ADAPTIVE.rstrip(":"):
        return f"{ADAPTIVE}0.1"
    if text.startswith(ADAPTIVE):
        cli.number(0)(text.removeprefix(ADAPTIVE))
        return text
    return cli.number_or((THEORY, AUTO), 0)(text)


def _schedule(text: str) -> str:
    """A type for argparse: constant, or STEP:DIVISOR pairs in the order of the steps."""
    if text == CONSTANT:
        return text
    try:
        pairs = schedule_pairs(text)
    except ValueError:
        pairs = {}
    steps = list(pairs)
    if not steps or sorted(steps) != steps or not all(0 < d < math.inf for d in pairs.values()):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not {CONSTANT}, nor steps in order, each with what to divide by from "
            "there on, such as 1000:2,3000:10"
        )
    return text


def schedule_pairs(text: str) -> dict[int, float]:
    """Step to divisor, of a schedule that isn't constant."""
    pairs = [pair.split(":") for pair in text.split(",")]
    return {int(step): float(divisor) for step, divisor in pairs}
