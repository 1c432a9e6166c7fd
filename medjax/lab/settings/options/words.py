"""Words that stand for a number on the command line, and how a schedule is written."""

import argparse
import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from medjax.lab.settings import cli

Add: TypeAlias = Callable[..., Any]
"""argparse's `add_argument` of one group."""

ADAPTIVE = "adaptive:"
"""How a noise scale begins that follows the gradients; the fraction is after the colon."""

THEORY = "theory"
"""For b and the step size: what the theorems say."""

AUTO = "auto"
"""For b: what `experiments.which_b` found to need no tuning."""

UNDAMPED = "undamped:"
"""How a worker's momentum begins that doesn't scale its gradient by 1 - β, which is after it."""

CONSTANT = "constant"
"""The schedule of a step size that stays the same."""


WARMUP = "warmup:"
"""How a schedule begins that first rises; the number of steps is after the colon."""

COSINE = "cosine"
"""The schedule that falls to 0 by a half wave."""


class Schedule(NamedTuple):
    """How a step size changes; constant if nothing is set.

    Attributes:
        warmup: over how many steps it rises to its full length at first.
        divisors: by step, what it is divided by from there on.
        cosine: whether it falls to 0 from the warm-up to the last step.
    """

    warmup: int = 0
    divisors: Mapping[int, float] = MappingProxyType({})
    cosine: bool = False


def read_schedule(text: str) -> Schedule:
    """A schedule as it is written: `constant`, or `warmup:K`, then `cosine` or STEP:DIVISOR pairs.

    Raises:
        argparse.ArgumentTypeError: if it isn't one.
    """
    if text == CONSTANT:
        return Schedule()
    first, *rest = text.split(",")
    try:
        if first.startswith(WARMUP):
            warmup = cli.integer(1)(first.removeprefix(WARMUP))
        else:
            warmup, rest = 0, [first, *rest]
        if rest == [COSINE]:
            return Schedule(warmup, cosine=True)
        pairs = [pair.partition(":") for pair in rest]
        steps = [cli.integer(0)(step) for step, _, _ in pairs]
        divisors = [cli.number(0, exclusive=True)(divisor) for _, _, divisor in pairs]
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no schedule ({error}); valid: {CONSTANT}, {COSINE}, 1000:2,3000:10, "
            f"{WARMUP}100, {WARMUP}100,{COSINE} and the like"
        ) from None
    if any(later <= step for step, later in itertools.pairwise(steps)):
        raise argparse.ArgumentTypeError(f"{text!r}: each step must be after the one before it")
    return Schedule(warmup, dict(zip(steps, divisors, strict=True)))
