"""Runs and sweeps in Python: what the commands do, with the results as tables."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from rich.console import Console

from medjax.lab.commands import run as run_command
from medjax.lab.commands import sweep as sweep_command
from medjax.lab.machine import memory
from medjax.lab.settings import wording
from medjax.lab.settings.config import Settings, configure
from medjax.lab.storage import checkpoints, results
from medjax.lab.sweeps import grid, store


class Results(NamedTuple):
    """The results of a run or a sweep.

    Attributes:
        table: a row for each measurement; of a sweep with the settings of its run before it.
            `table.to_pandas()` is a data frame.
        summary: what the command writes at the end: the last measurement and the speed of a run,
            the best settings of a sweep.
        folder: where these are, with config.json and the pictures.
    """

    table: pa.Table
    summary: dict[str, Any]
    folder: Path


def run(
    settings: Mapping[str, Any], *, out: str | Path | None = None, show: bool = False
) -> Results:
    """Train one model, or read the results if that has been done.

    A run that was interrupted is continued from its last measurement.

    Args:
        settings: those of `medjax run`, by name: {"rule": "noisy_sign", "b": 0.01}. The others
            have their defaults.
        out: the folder of the results; by default one under runs/, named after the settings.
        show: whether to print the plan and the progress.

    Raises:
        ValueError: if a setting isn't valid, or the folder holds something else.
        OSError: if the results can't be written.
        KeyboardInterrupt: if stopped; the same call continues.
    """
    config = configure(**settings)
    folder = Path(out) if out is not None else _usual_folder(config)
    arguments = run_command.make_parser().parse_args([])
    arguments.out, arguments.checkpoint_every = str(folder), config.eval_every
    record = results.read_config(folder)
    if isinstance(record.get("config"), dict):
        if checkpoints.recorded(folder, record) != config:
            raise ValueError(f"{str(folder)!r} holds a run of other settings: name another")
        summary = results.read_json(folder / checkpoints.SUMMARY)
        if summary.get("step") == config.steps:
            return _read(folder, checkpoints.METRICS)
        if (folder / checkpoints.METRICS).exists():
            arguments.resume = str(folder)
    with memory.exhaustion(run_command.LESS_MEMORY):
        _, stopped = run_command.execute(arguments, config, _console(show))
    if stopped:
        raise KeyboardInterrupt
    return _read(folder, checkpoints.METRICS)


def sweep(
    settings: Mapping[str, Any],
    axes: Mapping[str, Iterable[Any]],
    *,
    out: str | Path | None = None,
    show: bool = False,
) -> Results:
    """Train with every combination of the axes' values, or read the results if that is done.

    A sweep that was interrupted is continued. As with `medjax sweep`, a tenth of the training data
    is held out to choose the best settings by, unless `validation` says otherwise.

    Args:
        settings: those that all runs have.
        axes: the values of each setting that varies: {"b": [0, 0.01], "seed": range(5)}.
        out: the folder of the results; by default one under runs/, named after the settings.
        show: whether to print the plan, the progress and the tables.

    Raises:
        ValueError: if a setting isn't valid or is in both, or the folder holds something else.
        OSError: if the results can't be written.
        KeyboardInterrupt: if stopped; the same call continues.
    """
    twice = [name for name in axes if name in settings]
    if twice:
        raise ValueError(f"{twice[0]} is both a setting of all runs and an axis")
    values = {name: [value] for name, value in settings.items()}
    for name, several in axes.items():
        if isinstance(several, str) or not isinstance(several, Iterable):
            raise ValueError(f"axis {name} must be a list of values, got {several!r}")
        values[name] = list(several)
        if not values[name]:
            raise ValueError(f"axis {name} needs at least one value")
    runs = grid.expand(values, yes=True)
    folder = Path(out) if out is not None else sweep_command.default_folder(runs)
    sweep_command.execute(folder, runs, _console(show))
    return _read(folder, store.TABLE)


def _console(show: bool) -> Console:
    return Console(highlight=False, quiet=not show)


def _usual_folder(config: Settings) -> Path:
    name = f"{wording.for_files(wording.method(vars(config)))}-{store.fingerprint([config])}"
    return results.DEFAULT_PARENT / name


def _read(folder: Path, table: str) -> Results:
    summary = results.read_json(folder / checkpoints.SUMMARY)
    return Results(results.read_table(folder / table), summary, folder)
