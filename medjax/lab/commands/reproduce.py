"""Run again what is in a folder, and compare: `medjax reproduce DIR`."""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from medjax.lab import tables
from medjax.lab.commands import run as one_run
from medjax.lab.machine import devices
from medjax.lab.settings import cli
from medjax.lab.settings.config import Settings, as_record, from_record
from medjax.lab.settings.flags import add_out, as_flags
from medjax.lab.storage import checkpoints, results
from medjax.lab.sweeps import store
from medjax.lab.sweeps.session import run_grid
from medjax.lab.task.training import stop_on_signal

_DESCRIPTION = """\
Run again what is in the folder of a run or a sweep, with its own settings, and compare every
measurement.

On the same machine with the same versions all are the same bit for bit. Elsewhere, or on other
devices, sums are rounded in another order, which votes and many steps can amplify: --tolerance says
how far a measurement may be off. Returns 0 if all are as close as that, else 1."""

_ABOUT = ("commit", "versions", "device")


class Difference(NamedTuple):
    """The difference of one metric.

    Attributes:
        metric: its name.
        largest: |recorded - again|, the largest, as a part of the largest |recorded|; infinite
            where only one of them is finite, or they are infinities of different signs.
        step: where.
        identical: whether all are the same, bit for bit.
    """

    metric: str
    largest: float
    step: int
    identical: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command; return 0 if the results are the same, 1 if not, 130 if stopped."""
    parser = cli.Parser("medjax reproduce", _DESCRIPTION)
    parser.add_argument("folder", metavar="DIR", type=Path, help="of a run or a sweep")
    parser.add_argument(
        "--tolerance",
        metavar="SHARE",
        type=cli.number(0),
        default=0.01,
        help="of a metric's largest value, by which a measurement may differ (default: 0.01)",
    )
    devices.add_machine(parser)
    add_out(parser)
    arguments = parser.parse_args(argv)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    try:
        record, recorded = _read(arguments.folder)
        with _somewhere(arguments.out) as out:
            again = _run_again(console, arguments, record, recorded, out)
            now = results.read_config(out)
        found = differences(recorded, again)
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("stopped before the comparison", file=sys.stderr)
        return cli.STOPPED
    if arguments.out is None:
        console.print("the second folder isn't kept; --out DIR keeps one", soft_wrap=True)
    for line in _changed(record, now):
        console.print(line, soft_wrap=True, markup=False)
    return _tell(console, found, arguments.tolerance)


def differences(recorded: pa.Table, again: pa.Table) -> list[Difference]:
    """Compare each metric of two tables, at the places that both have measured.

    Raises:
        ValueError: if they have no measurement or no metric in common.
    """
    keys = [name for name in ("run", "step") if name in recorded.column_names]
    places = [list(zip(*(t[k].to_pylist() for k in keys), strict=True)) for t in (recorded, again)]
    where = {place: row for row, place in enumerate(places[1])}
    rows = [row for row, place in enumerate(places[0]) if place in where]
    others = [where[places[0][row]] for row in rows]
    names = [
        name
        for name in recorded.column_names[recorded.column_names.index("step") + 1 :]
        if name in again.column_names
    ]
    if not rows or not names:
        raise ValueError("the two tables have no measurement in common")
    steps = recorded["step"].to_numpy()[rows]
    return [
        _difference(name, recorded[name].to_numpy()[rows], again[name].to_numpy()[others], steps)
        for name in names
    ]


def _difference(name: str, a: np.ndarray, b: np.ndarray, steps: np.ndarray) -> Difference:
    a, b = a.astype(np.float64), b.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    size = np.abs(a[np.isfinite(a)]).max(initial=0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        off = np.where(same, 0.0, np.abs(a - b) / size)
    off = np.where(np.isnan(off), np.inf, off)
    worst = int(off.argmax())
    return Difference(name, float(off[worst]), int(steps[worst]), bool(same.all()))


def _read(folder: Path) -> tuple[dict[str, Any], pa.Table]:
    """A folder's configuration and its table, of a run or a sweep."""
    record = results.read_config(folder)
    is_run, is_sweep = isinstance(record.get("config"), dict), isinstance(record.get("grid"), str)
    if not is_run and not is_sweep:
        raise ValueError(f"{str(folder)!r} isn't the folder of a run or a sweep")
    path = folder / (checkpoints.METRICS if is_run else store.TABLE)
    if not path.exists():
        raise ValueError(f"{str(folder)!r} has no {path.name} to compare with: it isn't finished")
    try:
        return record, results.read_table(path)
    except OSError as error:
        raise ValueError(f"{str(path)!r} can't be read: {error}") from None


@contextlib.contextmanager
def _somewhere(out: str | None) -> Iterator[Path]:
    if out is not None:
        results.check_folder(Path(out))
        yield Path(out)
        return
    with tempfile.TemporaryDirectory(prefix="reproduced-") as folder:
        yield Path(folder) / "again"


def _run_again(
    console: Console,
    arguments: argparse.Namespace,
    record: Mapping[str, Any],
    recorded: pa.Table,
    out: Path,
) -> pa.Table:
    """The table of the same settings, run in another folder.

    Raises:
        KeyboardInterrupt: if it was stopped.
    """
    if "grid" not in record:
        mesh = ",".join(f"{axis}={size}" for axis, size in arguments.mesh.items())
        flags = ["--devices", str(arguments.devices), *(["--mesh", mesh] if mesh else [])]
        code = one_run.main(
            [
                *as_flags(as_record(checkpoints.recorded(arguments.folder, record))),
                *flags,
                "--out",
                str(out),
            ]
        )
        if code == cli.STOPPED:
            raise KeyboardInterrupt
        if code:
            raise SystemExit(code)  # it has said why
        return results.read_table(out / checkpoints.METRICS)
    runs = _grid(recorded)
    checkpoints.check_own_code(arguments.folder, record, runs)
    if store.fingerprint(runs) != record["grid"]:
        raise ValueError("the table's settings aren't those that the sweep was begun with")
    mesh = devices.make_mesh(arguments, default="grid")
    with stop_on_signal() as stop, run_grid(console, out, runs, stop, mesh):
        return results.read_table(out / store.TABLE)


def _grid(recorded: pa.Table) -> list[Settings]:
    """Return the runs of a sweep's table, in their order.

    Raises:
        ValueError: if it isn't one.
    """
    lacking = {"run", "step"} - {*recorded.column_names}
    if lacking:
        raise ValueError(f"the table is no sweep's: it has no column {min(lacking)!r}")
    settings = recorded.select(recorded.column_names[: recorded.column_names.index("step")])
    runs = {row.pop("run"): row for row in settings.to_pylist()}
    return [from_record(runs[place]) for place in sorted(runs)]


def _changed(record: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Tell what has changed since the results were recorded."""
    was, is_now = (r["sessions"][-1] if r.get("sessions") else r for r in (record, now))
    for name in _ABOUT:
        old, new = was.get(name), is_now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            for key in old.keys() | new.keys():
                if old.get(key) != new.get(key):
                    yield f"{name}: {key} was {old.get(key)}, is {new.get(key)}"
        elif old != new:
            yield f"{name}: was {old}, is {new}"


def _tell(console: Console, found: Sequence[Difference], tolerance: float) -> int:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "largest difference", "at step"):
        table.add_column(heading, justify="right" if heading else "left")
    for each in found:
        off = "none" if each.identical else f"{each.largest:.2g}"
        table.add_row(each.metric, off, "" if each.identical else str(each.step))
    tables.show(console, table)
    if all(each.identical for each in found):
        print("\nidentical, bit for bit")
        return 0
    worst = max(found, key=lambda each: each.largest)
    verdict = "the same" if worst.largest <= tolerance else "not the same"
    print(
        f"\n{verdict} within {tolerance:g}: {worst.metric} is off by {worst.largest:.2g} of its "
        f"largest value at step {worst.step}"
    )
    return 0 if worst.largest <= tolerance else 1
