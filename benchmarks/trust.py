"""Table of how often the commands survive kills, disks that refuse, and users' mistakes.

A run or sweep that was killed and then continued has to end with the same table and the same
parameters as an undisturbed one, bit for bit, and with no other files beside them; so has a sweep
on a Ray cluster that loses its driver or a node, and one of two commands that begin in the same
folder, of which the other has to be refused in one line. If the disk refuses, the command has to
say so in one line and leave whole files; once there is room again, the result has to be that of an
undisturbed command. A mistake has to get one line. The exit code is 1 if anything isn't survived.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

from benchmarks import bad_input, clusters, disks, kills, pairs, report
from medjax.lab.settings import cli
from medjax.lab.storage import results


class Check(NamedTuple):
    """One kind of disturbance.

    Attributes:
        label: its row in the table.
        survive: makes it happen a given number of times; returns how often it was tried, and how
            often it was survived.
        times: the number of times.
        quick: the number of times with --quick.
        needs: the package without which it can't be made to happen.
    """

    label: str
    survive: Callable[[int], tuple[int, int]]
    times: int
    quick: int
    needs: str | None = None


CHECKS = {
    "kill-run": Check("runs that are killed", kills.runs, 20, 1),
    "kill-sweep": Check("sweeps that are killed", kills.sweeps, 20, 1),
    "kill-cluster": Check(
        "sweeps on a cluster that lose the driver or a node", clusters.sweeps, 20, 2, "ray"
    ),
    "two-processes": Check("two processes in one folder", pairs.check, 20, 1),
    "full-disk": Check("disks that become full", disks.full, 30, 2),
    "read-only": Check("disks that become read-only", disks.read_only, 30, 2),
    "bad-input": Check("mistakes of users", bad_input.check, 10_000, 300),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 1 if anything isn't survived."""
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
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as programs:
        # Each command is a process of its own: they share the programs that one has compiled.
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", programs)
        for name in arguments.only or CHECKS:
            check = CHECKS[name]
            print(f"{check.label} ...", flush=True)
            found[name] = _figures(check, check.quick if arguments.quick else check.times)
    record = report.provenance()
    report.print_machine(record)
    headings = (_when(record), "tried", "survived", "seconds")
    report.print_table(headings, (_row(CHECKS[name], each) for name, each in found.items()))
    if arguments.json is not None:
        results.write_json(arguments.json, record | {"figures": found})
    return 0 if all(each["tried"] == each["survived"] for each in found.values()) else 1


def _figures(check: Check, times: int) -> dict[str, Any]:
    if check.needs is not None and find_spec(check.needs) is None:
        return {"tried": 0, "survived": 0, "seconds": 0, "not_installed": check.needs}
    begin = time.perf_counter()
    tried, survived = check.survive(times)
    seconds = round(time.perf_counter() - begin)
    return {"tried": tried, "survived": survived, "seconds": seconds}


def _row(check: Check, figures: Mapping[str, Any]) -> list[str]:
    missing = figures.get("not_installed")
    if missing is not None:
        return [f"{check.label}: {missing} isn't installed", *[report.NOT_MEASURED] * 3]
    return [check.label, *map(str, figures.values())]


def _when(record: Mapping[str, Any]) -> str:
    """Return the date and the commit, for the head of the table."""
    number, changed, _ = (record["commit"] or "unknown").partition("-dirty")
    return f"{record['started'][:10]}, commit {number[:12]}{changed}"


if __name__ == "__main__":
    sys.exit(main())
