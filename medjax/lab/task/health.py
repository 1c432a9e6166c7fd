"""Troubles with a run's numbers: a loss that isn't finite, workers who send NaN or ±∞."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from medjax.lab.storage import results

NONFINITE = "nonfinite.json"
"""The file of a run that names the workers; not there where all have sent finite numbers."""

FirstSeen = dict[int, int]
"""A worker to the step at which it was first seen to send NaN or ±∞."""


def diverged_at(steps: Iterable[float], losses: Iterable[float]) -> int | None:
    """The first measurement at which the loss was NaN or infinite, if any."""
    both = zip(steps, losses, strict=True)
    return next((int(step) for step, loss in both if not math.isfinite(loss)), None)


def newly_seen(seen: Mapping[int, int], step: int, nonfinite: np.ndarray) -> FirstSeen:
    """The workers who send NaN or ±∞ for the first time."""
    return {int(k): step for k in np.flatnonzero(nonfinite) if int(k) not in seen}


def read_seen(folder: Path, until: int) -> FirstSeen:
    """Read the workers that were seen up to a step.

    Raises:
        ValueError: if the file isn't one of ours.
    """
    path = folder / NONFINITE
    try:
        seen = {int(k): int(v) for k, v in results.read_json(path).items()}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{str(path)!r} can't be read: {error}") from None
    return {worker: step for worker, step in seen.items() if step <= until}


def write_seen(folder: Path, seen: FirstSeen) -> None:
    """Keep them."""
    results.write_json(folder / NONFINITE, seen)


def in_words(workers: Sequence[int], num_workers: int) -> str:
    """Some of n workers, for people: runs of them as FIRST-LAST."""
    if len(workers) == num_workers:
        return f"all {num_workers} workers" if num_workers > 1 else "the worker"
    # Consecutive numbers have the same distance from their places.
    groups: dict[int, list[int]] = {}
    for place, worker in enumerate(sorted(workers)):
        groups.setdefault(worker - place, []).append(worker)
    parts = [f"{g[0]}-{g[-1]}" if len(g) > 1 else f"{g[0]}" for g in groups.values()]
    return f"worker{'s' if len(workers) > 1 else ''} {', '.join(parts)}"
