"""One step on 1, 2, 4 and 8 devices of a CPU, and a plan for machines that we don't have.

Strong scaling has the same workers on more and more devices, weak scaling so many on each. All
devices share the machine's cores, so that the figures show what spreading the workers costs, not
what it gains; and that the result stays that of one device, which is checked to 1e-4 of the way
that the parameters have gone. Each point is measured in a process of its own.

With --plan nothing is measured: what a step takes at least on 8 GPUs and on TPUs, by their peak
rates (see benchmarks/roofline.py).
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict

from benchmarks import plan, report, roofline, workload
from benchmarks._point import Point, measured_or_nan
from benchmarks.machines import MACHINES
from benchmarks.spread import SHARED, Kind, Row, picture, rows
from experiments import algorithms, cli, named, results

RULES = ("mean", "noisy_sign", "median", "krum")
DEVICES = (1, 2, 4, 8)
TOLERANCE = 1e-4
"""Of the difference from one device's parameters, as a part of how far these have moved."""

Workers = dict[Kind, dict[int, int]]
"""The number of workers by that of devices, of both kinds."""

_MEASURED = {"workers": 64, "batch_size": 8, "dimension": workload.num_params(workload.HIDDEN)}
_PLANNED = {"workers": 1024, "batch_size": 32, "dimension": 10_000_000}
_ONLY = {"plan": ("machine", "flops"), "measure": ("plot", "devices", "workers_per_device")}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 1 if a point failed or its result differs, 2 for a mistake."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    for name in _ONLY["measure" if arguments.plan else "plan"]:
        if getattr(arguments, name) is not None:
            needs = "isn't for a plan" if arguments.plan else "needs --plan"
            parser.error(f"--{name.replace('_', '-')} {needs}")
    for name, default in (_PLANNED if arguments.plan else _MEASURED).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)
    arguments.rule = list(dict.fromkeys(arguments.rule))
    workers = _workers(arguments)
    sizes = {arguments.workers} if arguments.plan else {n for _, n in _points(workers)}
    try:
        for name in arguments.rule:
            for n in sorted(sizes):
                (roofline.rule_of if arguments.plan else workload.rule)(name, n)
    except ValueError as error:
        parser.error(str(error))
    return _plan(arguments) if arguments.plan else _measure(arguments, workers)


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
    for flag, metavar, minimum, what in (
        ("--workers", "N", 1, "in all, of strong scaling and of the plan"),
        ("--batch-size", "B", 1, "of each worker"),
        ("--dimension", "D", workload.num_params(1), "about so many parameters"),
    ):
        name = flag[2:].replace("-", "_")
        parser.add_argument(
            flag,
            metavar=metavar,
            type=cli.integer(minimum),
            help=f"{what} (default: {_MEASURED[name]}; of the plan {_PLANNED[name]})",
        )
    parser.add_argument(
        "--devices",
        metavar="K",
        nargs="+",
        type=cli.integer(1),
        help=f"of the CPU, besides one (default: {' '.join(map(str, DEVICES))})",
    )
    parser.add_argument(
        "--workers-per-device",
        metavar="N",
        type=cli.integer(1),
        help="of weak scaling (default: 8)",
    )
    parser.add_argument("--plot", metavar="FILE", type=report.picture, help="also draw it here")
    report.add_common_options(parser)
    parser.add_argument("--plan", action="store_true", help="measure nothing, plan")
    parser.add_argument(
        "--machine",
        metavar="NAME",
        nargs="+",
        type=cli.one_of("machine", MACHINES),
        help=f"of the plan (default: {' '.join(MACHINES)})",
    )
    parser.add_argument(
        "--flops",
        metavar="X",
        type=cli.number(0, exclusive=True),
        help="of one worker's gradient, in the plan (default: 6·D·B, of a fully connected network)",
    )
    return parser


def _plan(arguments: Namespace) -> int:
    n, d, batch_size = arguments.workers, arguments.dimension, arguments.batch_size
    flops = None if arguments.flops is None else arguments.flops / d
    figures = plan.show(
        arguments.rule, roofline.Work(n, d, batch_size, flops), arguments.machine or list(MACHINES)
    )
    _write_json(arguments, figures)
    return 0


def _workers(arguments: Namespace) -> Workers:
    devices = sorted({1, *(arguments.devices or DEVICES)})
    per_device = arguments.workers_per_device or 8
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
