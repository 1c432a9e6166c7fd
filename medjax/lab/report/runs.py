"""The sections of a page about runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medjax.lab import plots
from medjax.lab.report import page
from medjax.lab.report.page import Cell, Picture, Section, Table
from medjax.lab.settings import wording
from medjax.lab.storage import results
from medjax.lab.storage import runs as stored
from medjax.lab.storage.checkpoints import METRICS
from medjax.lab.tables import rounded

_HIGHLIGHTS = ("test_accuracy", "train_loss", "grad_norm", "steps_per_second")


class Run(NamedTuple):
    """A run, before it is compared with others.

    Attributes:
        folder: its folder.
        config: its settings.
        columns: its measurements; empty if there are none.
        part: its section, but for the title and the picture.
    """

    folder: Path
    config: Mapping[str, Any]
    columns: Mapping[str, np.ndarray]
    part: Section


def read(folder: Path, record: Mapping[str, Any]) -> Run:
    """Read a run whose configuration has been read.

    Raises:
        ValueError: if its files aren't those of a run.
    """
    config, summary = record["config"], results.read_json(folder / "summary.json")
    columns: dict[str, np.ndarray] = {}
    if (folder / METRICS).exists():
        columns = {k: np.asarray(x, np.float64) for k, x in stored.read(folder)[1].items()}
    last = {name: values[-1] for name, values in columns.items()} | summary
    facts = [
        page.facts("Settings", config),
        page.facts("Data", record.get("data") or {}),
        page.facts("At the end", summary),
        page.provenance(record),
    ]
    part = Section(
        id="",
        title=wording.describe(config),
        folder=str(folder),
        notes=_notes(columns, config["steps"], summary.get("diverged_at_step")),
        highlights=[
            (page.spaced(name), page.number(last[name]).text)
            for name in _HIGHLIGHTS
            if name in last
        ],
        facts=[each for each in facts if each.entries],
    )
    return Run(folder, config, columns, part)


def _notes(columns: Mapping[str, np.ndarray], total: int, diverged: int | None) -> list[str]:
    if not columns:
        return ["unfinished: nothing is measured yet"]
    done = int(columns["step"][-1])
    notes = [f"unfinished: {done} of {total} steps"] if done < total else []
    return notes + [f"diverged: the loss isn't finite at step {diverged}"] * (diverged is not None)


def sections(runs: Sequence[Run]) -> list[Section]:
    """Make a section for each run, and before them, if there are several, a comparison."""
    labels = [run.part.title for run in runs]
    if len(runs) > 1:
        labels = wording.labels([run.config for run in runs], [str(run.folder) for run in runs])
    made = [
        replace(run.part, id=f"run-{k}", title=label, pictures=_curves(f"run-{k}", run.columns))
        for k, (label, run) in enumerate(zip(labels, runs, strict=True))
    ]
    measured = [(part, run) for part, run in zip(made, runs, strict=True) if run.columns]
    return [_comparison(measured), *made] if len(measured) > 1 else made


def _curves(name: str, columns: Mapping[str, np.ndarray]) -> list[Picture]:
    if not columns:
        return []
    caption = "Loss, accuracy, and the norms of the true mean gradient and the median-mean gap"
    ends = (f"{page.spaced(metric)} {rounded(columns[metric][-1])}" for metric in stored.COMPARED)
    alt = f"At step {columns['step'][-1]:.0f}: {', '.join(ends)}."
    return [page.picture(plots.run_figure(plots.Curves("", columns)), name, caption, alt)]


def _comparison(measured: Sequence[tuple[Section, Run]]) -> Section:
    headings = ("run", "step", *map(page.spaced, stored.COMPARED))
    rows = [
        [
            Cell(part.title, link=part.id),
            page.number(int(run.columns["step"][-1])),
            *(page.number(run.columns[name][-1]) for name in stored.COMPARED),
        ]
        for part, run in measured
    ]
    curves = [plots.Curves(part.title, run.columns) for part, run in measured]
    figure = plots.comparison_figure(curves, "")
    caption = f"The curves of {len(measured)} runs"
    alt = "Training loss, test accuracy and norms against the step; the last are in the table."
    return Section(
        "comparison",
        "Comparison",
        tables=[Table("Last measurements", headings, rows)],
        pictures=[page.picture(figure, "comparison", caption, alt)],
    )
