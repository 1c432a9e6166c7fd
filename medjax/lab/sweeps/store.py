"""A sweep's folder: finished runs stay there, and aren't run again.

Every chunk of runs is written whole to a part of its own as soon as it is done, and the table is
made of the parts at the end. So however a sweep ends, starting it again goes on from there.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from medjax.lab.plots import METRICS
from medjax.lab.settings.config import SETTINGS, Settings, as_record, digests
from medjax.lab.storage import results
from medjax.lab.storage.keeper import FOLDER

TABLE = "results.parquet"
_RUNS = "runs.parquet"
PARTS = "parts"


def fingerprint(runs: Sequence[Settings]) -> str:
    """Return eight digits that tell grids apart."""
    content = [as_record(run) for run in runs], digests(runs)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]


def part(folder: Path, program: int, chunk: int) -> Path:
    """Return the path of a chunk's measurements, which is there once they are complete."""
    return folder / PARTS / f"{program:04d}-{chunk:05d}.parquet"


def parts(folder: Path) -> list[Path]:
    """List the parts that are complete."""
    return sorted((folder / PARTS).glob("*.parquet"))


def begun(folder: Path, program: int) -> bool:
    """Tell if a chunk of a program is complete, or has a checkpoint."""
    kept = (path for place in (PARTS, FOLDER) for path in (folder / place).glob(f"{program:04d}-*"))
    return any(kept)


def write_table(folder: Path, runs: Sequence[Settings]) -> dict[str, np.ndarray]:
    """Put the parts together to a table: a row for each run and measurement, settings first.

    Returns:
        The table's columns.
    """
    table = _joined(folder)
    measured = {name: table[name].to_numpy() for name in table.column_names}
    places = pa.array(measured.pop("run"))
    columns: dict[str, pa.Array] = {"run": places}
    columns |= {name: column.take(places) for name, column in _columns(runs).items()}
    results.write_table(folder / TABLE, columns | measured)
    as_numpy = {name: x.to_numpy(zero_copy_only=False) for name, x in columns.items()}
    return as_numpy | measured


def write_runs(folder: Path, runs: Sequence[Settings]) -> None:
    """Write the runs' settings, so that the parts can be read before there is a table."""
    results.write_table(folder / _RUNS, _columns(runs))


def read(folder: Path) -> tuple[list[Settings], dict[str, np.ndarray]]:
    """Read the finished runs of a sweep and their measurements, as if there were no others.

    Returns:
        The runs, and the table's columns without their settings; empty if none is finished.

    Raises:
        ValueError: if the files aren't those of a sweep.
    """
    try:
        rows, measured = _read(folder)
        columns = {name: measured[name].to_numpy() for name in measured.column_names}
        words = [name for name, values in columns.items() if values.dtype.kind not in "iuf"]
        missing = ({"run", "step", *METRICS} - {*columns}) if rows else set()
        if missing or words:
            raise ValueError(f"no numbers in {', '.join(sorted({*missing, *words}))}")
        runs = [_run(row) for row in rows]
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"{str(folder)!r}'s files can't be read: {error}") from None
    if runs:
        columns["run"] = np.unique(columns["run"], return_inverse=True)[1]
    return runs, columns


def _read(folder: Path) -> tuple[list[dict[str, Any]], pa.Table]:
    """Read the settings of each finished run, and the measurements without them."""
    if (folder / TABLE).exists():
        table = results.read_table(folder / TABLE)
        _, first = np.unique(table["run"].to_numpy(), return_index=True)
        rows = table.take(first).to_pylist()
        return rows, table.drop_columns([x for x in table.column_names if x in SETTINGS])
    if not (folder / _RUNS).exists() or not parts(folder):
        return [], pa.table({})
    measured = _joined(folder)
    rows = results.read_table(folder / _RUNS).take(np.unique(measured["run"])).to_pylist()
    return rows, measured


def _joined(folder: Path) -> pa.Table:
    """Read the parts, sorted by run and step."""
    tables = map(results.read_table, parts(folder))
    table = pa.concat_tables(tables, promote_options="default")
    return table.sort_by([("run", "ascending"), ("step", "ascending")])


def _columns(runs: Sequence[Settings]) -> dict[str, pa.Array]:
    """Make columns of the settings, a row for each run."""
    rows = [as_record(run) for run in runs]
    return {name: _column([row[name] for row in rows]) for name in rows[0]}


def _run(row: dict[str, Any]) -> Settings:
    """Make a run from its row, with words for what isn't a number: no code is loaded for it."""
    values = {name: _number(row.get(name)) for name in SETTINGS}
    return Settings(**values | {"rule": row["rule"]})  # without which it isn't one


def _number(value: Any) -> Any:
    """Return the number that a word is, in a column where others are words."""
    for kind in (int, float):
        if isinstance(value, str):
            with suppress(ValueError):
                return kind(value)
    return value


def _column(values: list[Any]) -> pa.Array:
    """Make a column of numbers, or of words if there is one among them; null for None."""
    if any(isinstance(value, str) for value in values):
        values = [value if value is None else str(value) for value in values]
    return pa.array(values)
