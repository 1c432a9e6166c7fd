"""Time, memory and growth of three large settings, each measured at its size and at half of it.

Each is a process of its own, whose memory is the peak of the whole process, data and compiler
included.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import NamedTuple

from benchmarks import report, workload
from benchmarks._point import Point, measure_or_nan
from medjax.lab.settings import cli
from medjax.lab.storage import results


class Case(NamedTuple):
    """A setting.

    Attributes:
        title: what it is, in words.
        point: its size; half of it is half the workers.
    """

    title: str
    point: Point


CASES = {
    "workers": Case(
        "n · d = 10⁹: 10,000 workers, d = 101,770, batches of 8",
        Point("noisy_sign", 10_000, workload.HIDDEN, 8, 1),
    ),
    "transformer": Case(
        "100 workers, a transformer, windows of 32",
        Point("noisy_sign", 100, 384, 1, 1, network="transformer"),
    ),
    "clients": Case(
        "1,000 clients of a natural partition, 5 local steps of FedAvg",
        Point("mean", 1_000, workload.HIDDEN, 8, 1, network="clients", local_steps=5),
    ),
}
"""The settings by name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 1 if a setting failed."""
    parser = cli.Parser("python -m benchmarks.sizes", __doc__ or "")
    parser.add_argument(
        "--only",
        metavar="NAME",
        nargs="+",
        type=cli.one_of("setting", CASES),
        default=list(CASES),
        help=f"(default: {' '.join(CASES)})",
    )
    parser.add_argument(
        "--shrink", metavar="K", type=cli.integer(1), default=1, help="a K-th of the workers"
    )
    report.add_common_options(parser)
    arguments = parser.parse_args(argv)
    rows, figures = [], {}
    for name in arguments.only:
        title, point = CASES[name]
        whole = replace(point, workers=point.workers // arguments.shrink, repeats=arguments.repeats)
        half = replace(whole, workers=max(1, whole.workers // 2))
        one, other = (measure_or_nan(p, f"{name}, n = {p.workers}") for p in (whole, half))
        ratio = one.ms / other.ms, one.peak_bytes / other.peak_bytes
        figures[name] = {"whole": asdict(one), "half": asdict(other)} | {
            "n": whole.workers,
            "d": one.num_params,
            "growth": {"time": ratio[0], "memory": ratio[1]},
        }
        formats = ("{}", "{}", "{}", "{:.3g}", "{:.0f}", "{:.1f}", "{:.2f}×", "{:.2f}×")
        values = (one.ms / 1e3, one.peak_bytes / 1e6, one.compile_s, *ratio)
        rows.append(report.cells(formats, (title, whole.workers, one.num_params, *values)))
    record = report.provenance()
    report.print_machine(record)
    headings = ("", "n", "d", "s a step", "peak, MB", "compile, s", "time, of half", "memory")
    report.print_table(headings, rows, width=160)
    print("The last two columns: how many times those of half as many workers.")
    if arguments.json is not None:
        settings = {k: v for k, v in vars(arguments).items() if k != "json"}
        results.write_json(arguments.json, record | {"settings": settings, "figures": figures})
    return 1 if any(math.isnan(each["whole"]["ms"]) for each in figures.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
