"""One session of a sweep: from its runs and its folder to its table, whatever was done before."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

import jax
from jax.sharding import Mesh
from rich.console import Console

from medjax.lab.machine import devices as machine
from medjax.lab.machine.memory import exhaustion, free_bytes
from medjax.lab.settings.config import RunConfig, as_record, digests, static
from medjax.lab.settings.field import plain
from medjax.lab.storage import results
from medjax.lab.storage.files import remove_partial
from medjax.lab.storage.keeper import FOLDER
from medjax.lab.storage.locks import alone_in
from medjax.lab.sweep import execute, grid, report, select, store
from medjax.lab.sweep.fit import LESS_MEMORY
from medjax.lab.sweep.plan import make_groups, runs_at_once
from medjax.lab.task.setup import check, load_data
from medjax.lab.task.training import Stop


@contextmanager
def run_grid(
    console: Console,
    folder: Path,
    runs: Sequence[RunConfig],
    stop: Stop,
    mesh: Mesh | None = None,
    checkpoint_every: int | None = None,
) -> Iterator[select.Columns]:
    """Run what isn't finished of a grid.

    Gives the table's columns, to a block in which no other process works in the folder.

    Raises:
        ValueError: if the runs' settings don't fit each other or the data, if the folder holds
            something else, or was begun on a mesh with another grid axis.
        KeyboardInterrupt: if stopped; what is finished stays in the folder.
    """
    purpose = {"grid": store.fingerprint(runs)}
    results.check_own_folder(folder, **purpose)
    with console.status("loading the data"):
        for config in dict.fromkeys(map(static, runs)):
            check(config)
        datasets = {d: load_data(d) for d in sorted({run.dataset for run in runs}, key=str)}
        groups = make_groups(runs, datasets)
    with alone_in(folder):
        remove_partial(folder / store.PARTS)
        budget, parts = free_bytes(), machine.parts(mesh)
        record = results.read_config(folder) or {
            "folder": str(folder),
            **purpose,
            **_described(runs),
            # Kept, so that a sweep that goes on cuts its grid as before: the same numbers.
            "runs_at_once": [parts * runs_at_once(group, budget) for group in groups],
            "devices_of_grid": parts,
            # On a CPU, that the runs are side by side in the cache counts more than the memory.
            "memory_limit": None if jax.default_backend() == "cpu" else budget,
            "checkpoint_every": None,
            "sessions": [],
        }
        at_once, begun = record.get("runs_at_once"), record.get("devices_of_grid", 1)
        limit, sessions = record.get("memory_limit"), record.get("sessions")
        if not (_is_plan(at_once, len(groups)) and _is_limit(limit) and isinstance(sessions, list)):
            raise ValueError(f"{str(folder / results.CONFIG)!r} isn't as the sweep left it")
        if parts != begun:
            raise ValueError(
                f"{folder} was begun with grid={begun} devices, and goes on with as many, "
                f"got {parts}"
            )
        every = checkpoint_every or record.get("checkpoint_every")
        work = execute.unfinished(folder, groups, at_once, parts)
        for line in report.plan(runs, len(groups), work):
            console.print(line, soft_wrap=True, markup=False)
        console.print(f"results    {folder}\n", soft_wrap=True, markup=False)
        if work:
            record["checkpoint_every"] = every
            sessions.append(results.provenance() | machine.described(mesh))
            results.write_json(folder / results.CONFIG, record)
            store.write_runs(folder, runs)
            reporting = report.Reporter(console, work)
            with reporting as reporter, exhaustion(LESS_MEMORY):
                for progress in execute.execute(folder, work, stop, mesh, every, limit):
                    fitting = progress.at_once
                    if fitting is not None and fitting != at_once[progress.program]:
                        at_once[progress.program] = fitting
                        results.write_json(folder / results.CONFIG, record)
                    reporter.update(progress)
        if execute.unfinished(folder, groups, at_once, parts):
            raise KeyboardInterrupt
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        yield store.write_table(folder, runs)


def _is_plan(at_once: object, num_groups: int) -> TypeGuard[list[int]]:
    """Whether this says of each group how many of its runs go at once."""
    return (
        isinstance(at_once, list)
        and len(at_once) == num_groups
        and all(type(count) is int and count > 0 for count in at_once)
    )


def _is_limit(limit: object) -> TypeGuard[int | None]:
    """Tell if this is a number of bytes, or None."""
    return limit is None or (type(limit) is int and limit > 0)


def _described(runs: Sequence[RunConfig]) -> dict[str, Any]:
    """The settings that all runs have, and the values of the others."""
    names = grid.varied(runs)
    common = {k: v for k, v in as_record(runs[0]).items() if k not in names}
    values = {k: list(dict.fromkeys(plain(getattr(run, k)) for run in runs)) for k in names}
    return {"runs": len(runs), "settings": common, "axes": values, "own_code": digests(runs)}
