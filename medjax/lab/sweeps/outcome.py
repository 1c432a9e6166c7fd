"""The outcome of a grid, of which its tables and pages tell."""

from collections.abc import Sequence
from typing import NamedTuple

from medjax.lab.settings import wording
from medjax.lab.settings.config import Settings
from medjax.lab.sweeps import grid, select
from medjax.lab.sweeps.select import Candidate, Columns


class Outcome(NamedTuple):
    """The settings of a grid, and the best of them.

    Attributes:
        criterion: the metric by which settings are chosen.
        found: every setting.
        chosen: each rule's best, in each of the problems.
        worst: the chosen ones, each under its worst attack; none if attacks don't vary.
        names: the settings that tell them apart.
        measured: the metrics to show.
    """

    criterion: str
    found: list[Candidate]
    chosen: list[Candidate]
    worst: list[Candidate]
    names: list[str]
    measured: list[str]

    @property
    def chosen_by(self) -> str:
        """The criterion in words."""
        attacked = bool(self.worst)
        words = self.criterion.replace("_", " ")
        return f"{'the worst ' * attacked}{words}{' over attacks' * attacked}"


def outcome(runs: Sequence[Settings], columns: Columns) -> Outcome:
    """Choose the best of a grid.

    Args:
        runs: the grid.
        columns: its table.
    """
    criterion = select.criterion(columns)
    found = select.candidates(runs, columns)
    chosen = select.best(found, columns)
    return Outcome(
        criterion,
        found,
        chosen,
        select.worst_cases(chosen) if "attack" in grid.varied(runs) else [],
        [name for name in wording.telling([vars(run) for run in runs]) if name != "seed"],
        list(dict.fromkeys((criterion, "test_accuracy", "train_loss", "grad_norm"))),
    )


def title(runs: Sequence[Settings]) -> str:
    """Describe in a line what all runs have in common."""
    names = grid.varied(runs)
    parts = [("algorithm", "{}"), ("dataset", "{}"), ("workers", "n = {}"), ("model", "{}")]
    parts.append(("steps", "{} steps"))
    told = [(getattr(runs[0], n), form) for n, form in parts if n not in names]
    return ", ".join(form.format(value) for value, form in told if value is not None)
