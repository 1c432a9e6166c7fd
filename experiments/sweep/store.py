"""A sweep's folder: what is finished stays, and is not run again.

Every chunk of runs is written whole to a part of its own as soon as it is done, and the table is
made of the parts at the end. So however a sweep ends, starting it again goes on where it was.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from experiments import results
from experiments.config import RunConfig

TABLE = "results.parquet"
_PARTS = "parts"


def fingerprint(runs: Sequence[RunConfig]) -> str:
    """Eight digits that differ where grids do."""
    return hashlib.sha256(json.dumps([_settings(run) for run in runs]).encode()).hexdigest()[:8]


def part(folder: Path, program: int, chunk: int) -> Path:
    """Where a chunk's measurements are, once they are complete."""
    return folder / _PARTS / f"{program:04d}-{chunk:05d}.parquet"


def write_table(folder: Path, runs: Sequence[RunConfig]) -> dict[str, np.ndarray]:
    """Put the parts together: a row for each run and measurement, settings first.

    Returns:
        The table's columns.
    """
    parts = sorted((folder / _PARTS).glob("*.parquet"))
    table = pa.concat_tables(map(results.read_table, parts), promote_options="default")
    table = table.sort_by([("run", "ascending"), ("step", "ascending")])
    measured = {name: table[name].to_numpy() for name in table.column_names}
    settings = [_settings(run) for run in runs]
    places = pa.array(measured.pop("run"))
    columns: dict[str, pa.Array] = {"run": places}
    for name in settings[0]:
        column = _column([values[name] for values in settings])
        columns[name] = column.take(places)
    results.write_table(folder / TABLE, columns | measured)
    as_numpy = {name: x.to_numpy(zero_copy_only=False) for name, x in columns.items()}
    return as_numpy | measured


def _settings(run: RunConfig) -> dict[str, Any]:
    return {name: value for name, value in asdict(run).items() if name != "out"}


def _column(values: list[Any]) -> pa.Array:
    """Numbers, or words if there is one among them; null where a setting doesn't apply."""
    if any(isinstance(value, str) for value in values):
        values = [value if value is None else str(value) for value in values]
    return pa.array(values)
