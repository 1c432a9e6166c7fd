"""One step on 1, 2, 4 and 8 devices of a CPU.

Strong scaling has the same workers on more and more devices, weak scaling so many on each. All
devices share the machine's cores, so that the figures show what spreading the workers costs, not
what it gains; and that the result stays that of one device, which is checked to 1e-4 of the way
that the parameters have gone. Each point is measured in a process of its own.

What a step costs on GPUs and TPUs that aren't there: see benchmarks/accelerators.py.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict

from benchmarks import report, workload
from benchmarks._point import Point, measured_or_nan
from benchmarks.spread import SHARED, Kind, Row, picture, rows
from medjax.lab.settings import algorithms, cli, named
from medjax.lab.storage import results

RULES = ("mean", "noisy_sign", "median", "krum")
DEVICES = (1, 2, 4, 8)
TOLERANCE = 1e-4
"""Of the difference from one device's parameters, as a part of how far these have moved."""

Workers = dict[Kind, dict[int, int]]
"""The number of workers by that of devices, of both kinds."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 1 if a point failed or its result differs, 2 for a mistake."""
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
        type=named.one_of("rule", algorithms.RULE_TABLE),
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
        help=f"of the CPU, besides one (default: {' '.join(map(str, DEVICES))})",
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
        (name, n, k): measured_or_nan(
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
    # Written so that NaN, of a point that failed, is none that is good.
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
