"""Values of settings that are more than a number or a name, each written as its `str`."""

import argparse
import itertools
from dataclasses import dataclass

from medjax.lab.settings import cli

THEORY = "theory"
"""For b and the step size: the value of theorems 5 and 6."""

AUTO = "auto"
"""For b: a scale that needs no tuning, as the study `experiments.which_b` found."""

_ADAPTIVE, _UNDAMPED = "adaptive", "undamped:"
_CONSTANT, _COSINE, _WARMUP = "constant", "cosine", "warmup:"
_USUAL_FRACTION = 0.1  # the paper's


@dataclass(frozen=True)
class Adaptive:
    """A noise scale that follows the gradients: this fraction of theirs, per tensor."""

    fraction: float = _USUAL_FRACTION

    def __str__(self) -> str:
        return f"{_ADAPTIVE}:{_number(self.fraction)}"


@dataclass(frozen=True)
class Undamped:
    """A worker's momentum m = βm + g, without the factor 1 - β."""

    beta: float

    def __str__(self) -> str:
        return f"{_UNDAMPED}{_number(self.beta)}"


@dataclass(frozen=True)
class Schedule:
    """A schedule of the step size; constant if nothing is set.

    Attributes:
        warmup: the number of steps in which it rises to its full length at first.
        divisors: pairs of a step and what the full length is divided by from there on.
        cosine: whether it falls to 0 from the warm-up to the last step.
    """

    warmup: int = 0
    divisors: tuple[tuple[int, float], ...] = ()
    cosine: bool = False

    def __str__(self) -> str:
        parts = [f"{_WARMUP}{self.warmup}"] if self.warmup else []
        parts += [_COSINE] if self.cosine else []
        parts += [f"{step}:{_number(divisor)}" for step, divisor in self.divisors]
        return ",".join(parts) or _CONSTANT


def _number(value: float) -> str:
    """Return 2 for 2.0, and all digits of others."""
    return f"{value:.0f}" if value.is_integer() and value < 1e15 else repr(value)


def noise_scale(text: str) -> float | Adaptive | str:
    """Parse a number, adaptive[:FRACTION], auto or theory."""
    kind, colon, fraction = text.partition(":")
    if kind == _ADAPTIVE:
        return Adaptive(cli.number(0)(fraction)) if colon else Adaptive()
    return cli.number_or((THEORY, AUTO), 0)(text)


def worker_momentum(text: str) -> float | Undamped:
    """Parse a number below 1, or undamped:β."""
    try:
        beta = cli.number(0, below=1)(text.removeprefix(_UNDAMPED))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor {_UNDAMPED}β") from None
    return Undamped(beta) if text.startswith(_UNDAMPED) else beta


def schedule(text: str) -> Schedule:
    """Parse constant, or warmup:K and then cosine or STEP:DIVISOR pairs, all joined by commas."""
    if text == _CONSTANT:
        return Schedule()
    first, *rest = text.split(",")
    try:
        if first.startswith(_WARMUP):
            warmup = cli.integer(1)(first.removeprefix(_WARMUP))
        else:
            warmup, rest = 0, [first, *rest]
        if rest == [_COSINE]:
            return Schedule(warmup, cosine=True)
        pairs = [pair.partition(":") for pair in rest]
        steps = [cli.integer(0)(step) for step, _, _ in pairs]
        divisors = [cli.number(0, exclusive=True)(divisor) for _, _, divisor in pairs]
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no schedule ({error}); valid: {_CONSTANT}, {_COSINE}, 1000:2,3000:10, "
            f"{_WARMUP}100, {_WARMUP}100,{_COSINE} and the like"
        ) from None
    if any(later <= step for step, later in itertools.pairwise(steps)):
        raise argparse.ArgumentTypeError(f"{text!r}: each step must be after the one before it")
    return Schedule(warmup, tuple(zip(steps, divisors, strict=True)))
