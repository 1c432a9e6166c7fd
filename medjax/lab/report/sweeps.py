"""The section of a page about a sweep."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from medjax.lab.report import page
from medjax.lab.report.page import Cell, Section, Table
from medjax.lab.sweeps import lines, pictures, report, store
from medjax.lab.sweeps.outcome import Outcome, outcome, title
from medjax.lab.sweeps.select import Candidate


def section(name: str, folder: Path, record: Mapping[str, Any]) -> Section:
    """Make the section of a sweep whose configuration has been read.

    Raises:
        ValueError: if its files aren't those of a sweep.
    """
    runs, columns = store.read(folder)
    sessions = record.get("sessions") or [{}]
    common = {k: v for k, v in record["settings"].items() if k != "out"}
    facts = [
        page.facts("What varies", record["axes"]),
        page.facts("Settings of all", common),
        page.provenance(sessions[-1] | {"own_code": record.get("own_code")}),
    ]
    total = record["runs"]
    methods = [
        each
        for name in ("algorithm", "rule")
        for each in record["axes"].get(name) or [record["settings"].get(name)]
        if each not in (None, "none")
    ]
    heading = f"{total} runs of {', '.join(methods)}"
    facts = [each for each in facts if each.entries]
    if not runs:
        notes = ["unfinished: no run is finished yet"]
        return Section(name, heading, str(folder), notes, facts=facts)
    partial = len(runs) < total
    notes = [f"unfinished: {len(runs)} of {total} runs, of which all that follows is"] * partial
    told = outcome(runs, columns)
    figures = pictures.draw(runs, columns, title(runs))
    return Section(
        name,
        f"{heading}: {title(runs)}",
        str(folder),
        notes,
        tables=_tables(told),
        pictures=[
            page.picture(figure, f"{name}-{key}", _caption(key), figure.get_suptitle())
            for key, figure in figures.items()
        ],
        facts=facts,
    )


def _tables(told: Outcome) -> list[Table]:
    over_seeds = "mean ± standard error over seeds"
    tables = [_table(told, f"Best by {told.chosen_by}, {over_seeds}", told.chosen)]
    if told.worst:
        tables.append(_table(told, "Their worst cases, by test accuracy", told.worst))
    if len(told.found) > len(told.chosen):
        tables.append(_table(told, f"Every setting, {over_seeds}", told.found))
    return tables


def _table(told: Outcome, caption: str, found: Sequence[Candidate]) -> Table:
    rows = [
        [
            *(_setting(name, getattr(candidate.run, name)) for name in told.names),
            *(page.number(*astuple(candidate.final[name])) for name in told.measured),
        ]
        for candidate in found
    ]
    headings = [*map(lines.called, told.names), *map(page.spaced, told.measured)]
    return Table(caption, headings, rows)


def _setting(name: str, value: Any) -> Cell:
    return Cell(report.setting_text(name, value), value if lines.is_number(value) else None)


def _caption(name: str) -> str:
    if name == "curves":
        return "Metrics against the step"
    kind, _, settings = name.partition("-")
    if kind == "heatmap":
        vertical, _, horizontal = settings.partition("-")
        return (
            f"Test accuracy at the end, by {lines.called(vertical)} and {lines.called(horizontal)}"
        )
    return f"Metrics at the end against the {lines.called(name)}"
