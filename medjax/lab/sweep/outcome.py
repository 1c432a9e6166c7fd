"""What comes of a grid: what is told of it at its end."""

from collections.abc import Sequence
from typing import NamedTuple

from medjax.lab.settings import wording
from medjax.lab.settings.config import RunConfig
from medjax.lab.sweep import grid, select
from medjax.lab.sweep.select import Candidate, Columns


class Outcome(NamedTuple):
    """What comes of a grid.

    Attributes:
        criterion: the metric that settings are chosen by.
        found: every setting.
        chosen: each rule's best, in each of the problems.
        worst: of the chosen ones, each under its worst attack; none if attacks don't vary.
        names: the settings that tell them apart.
        measured: the metrics that are told.
    """

    criterion: str
    found: list[Candidate]
    chosen: list[Candidate]
    worst: list[Candidate]
    names: list[str]
    measured: list[str]

    @property
    def chosen_by(self) -> str:
        """How the best were chosen, in words."""
        attacked = bool(self.worst)
        words = self.criterion.replace("_", " ")
        return f"{'the worst ' * attacked}{words}{' over attacks' * attacked}"


def outcome(runs: Sequence[RunConfig], columns: Columns) -> Outcome:
    """What comes of a grid.

    Args:
        runs: its runs.
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


def title(runs: Sequence[RunConfig]) -> str:
    """What all runs have in common, in a line."""
    names = grid.varied(runs)
    parts = [("dataset", "{}"), ("workers", "n = {}"), ("model", "{}"), ("steps", "{} steps")]
    return ", ".join(form.format(getattr(runs[0], n)) for n, form in parts if n not in names)
