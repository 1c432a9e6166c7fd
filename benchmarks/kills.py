"""Runs and sweeps that are killed at random moments, and gone on with."""

from collections.abc import Sequence

import numpy as np

from benchmarks.faults import KILL, Fault
from benchmarks.survival import RUN, SWEEP, Scene, Undisturbed, survivors, undisturbed


def runs(count: int) -> tuple[int, int]:
    """Kill so many runs; returns how many, and how many of them ended as if they hadn't been."""
    return _kill(RUN, count)


def sweeps(count: int) -> tuple[int, int]:
    """Kill so many sweeps."""
    return _kill(SWEEP, count)


def _kill(scene: Scene, count: int) -> tuple[int, int]:
    return survivors(scene, moments(undisturbed(scene), count))


def moments(whole: Undisturbed, count: int, seed: int = 0) -> Sequence[Fault]:
    """Kills spread over the whole life: in turn before a change of a file, and at any time."""
    shares = (np.arange(count) + np.random.default_rng(seed).random(count)) / count
    return [
        Fault(KILL, seconds=float(share) * whole.seconds)
        if k % 2
        else Fault(KILL, change=int(share * whole.changes))
        for k, share in enumerate(shares)
    ]
