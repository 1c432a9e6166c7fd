"""Mistakes of every kind, and whether each ends in one clear line: `benchmarks.cases` has them.

    python -m benchmarks.bad_input

prints how many there are, and what went wrong with those that don't end as they should.
"""

import contextlib
import importlib
import io
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from unittest import mock

from benchmarks import cases
from benchmarks.cases import Call, Case, Command
from medjax.lab.settings import cli

_LONGEST = 1500  # characters, but for what is repeated of the user's own words
_COMPILERS = ("medjax.lab.commands.run.compile_program", "medjax.lab.sweep.fit.compile_program")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 1 if a mistake doesn't end as it should."""
    parser = cli.Parser("python -m benchmarks.bad_input", __doc__ or "")
    parser.parse_args(argv)
    tried, failures = _try(cases.every())
    for failure in failures:
        print(failure)
    print(f"{tried - len(failures)} of {tried} mistakes end in one clear line")
    return int(bool(failures))


def check(count: int) -> tuple[int, int]:
    """Make at most so many of the mistakes; how many were made, and how many ended as they should.

    Args:
        count: the most to make.
    """
    tried, failures = _try(islice(cases.every(), count))
    return tried, tried - len(failures)


def _try(every: Iterator[Case]) -> tuple[int, list[str]]:
    tried, failures = 0, []
    for case in every:
        tried += 1
        with tempfile.TemporaryDirectory() as folder:
            said = complaint(case, Path(folder))
        if said:
            failures.append(f"{case.name}: {said}")
    return tried, failures


def complaint(case: Case, folder: Path) -> str:
    """What is wrong with how a mistake ends; nothing if it is in one clear line.

    Args:
        case: the mistake.
        folder: an empty one, to make it in.
    """
    return _of_call(case) if isinstance(case, Call) else _of_command(case, folder)


def _of_call(case: Call) -> str:
    try:
        case.call()
    except (TypeError, ValueError) as error:
        return _of_line(str(error), case.message)
    except Exception as error:
        return f"raises {error!r}"
    return "no error"


def _of_command(case: Command, folder: Path) -> str:
    case.put(folder)
    before = _contents(folder)
    out, err, code = io.StringIO(), io.StringIO(), None
    command = importlib.import_module(case.module)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(folder))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        for name in _COMPILERS:  # a mistake is to be found before
            stack.enter_context(mock.patch(name, side_effect=AssertionError("compiles")))
        try:
            command.main(list(case.arguments))
        except SystemExit as ended:
            code = ended.code
        except Exception as error:
            return f"raises {error!r}"
    if code != 2:
        return f"exit code {code} in place of 2, after {out.getvalue() + err.getvalue()!r}"
    if out.getvalue():
        return f"prints {out.getvalue()!r}"
    if _contents(folder) != before:
        return f"leaves {sorted(_contents(folder).keys() ^ before.keys())}"
    said = err.getvalue()
    if not (said.startswith("error: ") and said.endswith("\n")):
        return f"says {said!r}"
    return _of_line(said[:-1], case.message, sum(map(len, case.arguments)))


def _of_line(said: str, message: str, own: int = 0) -> str:
    if message not in said:
        return f"says {said[: 2 * _LONGEST]!r}, not {message!r}"
    if not said.isprintable():
        return f"says more than a line: {said[: 2 * _LONGEST]!r}"
    if len(said) > _LONGEST + 2 * own:
        return f"says too much: {said[: 2 * _LONGEST]!r}"
    return ""


def _contents(folder: Path) -> dict[str, bytes | None]:
    """Every file's bytes by its path; None for what isn't a file."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


if __name__ == "__main__":
    sys.exit(main())
