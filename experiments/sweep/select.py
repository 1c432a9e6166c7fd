"""What a grid's table says: statistics over seeds, and the best setting of each rule."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.config import RunConfig
from experiments.sweep.grid import varied

TUNED = ("lr", "lr_schedule", "momentum", "b", "noise", "df", "zero", "tie", "worker_chunk")
"""Settings that belong to the algorithm, to be chosen; others that vary make different problems."""

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Statistic:
    """Of one metric over the seeds: mean and standard error s/√S (NaN of a single seed)."""

    mean: float
    error: float

    def __format__(self, form: str) -> str:
        error = "" if math.isnan(self.error) else f" ± {self.error:{form}}"
        return f"{self.mean:{form}}{error}"


@dataclass(frozen=True)
class Candidate:
    """A setting with all its seeds.

    Attributes:
        run: the first seed's.
        runs: the places in the grid of all of them.
        final: metric to its statistic, at the last step.
    """

    run: RunConfig
    runs: tuple[int, ...]
    final: Mapping[str, Statistic]


def criterion(columns: Columns) -> str:
    """What settings are chosen by: never the test data."""
    return "validation_accuracy" if "validation_accuracy" in columns else "train_loss"


def candidates(runs: Sequence[RunConfig], columns: Columns) -> list[Candidate]:
    """Every setting, its metrics averaged over the seeds."""
    names = [name for name in varied(runs) if name != "seed"]
    places: dict[tuple[Any, ...], list[int]] = {}
    for place, run in enumerate(runs):
        places.setdefault(_key(run, names), []).append(place)
    last = final_rows(columns)
    metrics = metric_names(columns)
    return [
        Candidate(
            runs[these[0]],
            tuple(these),
            {name: _statistic(columns[name][last[these]]) for name in metrics},
        )
        for these in places.values()
    ]


def best(found: Sequence[Candidate], columns: Columns) -> list[Candidate]:
    """Of each rule, in each of the problems, the candidate with the best criterion.

    Where several are equally good, the one with the least training loss.
    """
    runs = [candidate.run for candidate in found]
    problem = ["rule", *(name for name in varied(runs) if name not in (*TUNED, "rule", "seed"))]

    def badness(candidate: Candidate) -> tuple[float, float]:
        loss = candidate.final["train_loss"].mean
        loss = math.inf if math.isnan(loss) else loss
        name = criterion(columns)
        return (loss if name == "train_loss" else -candidate.final[name].mean, loss)

    chosen: dict[tuple[Any, ...], Candidate] = {}
    for candidate in found:
        key = _key(candidate.run, problem)
        if key not in chosen or badness(candidate) < badness(chosen[key]):
            chosen[key] = candidate
    return list(chosen.values())


def final_rows(columns: Columns) -> np.ndarray:
    """The row of each run's last measurement; the table is sorted by run, then step."""
    return np.append(np.flatnonzero(np.diff(columns["run"])), len(columns["run"]) - 1)


def metric_names(columns: Columns) -> list[str]:
    """The table's columns that are measurements."""
    names = list(columns)
    return names[names.index("step") + 1 :]


def _statistic(values: np.ndarray) -> Statistic:
    values = values.astype(np.float64)
    with np.errstate(invalid="ignore"):  # a diverged run makes both of them NaN
        error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return Statistic(float(values.mean()), float(error))


def _key(run: RunConfig, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(getattr(run, name) for name in names)
