"""Time of a step and peak memory, as the number of workers n and of parameters d grow.

Each point is measured in a process of its own. Its memory is the peak of the whole process, images
and compiler included: in total, and beyond the baseline, a process that makes the same steps with
the smallest number of workers and 1 hidden unit.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict

from benchmarks import report, workload
from benchmarks._point import Point, measure_in_subprocess, measure_or_nan
from benchmarks.growth import WORDS, Row, Size, picture, rows
from medjax.lab.settings import cli
from medjax.lab.storage import results

WORKERS = (10, 100, 1000, 10_000)
DIMS = (10_000, 100_000, 1_000_000, 10_000_000)
WORKERS_OF_DIMS = 10
"""Number of workers while d grows."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 1 if a point failed."""
    parser = cli.Parser("python -m benchmarks.scaling", __doc__ or "")
    parser.add_argument(
        "--rule",
        metavar="NAME",
        type=workload.rule_name,
        default="noisy_sign",
        help="(default: noisy_sign)",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        nargs="*",
        type=cli.integer(1),
        default=WORKERS,
        help=f"of the 784-128-10 network (default: {' '.join(map(str, WORKERS))})",
    )
    parser.add_argument(
        "--dims",
        metavar="D",
        nargs="*",
        type=cli.integer(workload.num_params(1)),
        default=DIMS,
        help="about so many parameters, in a network as wide as that takes, of "
        f"{WORKERS_OF_DIMS} workers (default: {' '.join(map(str, DIMS))})",
    )
    parser.add_argument(
        "--batch-size", metavar="B", type=cli.integer(1), default=8, help="(default: 8)"
    )
    parser.add_argument(
        "--worker-chunk", metavar="C", type=cli.integer(1), help="medjax's (default: its own)"
    )
    parser.add_argument("--plot", metavar="FILE", type=report.picture, help="also draw it here")
    report.add_common_options(parser)
    arguments = parser.parse_args(argv)
    points: dict[Size, set[tuple[int, int]]] = {
        "n": {(n, workload.HIDDEN) for n in arguments.workers},
        "d": {(WORKERS_OF_DIMS, workload.hidden(d)) for d in arguments.dims},
    }
    if not any(points.values()):
        parser.error("nothing to measure: give a size to --workers or --dims")
    settings = {k: v for k, v in vars(arguments).items() if k not in ("json", "plot")}
    common = {k: settings[k] for k in ("batch_size", "repeats", "worker_chunk")}
    try:
        workers = {n for pairs in points.values() for n, _ in pairs}
        for n in workers:
            workload.optimizer(arguments.rule, n)
        baseline = measure_in_subprocess(
            Point(arguments.rule, min(workers), 1, arguments.batch_size, 1)
        )
    except (ValueError, RuntimeError) as error:
        parser.error(str(error))

    tables: dict[Size, list[Row]] = {
        along: rows(
            along,
            [
                (
                    n,
                    workload.num_params(hidden),
                    measure_or_nan(
                        Point(arguments.rule, n, hidden, **common),
                        f"n = {n}, d = {workload.num_params(hidden)}",
                    ),
                )
                for n, hidden in sorted(pairs)
            ],
            baseline,
        )
        for along, pairs in points.items()
        if pairs
    }
    title = f"{arguments.rule}, batches of {arguments.batch_size}"
    record = report.provenance()
    print(title)
    report.print_machine(record)
    for along, table in tables.items():
        _print(along, table)
    print(f"The baseline is {baseline.peak_bytes / 1e6:.0f} MB.")
    if arguments.json is not None:
        figures = {"baseline": asdict(baseline)} | {
            along: [asdict(row) for row in table] for along, table in tables.items()
        }
        results.write_json(arguments.json, record | {"settings": settings, "figures": figures})
    if arguments.plot is not None:
        results.write_figure(arguments.plot, picture(tables, title))
        print(f"picture in {arguments.plot}")
    failed = any(math.isnan(row.ms) for table in tables.values() for row in table)
    return 1 if failed else 0


def _print(along: Size, table: Sequence[Row]) -> None:
    headings = ("n", "d", "ms", f"per {WORDS[along]}", "peak, MB", "beyond, MB", "compile, s")
    formats = ("{}", "{}", "{:.3g}", "{:.2f}×", "{:.0f}", "{:.0f}", "{:.1f}")
    report.print_table(headings, (report.cells(formats, _values(row)) for row in table))


def _values(row: Row) -> tuple[float, ...]:
    return row.n, row.d, row.ms, row.relative, row.peak_mb, row.beyond_mb, row.compile_s


if __name__ == "__main__":
    sys.exit(main())
