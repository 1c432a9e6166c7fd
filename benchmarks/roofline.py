"""What a step takes at least on machines that we don't have: closed forms, and nothing measured.

A step of n workers on k devices, w = ⌈n/k⌉ on each, is three times at peak rates: that of its
floating-point operations, that of the bytes which cross each device's memory, and that of the bits
which cross between devices. The first two overlap; the third can't begin before they are over:

    step = max(compute, memory) + wire

What is left out makes real steps longer: starting kernels and collectives (microseconds each), the
arithmetic of noise and of selection on the vector units, activations, and all that keeps a device
below its peak. Of votes nobody is taken to abstain.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from benchmarks import wire, workload
from benchmarks.machines import Machine
from medjax import rules

BYTES = 4
"""Of a number: everything is in float32."""

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Work:
    """A step: n workers' gradients, of d parameters, from batches of B examples of so many numbers.

    Attributes:
        flops: of one worker's gradient, for each parameter; None for 6·B, which a fully connected
            network takes: each weight is multiplied and added once forward and twice back.
    """

    n: int
    d: int
    batch_size: int
    flops: float | None = None
    features: int = math.prod(workload.IMAGE)


class Times(NamedTuple):
    """Seconds."""

    compute: float
    memory: float
    wire: float

    @property
    def step(self) -> float:
        """Of the whole step."""
        return max(self.compute, self.memory) + self.wire

    @property
    def longest(self) -> str:
        """Which of the three is."""
        return max(zip(self, self._fields, strict=True))[1]


def rule_of(name: str, n: int) -> rules.Rule:
    """The rule of that name.

    Raises:
        ValueError: if it can't have so many workers, or is of no family that has a closed form.
    """
    rule = workload.rule(name, n)
    if not isinstance(rule, rules.Additive | rules.CoordinateWise | rules.Geometric):
        raise ValueError(
            f"there is no closed form of what {name!r} exchanges; "
            "valid: rules without a memory and without mixings before them"
        )
    return rule


def times(name: str, work: Work, machine: Machine, k: int) -> Times:
    """The three times on k devices of the machine.

    Memory, in numbers: the batches are read forward and back, 2·w·B·features; the parameters are
    read forward, back and by the server, who writes them, and the update is written and read, 6·d.
    The mean needs no more; any other rule w gradients that are written and read, 2·w·d. Rules that
    exchange them write and read as many again, those of the others; and a geometric rule reads its
    own once more, for the weighted sum.
    """
    rule = rule_of(name, work.n)
    n, d, w = work.n, work.d, -(-work.n // k)
    flops = 6 * work.batch_size if work.flops is None else work.flops
    compute = w * flops * d / machine.peak
    numbers = 2 * w * work.batch_size * work.features + 6 * d
    if not _is_mean(rule, name):
        numbers += 2 * w * d
    if not isinstance(rule, rules.Additive) and k > 1:
        numbers += 2 * w * d
    if isinstance(rule, rules.Geometric):
        numbers += w * d
        compute += (2 * n**2 * d / k + 2 * w * d) / machine.full  # X Xᵀ of d/k columns, and w·X
    sent = wire.exchange(rule, n, d, k)
    seconds = sent.scattered / machine.all_to_all + sent.shared / machine.link
    return Times(compute, BYTES * numbers / machine.memory, seconds * d / 8)


def bytes_held(name: str, work: Work, k: int) -> float:
    """What a device holds at least: its batches, and all its gradients where they can't stream."""
    w = -(-work.n // k)
    numbers = w * work.batch_size * work.features + 2 * work.d
    if not isinstance(rule_of(name, work.n), rules.Additive):
        numbers += w * work.d * (1 if k == 1 else 2)
    return BYTES * numbers


def wire_dominates(name: str, work: Work, machine: Machine) -> tuple[float, float] | None:
    """Between which d the wire takes longest, 0 and ∞ included; None if for none.

    With the other settings as they are each of the three times is a + b·d, so that two values of d
    tell a and b.
    """
    one, two = (times(name, replace(work, d=d), machine, machine.devices) for d in (1, 2))
    low, high = 0.0, math.inf
    for other in ("compute", "memory"):
        at_one, at_two = (t.wire - getattr(t, other) for t in (one, two))
        slope, start = at_two - at_one, 2 * at_one - at_two
        if abs(start) < _ROUNDING * (one.wire + getattr(one, other)):
            start = 0.0
        if slope > 0:
            low = max(low, -start / slope)
        elif start > 0:
            high = min(high, start / -slope)
        else:
            return None
    return (low, high) if low < high else None


def examples_that_outweigh(name: str, work: Work, machine: Machine) -> float:
    """From how many examples on a device, w·B, the gradients' FLOPs take longer than the wire."""
    seconds = times(name, work, machine, machine.devices).wire
    flops = 6 if work.flops is None else work.flops / work.batch_size
    return seconds * machine.peak / (flops * work.d)


def _is_mean(rule: rules.Rule, name: str) -> bool:
    """Whether the gradient of the workers' mean loss is all that is needed."""
    weighted = isinstance(rule, rules.Additive) and rule.weights is not None
    return weighted and not workload.is_noisy(name)
