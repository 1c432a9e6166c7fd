"""Time of one step on 1, 2, 4 and 8 devices of a CPU.

Strong scaling keeps the number of workers in all, weak scaling that on each device. All devices
share the cores of the machine, so that the figures show the cost of spreading the workers, not the
gain. The result must be that of one device, to 1e-4 of the distance that the parameters have moved.
Each point is measured in a process of its own.

For the cost of a step on absent GPUs and TPUs see benchmarks/accelerators.py.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict

from benchmarks import report, workload
from benchmarks._point import Point, measure_or_nan
from benchmarks.spread import SHARED, Kind, Row, picture, rows
from medjax.lab.settings import cli
from medjax.lab.storage import results

RULES = ("mean", "noisy_sign", "median", "krum")
DEVICES = (1, 2, 4, 8)
TOLERANCE = 1e-4
"""Largest allowed `workload.difference` from one device."""

Workers = dict[Kind, dict[int, int]]
"""The number of workers by the number of devices, for both kinds of scaling."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 1 if a point failed or its result differs."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    arguments.rule = list(dict.fromkeys(arguments.rule))
    workers = _workers(arguments)
    try:
        for name in arguments.rule:
            for n in sorted({n for _, n in _points(workers)}):
                workload.rule(name, n)
    except ValueError as error:
        parser.error(str(error))
    return _measure(arguments, workers)


def _parser() -> cli.Parser:
    parser = cli.Parser("python -m benchmarks.devices", __doc__ or "")
    parser.add_argument(
        "--rule",
        metavar="NAME",
        nargs="+",
        type=workload.rule_name,
        default=RULES,
        help=f"(default: {' '.join(RULES)})",
    )
    for flag, metavar, minimum, default, what in (
        ("--workers", "N", 1, 64, "in all, of strong scaling"),
        ("--batch-size", "B", 1, 8, "of each worker"),
        (
            "--dimension",
            "D",
            workload.num_params(1),
            workload.num_params(workload.HIDDEN),
            "about so many parameters",
        ),
        ("--workers-per-device", "N", 1, 8, "of weak scaling"),
    ):
        parser.add_argument(
            flag,
            metavar=metavar,
            type=cli.integer(minimum),
            default=default,
            help=f"{what} (default: {default})",
        )
    parser.add_argument(
        "--devices",
        metavar="K",
        nargs="+",
        type=cli.integer(1),
        default=DEVICES,
        help=f"of the CPU, besides 1 (default: {' '.join(map(str, DEVICES))})",
    )
    parser.add_argument("--plot", metavar="FILE", type=report.picture, help="also draw it here")
    report.add_common_options(parser)
    return parser


def _workers(arguments: Namespace) -> Workers:
    devices = sorted({1, *arguments.devices})
    per_device = arguments.workers_per_device
    return {
        "strong": {k: arguments.workers for k in devices},
        "weak": {k: per_device * k for k in devices},
    }


def _points(workers: Workers) -> list[tuple[int, int]]:
    return sorted({pair for table in workers.values() for pair in table.items()})


def _measure(arguments: Namespace, workers: Workers) -> int:
    hidden = workload.hidden(arguments.dimension)
    measured = {
        (name, n, k): measure_or_nan(
            Point(name, n, hidden, arguments.batch_size, arguments.repeats, devices=k),
            f"{name}, {n} workers on {k} devices",
        )
        for name in arguments.rule
        for k, n in _points(workers)
    }
    tables: dict[Kind, list[Row]] = {
        kind: rows(kind, arguments.rule, table, measured) for kind, table in workers.items()
    }
    title = f"batches of {arguments.batch_size}, d = {workload.num_params(hidden):,}"
    print(title)
    report.print_machine(report.provenance())
    for kind, table in tables.items():
        print("strong: the same workers" if kind == "strong" else "weak: so many on each device")
        _print(table)
    print(SHARED)
    _write_json(arguments, {kind: [asdict(row) for row in table] for kind, table in tables.items()})
    if arguments.plot is not None:
        results.write_figure(arguments.plot, picture(tables, title))
        print(f"picture in {arguments.plot}")
    # A comparison with the NaN of a failed point is False.
    good = all(m.difference <= TOLERANCE for m in measured.values())
    if not good:
        print(f"Not every result is within {TOLERANCE:g} of one device's.", file=sys.stderr)
    return 0 if good else 1


def _print(table: Sequence[Row]) -> None:
    headings = ("rule", "devices", "n", "ms", "× one device", "per worker", "difference")
    formats = ("{}", "{}", "{}", "{:.3g}", "{:.2f}×", "{:.2f}×", "{:.1e}")
    report.print_table(headings, (report.cells(formats, _values(row)) for row in table))


def _values(row: Row) -> tuple[str | float, ...]:
    return (
        row.rule,
        row.devices,
        row.workers,
        row.ms,
        row.relative,
        row.per_worker,
        row.difference,
    )


def _write_json(arguments: Namespace, figures: dict) -> None:
    if arguments.json is not None:
        settings = {k: v for k, v in vars(arguments).items() if k not in ("json", "plot")}
        record = report.provenance() | {"settings": settings, "figures": figures}
        results.write_json(arguments.json, record)


if __name__ == "__main__":
    sys.exit(main())
