"""How many small mistakes the tests would notice: mutation testing.

Of the files every mutant, or a random sample, is made in turn, and the tests that run the lines in
question are run on it, the fastest first, up to one that fails: it is killed. So it is if they take
far too long. What survives is printed: a test is missing, or the mutant computes the same. The
files themselves aren't touched. Before all that the tests are run once as they are.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scipy import stats

from benchmarks import _cosmic_ray, _mutants, report
from benchmarks._mutant_tests import baseline, keep_compiled, survives
from medjax.lab.settings import cli
from medjax.lab.storage import results


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 1 if a mutant survives. A mistake exits with 2."""
    parser = cli.Parser("python -m benchmarks.mutation", __doc__ or "")
    add = parser.add_argument
    add("files", metavar="FILE", nargs="+", type=_python_file, help="what to make mutants of")
    add("--tests", metavar="FILE", nargs="+", type=_python_file, required=True, help="for pytest")
    add("--cosmic-ray", action="store_true", help="Cosmic Ray's mutants, in place of those of ours")
    add("--sample", metavar="N", type=cli.integer(1), help="so many mutants (default: all)")
    add("--seed", metavar="N", type=cli.integer(0), default=0, help="of the sample (default: 0)")
    add(
        "--seconds",
        metavar="S",
        type=cli.number(0, exclusive=True),
        default=60.0,
        help="run no more tests on a mutant than usually take so long (default: 60)",
    )
    add("--json", metavar="FILE", type=report.file, help="also write all mutants here")
    arguments = parser.parse_args(argv)

    mutants = _cosmic_ray.mutants if arguments.cosmic_ray else _mutants.mutants
    chosen = [(x, m) for x in arguments.files for m in mutants(x.read_text(encoding="utf-8"))]
    if not chosen:
        parser.error("the files have no mutants: there is nothing but declarations in them")
    of = len(chosen)
    if arguments.sample is not None:
        chosen = random.Random(arguments.seed).sample(chosen, min(of, arguments.sample))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keep_compiled(folder / "compiled")
        usual = baseline(arguments.files, [str(x) for x in arguments.tests], folder)
        if usual is None:
            parser.error("the tests fail on the files as they are, or there are none")
        print(f"{len(chosen)} of {of} mutants; those that survive:\n")
        for file, mutant in chosen:
            tests = usual.tests_of(file, mutant, arguments.seconds)
            lives = survives(file, mutant, tests, usual.limit(tests), folder / "compiled")
            where, change = f"{file}:{mutant.first}", f"{mutant.before} → {mutant.after}"
            rows.append({"where": where, "mutant": change, "survives": lives, "tests": len(tests)})
            if lives:
                print(f"{where} ({len(tests)} tests): {change}", flush=True)
    killed = sum(not row["survives"] for row in rows)
    low, high = stats.binomtest(killed, len(rows)).proportion_ci(method="wilson")
    interval = f" (of all, with 95% confidence, {low:.1%} to {high:.1%})" if len(rows) < of else ""
    print(f"\n{killed} of {len(rows)} killed, {killed / len(rows):.1%}{interval}")
    if arguments.json is not None:
        results.write_json(arguments.json, results.provenance() | {"mutants": rows})
    return int(killed < len(rows))


def _python_file(text: str) -> Path:
    path = Path(text)
    if path.suffix != ".py" or not path.is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is not a Python file that there is")
    return path


if __name__ == "__main__":
    sys.exit(main())
