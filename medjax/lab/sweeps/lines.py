"""The lines and panels of a grid's pictures: the best candidates along some settings."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from medjax.lab.settings.parts import Part
from medjax.lab.settings.wording import named, telling
from medjax.lab.sweeps.grid import varied
from medjax.lab.sweeps.select import Candidate, Columns, best, criterion

CHOSEN = ("lr", "lr_schedule", "local_lr", "momentum", "b", "df")
"""Settings of which the best value is chosen wherever they aren't drawn.

The rest of the algorithm's settings (the noise's distribution, the vote of a zero) have few values,
which are compared.
"""
MOST = 12
"""The most lines that can be told apart in a picture."""

_NAMES = {"lr": "step size δ", "b": "noise scale b", "alpha": "α", "workers": "workers n"}
# Settings without a picture of their own.
_IDLE = ("seed", "worker_chunk", "eval_every")


class Line(NamedTuple):
    """Candidates that are drawn together.

    Attributes:
        label: the settings that tell them from other lines.
        points: the candidates by their values of the settings that are drawn.
    """

    label: str
    points: dict[tuple[Any, ...], Candidate]


def along(found: Sequence[Candidate], columns: Columns, *names: str) -> list[Line]:
    """Make a line for each rule and problem: the best candidate at each value of some settings."""
    telling_names = telling([vars(candidate.run) for candidate in found])
    lines = []
    for method in dict.fromkeys(map(_method, found)):
        of_rule = [candidate for candidate in found if _method(candidate) == method]
        apart = [
            name
            for name in varied([candidate.run for candidate in of_rule])
            if name not in (*names, *CHOSEN, *_IDLE) and not follows(of_rule, name, names)
        ]
        cells: dict[tuple[Any, ...], dict[tuple[Any, ...], list[Candidate]]] = {}
        for candidate in of_rule:
            cell = cells.setdefault(_values(candidate, apart), {})
            cell.setdefault(_values(candidate, names), []).append(candidate)
        shown = ["rule", *(x for x in ("algorithm", *apart) if x in telling_names)]
        for cell in cells.values():
            line = Line("", {v: best(these, columns)[0] for v, these in cell.items()})
            lines.append(line._replace(label=named(vars(_first(line).run), shown)))
    return lines


def _method(candidate: Candidate) -> tuple[Part | None, Part | None]:
    """Return the algorithm and the rule, whose runs are compared with one another."""
    return candidate.run.algorithm, candidate.run.rule


def follows(found: Sequence[Candidate], name: str, others: Sequence[str]) -> bool:
    """Tell if others' values determine a setting's, as those that its default depends on do."""
    keys = {_values(candidate, others) for candidate in found}
    return len({_values(candidate, (*others, name)) for candidate in found}) == len(keys)


def numeric_settings(found: Sequence[Candidate]) -> list[str]:
    """List the settings with several numbers to draw, but for those that only follow another."""
    names: list[str] = []
    for name in varied([candidate.run for candidate in found]):
        numbers = [c for c in found if is_number(getattr(c.run, name)) and name not in _IDLE]
        several = len({getattr(candidate.run, name) for candidate in numbers}) > 1
        if several and not any(follows(numbers, name, (other,)) for other in names):
            names.append(name)
    return names


def split(line: Line, name: str, names: Sequence[str]) -> Iterator[Line]:
    """Split off a line of its own for each value that isn't a number, and has no place on the axis.

    Args:
        line: the line.
        name: the setting.
        names: the settings that tell the grid's runs apart.
    """
    numbers = {value: c for value, c in line.points.items() if is_number(value[0])}
    if numbers:
        yield Line(line.label, dict(sorted(numbers.items())))
    for value, candidate in line.points.items():
        if value not in numbers:
            shown = [other for other in names if other == name or other not in CHOSEN]
            yield Line(named(vars(candidate.run), shown), {value: candidate})


def foremost(lines: Sequence[Line], columns: Columns, most: int = MOST) -> list[Line]:
    """Keep at most so many lines, those with the best points, in their order.

    Each rule keeps as many as the others, so that the worst of the rules is still compared.
    """
    by_rule: dict[Any, list[int]] = {}
    for k in sorted(range(len(lines)), key=lambda k: _badness(lines[k], columns)):
        by_rule.setdefault(_method(_first(lines[k])), []).append(k)
    in_turns = itertools.chain(*itertools.zip_longest(*by_rule.values()))
    kept = [k for k in in_turns if k is not None][:most]
    return [lines[k] for k in sorted(kept)]


def choice(found: Sequence[Candidate], columns: Columns, *names: str) -> str:
    """Say which settings are chosen in a picture of some others; empty if none is."""
    methods = dict.fromkeys(map(_method, found))
    by_rule = [varied([c.run for c in found if _method(c) == method]) for method in methods]
    chosen = [name for name in CHOSEN if name not in names and any(name in v for v in by_rule)]
    what = ", ".join(map(called, chosen))
    return f"at each point the best {what} by {by(columns)}" if chosen else ""


def by(columns: Columns) -> str:
    """Name the metric by which candidates are chosen."""
    return "training loss" if criterion(columns) == "train_loss" else "validation accuracy"


def seeds(what: str, found: Sequence[Candidate]) -> str:
    """Explain the marks of the standard error; empty if there are none."""
    count = max(len(candidate.runs) for candidate in found)
    return f"{what}: ± 1 standard error of {count} seeds" if count > 1 else ""


def left_out(shown: Sequence[object], every: Sequence[object]) -> str:
    """Say how many there are, if they aren't all shown."""
    return f"the best of each rule, {len(shown)} of {len(every)}" if len(shown) < len(every) else ""


def with_notes(title: str, notes: Sequence[str]) -> str:
    """Put notes under a picture's title."""
    return "\n".join(filter(None, (title, "; ".join(filter(None, notes)))))


def called(name: str) -> str:
    """Name a setting in words."""
    return _NAMES.get(name, name.replace("_", " "))


def is_number(value: object) -> bool:
    """Tell if a setting's value has a place on an axis."""
    return type(value) in (int, float)


def _badness(line: Line, columns: Columns) -> float:
    name = criterion(columns)
    values = [candidate.final[name].mean for candidate in line.points.values()]
    bad = [value if name == "train_loss" else -value for value in values]
    return min((value for value in bad if not math.isnan(value)), default=math.inf)


def _first(line: Line) -> Candidate:
    return next(iter(line.points.values()))


def _values(candidate: Candidate, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(getattr(candidate.run, name) for name in names)
