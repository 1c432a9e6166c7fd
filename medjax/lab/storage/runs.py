"""Read the folder of a run."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from medjax.lab.settings import wording
from medjax.lab.storage import results

COMPARED = ("train_loss", "train_accuracy", "test_accuracy", "grad_norm", "median_mean_gap")
"""The metrics that every run has, and that tables compare."""


def read(folder: Path) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Read a run's configuration and its measurements.

    Args:
        folder: the run's.

    Returns:
        The configuration, with the settings under `config`; and the columns of the table.

    Raises:
        ValueError: if the folder doesn't hold a run, or one of which nothing is measured.
    """
    try:
        record = results.read_config(folder)
        if not record:
            raise ValueError(f"there is no {results.CONFIG}")
        if "grid" in record:
            raise ValueError("it holds a sweep, of which `medjax report` makes a page")
        wording.describe(record["config"])  # has what every run has
        columns = results.read_table(folder / "metrics.parquet").to_pydict()
        missing = {"step", *COMPARED} - {name for name, values in columns.items() if values}
        if missing:
            raise ValueError(f"metrics.parquet lacks {', '.join(sorted(missing))}")
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"{str(folder)!r} doesn't hold a run: {error}") from None
    return record, columns
