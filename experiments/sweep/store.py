"""A sweep's folder: what is finished stays, and is not run again.

Every chunk of runs is written whole to a part of its own as soon as it is done, and the table is
made of the parts at the end. So however a sweep ends, starting it again goes on where it was.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from experiments import results
from experiments.config import RunConfig

TABLE = "results.parquet"
_PARTS = "parts"


def fingerprint(runs: Sequence[RunConfig]) -> str:
    """Eight digits that differ where grids do."""
    return hashlib.sha256(json.dumps([_settings(run) for run in runs]).encode()).hexdigest()[:8]


def check(folder: Path, runs: Sequence[RunConfig]) -> None:
    """See that the folder is new, or begun by a sweep of the same grid.

    Raises:
        ValueError: if it is neither, or can't be written.
    """
    if not (folder / results.CONFIG).exists():
        results.check_folder(folder)
    elif read_record(folder).get("grid") != fingerprint(runs):
        raise ValueError(
            f"output folder {str(folder)!r} already holds other results: name a new one with --out"
        )


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes from working in the folder at the same time.

    Raises:
        ValueError: if one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no such thing on Windows
            pass
        except BlockingIOError:
            raise ValueError(f"another process is at work in {str(folder)!r}") from None
        yield


def read_record(folder: Path) -> dict[str, Any]:
    """What config.json says; nothing if there is none."""
    try:
        return json.loads((folder / results.CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ValueError(f"{str(folder / results.CONFIG)!r} can't be read: {error}") from None


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write config.json anew."""
    results.write_json(folder / results.CONFIG, record)


def part(folder: Path, program: int, chunk: int) -> Path:
    """Where a chunk's measurements are, once they are complete."""
    return folder / _PARTS / f"{program:04d}-{chunk:05d}.parquet"


def write_table(folder: Path, runs: Sequence[RunConfig]) -> dict[str, np.ndarray]:
    """Put the parts together: a row for each run and measurement, settings first.

    Returns:
        The table's columns.
    """
    parts = sorted((folder / _PARTS).glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(path) for path in parts], promote_options="default")
    table = table.sort_by([("run", "ascending"), ("step", "ascending")])
    measured = {name: table[name].to_numpy() for name in table.column_names}
    settings = [_settings(run) for run in runs]
    columns: dict[str, Any] = {"run": measured.pop("run")}
    for name in settings[0]:
        column = _column([values[name] for values in settings])
        columns[name] = column.take(pa.array(columns["run"]))
    results.write_table(folder / TABLE, columns | measured)
    return columns | measured


def _settings(run: RunConfig) -> dict[str, Any]:
    return {name: value for name, value in asdict(run).items() if name != "out"}


def _column(values: list[Any]) -> pa.Array:
    """Numbers, or words if there is one among them; null where a setting doesn't apply."""
    if any(isinstance(value, str) for value in values):
        values = [value if value is None else str(value) for value in values]
    return pa.array(values)
