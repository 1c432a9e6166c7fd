"""Words that stand for a number on the command line, and how a schedule is written."""

from collections.abc import Callable
from typing import Any, TypeAlias

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


def schedule_pairs(text: str) -> dict[int, float]:
    """Step to divisor, of a schedule that isn't constant."""
    pairs = [pair.split(":") for pair in text.split(",")]
    return {int(step): float(divisor) for step, divisor in pairs}
