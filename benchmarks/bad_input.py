"""Check of mistakes: each of `benchmarks.cases` has to end in one clear line."""

import contextlib
import importlib
import io
import sys
import tempfile
from itertools import islice
from pathlib import Path
from unittest import mock

from benchmarks import cases
from benchmarks.cases import Call, Case, Command

_LONGEST = 1500  # characters, besides the user's own words
_COMPILERS = ("medjax.lab.commands.run.compile_program", "medjax.lab.sweeps.fit.compile_program")


def check(count: int) -> tuple[int, int]:
    """Make the first `count` mistakes, and print on stderr what is wrong with their ends.

    Returns:
        The number of mistakes made, and of those that end in one clear line.
    """
    tried = good = 0
    for case in islice(cases.every(), count):
        with tempfile.TemporaryDirectory() as folder:
            wrong = complaint(case, Path(folder))
        tried, good = tried + 1, good + (not wrong)
        if wrong:
            print(f"{case.name}: {wrong}", file=sys.stderr)
    return tried, good


def complaint(case: Case, folder: Path) -> str:
    """Describe what is wrong with the end of a mistake: "" if it is one clear line.

    An exception that is no answer to a mistake, such as an IndexError, is a bug and is let through.

    Args:
        case: the mistake.
        folder: an empty folder to make it in.
    """
    return _call_complaint(case) if isinstance(case, Call) else _command_complaint(case, folder)


def _call_complaint(case: Call) -> str:
    try:
        case.call()
    except (TypeError, ValueError) as error:
        return _line_complaint(str(error), case.message)
    return "no error"


def _command_complaint(case: Command, folder: Path) -> str:
    case.put(folder)
    before = _contents(folder)
    out, err, code = io.StringIO(), io.StringIO(), None
    command = importlib.import_module(case.module)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(folder))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        for name in _COMPILERS:  # a mistake has to be found before
            stack.enter_context(mock.patch(name, side_effect=AssertionError("compiles")))
        try:
            command.main(list(case.arguments))
        except SystemExit as ended:
            code = ended.code
    if code != 2:
        return f"exit code {code} in place of 2, after {out.getvalue() + err.getvalue()!r}"
    if out.getvalue():
        return f"prints {out.getvalue()!r}"
    if _contents(folder) != before:
        return f"leaves {sorted(_contents(folder).keys() ^ before.keys())}"
    said = err.getvalue()
    if not (said.startswith("error: ") and said.endswith("\n")):
        return f"says {said!r}"
    return _line_complaint(said[:-1], case.message, sum(map(len, case.arguments)))


def _line_complaint(said: str, message: str, words: int = 0) -> str:
    """Describe what is wrong with a message after so many characters of the user's own words."""
    if message not in said:
        return f"says {said[: 2 * _LONGEST]!r}, not {message!r}"
    if not said.isprintable():
        return f"says more than a line: {said[: 2 * _LONGEST]!r}"
    if len(said) > _LONGEST + 2 * words:
        return f"says too much: {said[: 2 * _LONGEST]!r}"
    return ""


def _contents(folder: Path) -> dict[str, bytes | None]:
    """Return every file's bytes by its path; None for what isn't a file."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }
