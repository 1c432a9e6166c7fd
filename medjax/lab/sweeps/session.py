"""One session of a sweep: from its runs and its folder to its table, whatever was done before."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console

from medjax.lab.machine import devices
from medjax.lab.machine.memory import exhaustion, free_bytes
from medjax.lab.settings.config import Settings, as_record, digests, static
from medjax.lab.settings.field import plain
from medjax.lab.storage import results
from medjax.lab.storage.files import remove_partial
from medjax.lab.storage.keeper import FOLDER
from medjax.lab.storage.locks import alone_in
from medjax.lab.sweeps import execute, grid, report, select, store
from medjax.lab.sweeps.cluster import dispatch
from medjax.lab.sweeps.cluster.workers import Cluster
from medjax.lab.sweeps.fit import LESS_MEMORY
from medjax.lab.sweeps.plan import Group, make_groups, runs_side_by_side
from medjax.lab.sweeps.watched import Watching
from medjax.lab.task.setup import check, load_data
from medjax.lab.task.training import Stop


@contextmanager
def run_grid(
    console: Console,
    folder: Path,
    runs: Sequence[Settings],
    stop: Stop,
    mesh: Mesh | None = None,
    checkpoint_every: int | None = None,
    watchers: Mapping[str, str] | None = None,
    cluster: Cluster | None = None,
) -> Iterator[select.Columns]:
    """Run what isn't finished of a grid.

    Args:
        console: for the plan and the progress.
        folder: the sweep's.
        runs: the grid.
        stop: ends the session early.
        mesh: the devices; None for one.
        checkpoint_every: steps between checkpoints of the chunk under way; None for what an earlier
            session had, or none.
        watchers: programs that show the runs; see `watching.chosen`.
        cluster: the nodes that run the chunks, in the place of this process; see
            `cluster.connect.joined`. They keep no checkpoints.

    Yields:
        The table's columns, to a block in which no other process works in the folder.

    Raises:
        ValueError: if the runs' settings don't fit each other or the data, if the folder holds
            something else, or was begun on a mesh with another grid axis.
        KeyboardInterrupt: if stopped; what is finished stays in the folder.
    """

    def tell(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False)

    purpose = {"grid": store.fingerprint(runs)}
    results.check_own_folder(folder, **purpose)
    with console.status("loading the data"):
        for config in dict.fromkeys(map(static, runs)):
            check(config)
        wanted = sorted({(run.dataset, run.clients) for run in runs}, key=str)
        datasets = {each: load_data(*each) for each in wanted}
        groups = make_groups(runs, datasets)
    with alone_in(folder):
        remove_partial(folder / store.PARTS)
        parts = devices.parts(mesh)
        if cluster is None:
            platform, free = jax.default_backend(), free_bytes()
        else:
            platform, free = cluster.platform, cluster.free_bytes
        record = results.read_config(folder)
        if not record:
            plan = _plan(groups, parts, platform, free)
            record = {"folder": str(folder), **purpose, **_described(runs), **plan}
        _check_record(folder, record, len(groups), parts)
        sizes, limit = record["runs_side_by_side"], record.get("memory_limit")
        work = execute.unfinished(folder, groups, sizes, parts)
        for line in report.plan(runs, len(groups), work, free):
            tell(line)
        tell(f"results    {folder}\n")
        watching = Watching(folder, runs, watchers or {}, tell)
        watching.complete()
        if work:
            every = checkpoint_every or record.get("checkpoint_every")
            record["checkpoint_every"] = every
            where = devices.described(mesh) if cluster is None else cluster.described()
            record["sessions"].append(results.provenance() | where)
            results.write_json(folder / results.CONFIG, record)
            store.write_runs(folder, runs)
            with report.Reporter(console, work) as reporter, exhaustion(LESS_MEMORY):
                if cluster is None:
                    done = execute.execute(folder, work, stop, mesh, every, limit)
                else:
                    done = dispatch.execute(cluster, folder, work, datasets, stop, limit)
                for progress in done:
                    fitting = progress.runs_side_by_side
                    if fitting is not None and fitting != sizes[progress.program]:
                        sizes[progress.program] = fitting
                        results.write_json(folder / results.CONFIG, record)
                    reporter.update(progress)
                    if progress.finished:
                        watching.complete()
        if execute.unfinished(folder, groups, sizes, parts):
            raise KeyboardInterrupt
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        yield store.write_table(folder, runs)


def _plan(groups: Sequence[Group], parts: int, platform: str, budget: int) -> dict[str, Any]:
    """Decide how a grid is cut, once: later sessions cut it likewise, for the same numbers."""
    sizes = [parts * runs_side_by_side(group, budget, platform) for group in groups]
    return {
        "runs_side_by_side": sizes,
        "devices_of_grid": parts,
        # On a CPU, that the runs are side by side in the cache counts more than the memory.
        "memory_limit": None if platform == "cpu" else budget,
        "sessions": [],
    }


def _described(runs: Sequence[Settings]) -> dict[str, Any]:
    """List the settings that all runs share, and the values of the others."""
    names = grid.varied(runs)
    common = {k: v for k, v in as_record(runs[0]).items() if k not in names}
    values = {k: list(dict.fromkeys(plain(getattr(run, k)) for run in runs)) for k in names}
    return {"runs": len(runs), "settings": common, "axes": values, "own_code": digests(runs)}


def _check_record(folder: Path, record: Mapping[str, Any], num_groups: int, parts: int) -> None:
    """Check that a sweep's configuration is one that it can go on from, with these devices."""
    sizes, limit = record.get("runs_side_by_side"), record.get("memory_limit")
    every = record.get("checkpoint_every")
    if not (
        isinstance(sizes, list)
        and len(sizes) == num_groups
        and all(map(_is_count, sizes))
        and (limit is None or _is_count(limit))
        and (every is None or _is_count(every))
        and isinstance(record.get("sessions"), list)
    ):
        raise ValueError(f"{str(folder / results.CONFIG)!r} isn't as the sweep left it")
    begun = record.get("devices_of_grid", 1)
    if parts != begun:
        raise ValueError(
            f"{folder} was begun with grid={begun} devices, and goes on with as many, got {parts}"
        )


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0
