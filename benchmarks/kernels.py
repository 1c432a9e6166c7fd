"""Time of each kernel alone, on n vectors of d numbers, beside JAX, NumPy and PyTorch.

The others are called in the obvious way, PyTorch where it is installed. Nothing else should run
meanwhile: it would slow down the threads of PyTorch by more than its share.
"""

import itertools
import sys
from collections.abc import Sequence
from dataclasses import asdict

from benchmarks import report
from benchmarks.libraries import torch
from benchmarks.matrices import KERNELS, Row, measure_size
from medjax.lab.settings import cli
from medjax.lab.storage import results

WORKERS = (5, 11, 101, 1001)
DIMS = (10_000, 100_000, 1_000_000)
ALWAYS = ((101, 101_770), (1001, 20_000))
"""Further default sizes, for which the project has targets."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = cli.Parser("python -m benchmarks.kernels", __doc__ or "")
    parser.add_argument(
        "--kernels",
        metavar="NAME",
        nargs="+",
        type=cli.one_of("kernel", KERNELS),
        default=KERNELS,
        help=f"of {', '.join(KERNELS)} (default: all)",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        nargs="+",
        type=cli.integer(1),
        help=f"(default: {_spaced(WORKERS)})",
    )
    parser.add_argument(
        "--dims",
        metavar="D",
        nargs="+",
        type=cli.integer(1),
        help=f"(default: {_spaced(DIMS)}; without --workers and --dims, also "
        + " and ".join(f"n = {n} with d = {d}" for n, d in ALWAYS)
        + ")",
    )
    parser.add_argument(
        "--max-gigabytes",
        metavar="G",
        type=cli.number(0, exclusive=True),
        default=1.0,
        help="leave out larger matrices (default: 1)",
    )
    parser.add_argument(
        "--budget",
        metavar="SECONDS",
        type=cli.number(0, exclusive=True),
        default=30.0,
        help="leave out another library's call that would take longer (default: 30)",
    )
    report.add_common_options(parser)
    arguments = parser.parse_args(argv)

    workers, dims = arguments.workers or WORKERS, arguments.dims or DIMS
    sizes: set[tuple[int, int]] = set(itertools.product(workers, dims))
    if arguments.workers is None and arguments.dims is None:
        sizes.update(ALWAYS)
    too_large = {(n, d) for n, d in sizes if _gigabytes(n, d) > arguments.max_gigabytes}
    if sizes == too_large:
        parser.error(f"every matrix has more than --max-gigabytes {arguments.max_gigabytes:g}")

    rows = [
        row
        for n, d in sorted(sizes - too_large)
        for row in measure_size(arguments.kernels, n, d, arguments.repeats, arguments.budget)
    ]
    rows.sort(key=lambda row: KERNELS.index(row.kernel))
    packages = [] if torch is None else ["torch"]
    record = report.provenance(packages)
    report.print_machine(record, packages)
    print_rows(rows)
    for n, d in sorted(too_large):
        print(f"Left out: n = {n}, d = {d}, a matrix of {_gigabytes(n, d):.1f} GB.")
    if any(row.estimated_s for row in rows):
        print(f"{report.NOT_MEASURED} above --budget {arguments.budget:g} seconds a call.")
    if torch is None:
        print("PyTorch is left out: it needs the package torch.")
    if arguments.json is not None:
        settings = {k: v for k, v in vars(arguments).items() if k != "json"}
        figures = [asdict(row) for row in rows]
        results.write_json(arguments.json, record | {"settings": settings, "figures": figures})
    return 0


def print_rows(rows: Sequence[Row]) -> None:
    """Print the table."""
    headings = ("kernel", "n", "d", "ms", "compile, s", "jnp", "NumPy", "PyTorch")
    report.print_table(
        headings,
        (
            (
                row.kernel,
                str(row.n),
                str(row.d),
                f"{row.figures['medjax'].ms:.3g}",
                f"{row.figures['medjax'].compile_s:.1f}",
                *(report.ratio(row.slower(name)) for name in ("jnp", "NumPy", "PyTorch")),
            )
            for row in rows
        ),
    )
    print("The last columns: how many times slower than medjax.")


def _gigabytes(n: int, d: int) -> float:
    return 4 * n * d / 1e9


def _spaced(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


if __name__ == "__main__":
    sys.exit(main())
