"""Arbitrary bytes for everything that reads files or words of a grammar: `benchmarks.parsers`.

    python -m benchmarks.fuzz

changes valid inputs at random, keeps what reaches new code, and changes that (libFuzzer, by
atheris); where atheris isn't installed, hypothesis makes the inputs. An input may be refused by a
documented error. Anything else is a crash: another exception, more than a few seconds, or more
than two gigabytes.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from benchmarks import report
from benchmarks.parsers import PARSERS
from medjax.lab.settings import cli

_INPUTS = 100_000
_SECONDS = 5  # for an input
_MEGABYTES = 2048  # JAX takes 500 of them
_LONGEST = 4096  # bytes, but for seeds that are longer


class Fuzzed(NamedTuple):
    """What came of a parser.

    Attributes:
        inputs: how many it was given.
        coverage: how many branches of the code they reached; 0 where that isn't known.
        crash: what happened, with the input; nothing if all was well.
    """

    inputs: int
    coverage: int
    crash: str


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 1 if there was a crash. A mistake exits with 2."""
    parser = cli.Parser("python -m benchmarks.fuzz", __doc__ or "")
    parser.add_argument(
        "--inputs",
        metavar="N",
        type=cli.integer(1),
        default=_INPUTS,
        help=f"in all (default: {_INPUTS})",
    )
    parser.add_argument("--seed", type=cli.integer(0), default=0, help="(default: 0)")
    parser.add_argument(
        "--parser",
        metavar="NAME",
        nargs="+",
        type=cli.one_of("parser", PARSERS),
        default=list(PARSERS),
        help=f"of {', '.join(PARSERS)} (default: all)",
    )
    arguments = parser.parse_args(argv)
    if not _has_atheris():
        print("atheris isn't installed: hypothesis makes the inputs, whatever code they reach")
    found = fuzz(arguments.inputs, arguments.seed, arguments.parser)
    rows = [(name, f"{f.inputs}", f"{f.coverage}", f.crash or "none") for name, f in found.items()]
    report.print_table(("parser", "inputs", "coverage", "crashes"), rows)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for name, one in found.items():
        if one.crash:
            console.print(f"{name}: {one.crash}")
    return int(any(one.crash for one in found.values()))


def check(count: int) -> tuple[int, int]:
    """Fuzz with so many inputs; how many there were, and how many of them were survived."""
    found = fuzz(count).values()
    tried = sum(one.inputs for one in found)
    return tried, tried - sum(bool(one.crash) for one in found)


def fuzz(inputs: int, seed: int = 0, names: Sequence[str] = tuple(PARSERS)) -> dict[str, Fuzzed]:
    """Give each parser its share of the inputs; what came of it by its name."""
    each = max(1, -(-inputs // len(names)))
    one = _with_atheris if _has_atheris() else _with_hypothesis
    return {name: one(name, each, seed) for name in names}


def _has_atheris() -> bool:
    return report.optional("atheris") is not None


def _with_atheris(name: str, inputs: int, seed: int) -> Fuzzed:
    seeds = PARSERS[name].seeds
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        places = [Path(folder) / part for part in ("corpus", "work", "found")]
        for place in places:
            place.mkdir()
        corpus, work, found = places
        for number, content in enumerate(seeds):
            (corpus / f"seed-{number}").write_bytes(content)
        command = [sys.executable, "-m", "benchmarks._fuzz_one", name, str(work), str(corpus)]
        command += [f"-runs={inputs}", f"-seed={seed + 1}", f"-timeout={_SECONDS}"]  # 0: random
        command += [f"-rss_limit_mb={_MEGABYTES}", f"-artifact_prefix={found}/"]
        command += [f"-max_len={max(_LONGEST, *map(len, seeds))}", "-print_final_stats=1"]
        root = Path(__file__).parent.parent
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, errors="replace")
        crashes = [path.read_bytes() for path in found.iterdir()]
        return Fuzzed(
            _last(r"number_of_executed_units: (\d+)|^#(\d+)\s", done.stderr),
            _last(r"\bcov: (\d+)", done.stderr),
            _described(done, crashes),
        )


def _last(pattern: str, text: str) -> int:
    """The last number in the text that the pattern finds."""
    found = re.findall(pattern, text, re.MULTILINE)
    return max((int("".join(number)) for number in found[-1:]), default=0)


def _described(done: subprocess.CompletedProcess[str], crashes: Sequence[bytes]) -> str:
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stderr.splitlines()]
    said = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Exit)\b", line)]
    said += [line for line in lines if "ERROR: libFuzzer" in line] or lines[-1:]
    return f"{said[0]}; input {crashes[0][:200] if crashes else None!r}"


def _with_hypothesis(name: str, inputs: int, seed: int) -> Fuzzed:
    import hypothesis

    from benchmarks.arbitrary import inputs_of

    parser, tried = PARSERS[name], 0
    settings = hypothesis.settings(
        max_examples=inputs,
        deadline=1000 * _SECONDS,
        database=None,
        suppress_health_check=tuple(hypothesis.HealthCheck),  # pyright: ignore
    )
    with tempfile.TemporaryDirectory() as folder:

        @hypothesis.seed(seed)
        @settings
        @hypothesis.given(inputs_of(parser))
        def one(content: bytes) -> None:
            nonlocal tried
            tried += 1
            parser.survives(content, Path(folder))

        try:
            one()
        except Exception as error:
            return Fuzzed(tried, 0, repr(error))
    return Fuzzed(tried, 0, "")


if __name__ == "__main__":
    sys.exit(main())
