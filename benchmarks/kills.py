"""Kills of runs and sweeps at random moments."""

from collections.abc import Sequence

import numpy as np

from benchmarks.faults import KILL, Fault
from benchmarks.survival import RUN, SWEEP, Scene, Undisturbed, survivors, undisturbed


def runs(count: int) -> tuple[int, int]:
    """Kill `count` runs and continue each.

    Returns:
        The number of kills, and of those after which the results are those of an undisturbed run.
    """
    return _kill(RUN, count)


def sweeps(count: int) -> tuple[int, int]:
    """Kill `count` sweeps and continue each; return what `runs` does."""
    return _kill(SWEEP, count)


def _kill(scene: Scene, count: int) -> tuple[int, int]:
    return survivors(scene, moments(undisturbed(scene), count))


def moments(command: Undisturbed, count: int, seed: int = 0) -> Sequence[Fault]:
    """Spread kills over a command's life, in turn before a change of a file and at any time."""
    shares = (np.arange(count) + np.random.default_rng(seed).random(count)) / count
    return [
        Fault(KILL, seconds=float(share) * command.seconds)
        if k % 2
        else Fault(KILL, change=int(share * command.changes))
        for k, share in enumerate(shares)
    ]
