"""What the commands survive, and how often: `python -m benchmarks.trust`.

A killed run or sweep that is gone on with has to end with the same table and the same parameters
as one that nothing happened to, bit for bit, with no other files beside them. A refusal of the disk
has to be said in one line, with what is there whole; and once there is room again, all has to be as
if nothing had happened. A mistake has to get one line, and arbitrary bytes for whatever reads files
or words a documented error, or none. Exit code 1 if anything isn't survived.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks import bad_input, disks, fuzz, kills, report
from medjax.lab.settings import cli
from medjax.lab.storage import results


class Check(NamedTuple):
    """Something that can happen.

    Attributes:
        what: in words.
        survive: lets it happen so many times; how often it was tried, and how often survived.
        times: how many times.
        quick: how many with --quick.
    """

    what: str
    survive: Callable[[int], tuple[int, int]]
    times: int
    quick: int


CHECKS = {
    "kill-run": Check("runs that are killed", kills.runs, 20, 4),
    "kill-sweep": Check("sweeps that are killed", kills.sweeps, 20, 4),
    "full-disk": Check("disks that become full", disks.full, 30, 6),
    "read-only": Check("disks that become read-only", disks.read_only, 30, 6),
    "bad-input": Check("mistakes of users", bad_input.check, 10_000, 300),
    "fuzz": Check("arbitrary inputs", fuzz.check, 100_000, 2_000),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = cli.Parser("python -m benchmarks.trust", __doc__ or "")
    parser.add_argument("--quick", action="store_true", help="fewer of each, in some minutes")
    parser.add_argument(
        "--only",
        metavar="NAME",
        nargs="+",
        type=cli.one_of("check", CHECKS),
        action=cli.Once,
        help=f"of {', '.join(CHECKS)} (default: all)",
    )
    parser.add_argument("--json", metavar="FILE", type=report.file, help="also write it here")
    arguments = parser.parse_args(argv)
    found = {}
    with tempfile.TemporaryDirectory() as programs:
        # What is compiled once is compiled: the commands run in processes of their own.
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", programs)
        for name in arguments.only or CHECKS:
            check, begin = CHECKS[name], time.perf_counter()
            tried, survived = check.survive(check.quick if arguments.quick else check.times)
            found[name] = {"tried": tried, "survived": survived}
            found[name]["seconds"] = round(time.perf_counter() - begin)
    record = report.provenance()
    report.print_machine(record)
    rows = [[CHECKS[name].what, *map(str, figures.values())] for name, figures in found.items()]
    report.print_table(("", "tried", "survived", "seconds"), rows)
    if arguments.json is not None:
        results.write_json(arguments.json, record | {"figures": found})
    return 0 if all(each["tried"] == each["survived"] for each in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
