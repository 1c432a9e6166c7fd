"""Statistics over seeds, and the best setting of each rule, from a grid's table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medjax.lab.settings.config import Settings, as_record
from medjax.lab.sweeps.grid import varied
from medjax.lab.tables import rounded

TUNED = ("lr", "lr_schedule", "local_lr", "momentum", "b", "noise", "df", "zero", "tie")
TUNED += ("worker_chunk",)
"""Settings of the algorithm, which are chosen; others that vary make different problems."""

_OF_ATTACKERS = ("byzantine", "byzantine_data")

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Statistic:
    """A metric's mean over the seeds, and its standard error s/√S, NaN for a single seed."""

    mean: float
    error: float

    def __str__(self) -> str:
        return rounded(self.mean, self.error)

    def __format__(self, form: str) -> str:
        """Give both numbers a format such as .3f; without one, the digits that the error bears."""
        if not form:
            return str(self)
        error = "" if math.isnan(self.error) else f" ± {self.error:{form}}"
        return f"{self.mean:{form}}{error}"


@dataclass(frozen=True)
class Candidate:
    """A setting with all its seeds.

    Attributes:
        run: the run with the first seed.
        runs: the places of all in the grid.
        final: each metric's statistic at the last step.
    """

    run: Settings
    runs: tuple[int, ...]
    final: Mapping[str, Statistic]

    def as_record(self) -> dict[str, Any]:
        """Return it as files hold it."""
        final = {name: {"mean": s.mean, "error": s.error} for name, s in self.final.items()}
        return {"run": as_record(self.run), "runs": self.runs, "final": final}


def criterion(columns: Columns) -> str:
    """Name the metric by which settings are chosen: never one of the test data."""
    return "validation_accuracy" if "validation_accuracy" in columns else "train_loss"


def candidates(runs: Sequence[Settings], columns: Columns) -> list[Candidate]:
    """List every setting, its metrics averaged over the seeds."""
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
    """Choose, for each rule and problem, the setting with the best criterion.

    Of equally good ones, the one with the least training loss is chosen. The server doesn't know
    the attack: if there are several, a setting is as good as under the worst of them, and the
    chosen one is given under each.
    """
    names = varied([candidate.run for candidate in found])
    problem = ["rule", *(name for name in names if name not in (*TUNED, "rule"))]

    def badness(candidate: Candidate) -> tuple[float, float]:
        name = criterion(columns)
        score, loss = -candidate.final[name].mean, candidate.final["train_loss"].mean
        # Runs that diverged, or have no validation data, come after all others.
        loss = math.inf if math.isnan(loss) else loss
        return (loss if name == "train_loss" else math.inf if math.isnan(score) else score, loss)

    chosen = [
        min(_under_attacks(these, names), key=lambda setting: max(map(badness, setting)))
        for these in _under_attacks(found, problem)
    ]
    return list({candidate.runs: candidate for these in chosen for candidate in these}.values())


def worst_cases(found: Sequence[Candidate]) -> list[Candidate]:
    """Return each setting under the attack with the lowest test accuracy."""
    names = varied([candidate.run for candidate in found])
    return [
        min(setting, key=lambda candidate: candidate.final["test_accuracy"].mean)
        for setting in _under_attacks(found, names)
    ]


def diverged(columns: Columns) -> dict[int, int]:
    """Map the places of runs whose loss was ever NaN or infinite to the first such step."""
    rows = np.flatnonzero(~np.isfinite(columns["train_loss"]))
    first = rows[np.unique(columns["run"][rows], return_index=True)[1]]  # sorted by run, then step
    return {int(columns["run"][row]): int(columns["step"][row]) for row in first}


def final_rows(columns: Columns) -> np.ndarray:
    """Return the row of each run's last measurement; the table is sorted by run, then step."""
    return np.append(np.flatnonzero(np.diff(columns["run"])), len(columns["run"]) - 1)


def metric_names(columns: Columns) -> list[str]:
    """List the table's columns that are measurements."""
    names = list(columns)
    return names[names.index("step") + 1 :]


def _under_attacks(found: Sequence[Candidate], names: Sequence[str]) -> list[list[Candidate]]:
    """Group the candidates that, among some settings, differ only in the attack.

    Without an attack there are no attackers: such a candidate is in the group of each number of
    them, with each kind of data, that there is.
    """
    names = [name for name in names if name not in ("attack", *_OF_ATTACKERS, "seed")]
    attackers: dict[tuple[Any, ...], dict[Any, None]] = {}
    for candidate in found:
        if candidate.run.attack is not None:
            there = attackers.setdefault(_key(candidate.run, names), {})
            there[_key(candidate.run, _OF_ATTACKERS)] = None
    groups: dict[tuple[Any, ...], list[Candidate]] = {}
    for candidate in found:
        run, key = candidate.run, _key(candidate.run, names)
        alone = run.attack is None
        for each in attackers.get(key, [None]) if alone else [_key(run, _OF_ATTACKERS)]:
            groups.setdefault((key, each), []).append(candidate)
    return list(groups.values())


def _statistic(values: np.ndarray) -> Statistic:
    values = values.astype(np.float64)
    with np.errstate(invalid="ignore"):  # a diverged run makes both of them NaN
        error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return Statistic(float(values.mean()), float(error))


def _key(run: Settings, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(getattr(run, name) for name in names)
