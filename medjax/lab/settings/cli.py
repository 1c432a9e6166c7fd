"""Command lines whose mistakes get one clear line and exit code 2."""

import argparse
import difflib
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np

T = TypeVar("T")

FLOAT32_MAX = float(np.finfo(np.float32).max)
"""The largest number of those that runs are computed with."""

_LEAST = float(np.finfo(np.float32).tiny)

STOPPED = 130
"""What a shell reports of a command ended by Ctrl-C."""


class _Formatter(argparse.HelpFormatter):
    """Help as wide as the terminal, up to 100 characters, with the paragraphs of a description."""

    def __init__(self, prog: str) -> None:
        width = min(100, shutil.get_terminal_size((100, 24)).columns)
        super().__init__(prog, max_help_position=32, width=width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n\n".join(fill(paragraph, width, indent) for paragraph in text.split("\n\n"))


class Parser(argparse.ArgumentParser):
    """An argument parser that doesn't put its usage before an error, or guess at abbreviations."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            formatter_class=_Formatter,
        )
        # argparse takes -1 for a number, but -1e-3 and -inf for flags.
        self._negative_number_matcher = re.compile(r"-(\d|\.\d|inf|nan)")

    def parse_args(  # pyright: ignore[reportIncompatibleMethodOverride]  # its has overloads
        self, args: Iterable[str] | None = None, namespace: Any = None
    ) -> Any:
        """Parse; words that no file name or record could hold are an error."""
        args = sys.argv[1:] if args is None else list(args)
        for word in args:
            if "\0" in word or any("\ud800" <= character <= "\udfff" for character in word):
                hint = locale_hint()
                self.error(f"{word!r} isn't text in UTF-8 without NUL bytes{hint}")
        parsed, rest = self.parse_known_args(args, namespace)
        if rest:
            flags = [flag for action in self._actions for flag in action.option_strings]
            words = [word.partition("=")[0] for word in rest if word.startswith("--")]
            near = [difflib.get_close_matches(word, flags, n=1) for word in words]
            hint = "".join(f"; did you mean {found[0]}?" for found in near[:1] if found)
            self.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
        return parsed

    def error(self, message: str) -> NoReturn:
        """Print the message in one line and exit with 2."""
        message = " ".join(message.split())
        self.exit(2, f"error: {message} (see --help)\n")


def locale_hint() -> str:
    """Return the advice to whom the locale denies names that aren't ASCII; empty elsewhere."""
    return "" if sys.getfilesystemencoding() == "utf-8" else "; PYTHONUTF8=1 makes Python read it"


def one_of(kind: str, names: Iterable[str], shown: str = "") -> Callable[[str], str]:
    """Make a parser of one of the names; others are an error with the nearest of them.

    Args:
        kind: what is named.
        names: the valid ones.
        shown: these in words, where a list of all of them would be too long.
    """
    valid = tuple(names)

    def parse(text: str) -> str:
        if text in valid:
            return text
        nearest = difflib.get_close_matches(text, valid, n=1)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise argparse.ArgumentTypeError(
            f"unknown {kind} {text!r}: {hint}valid: {shown or ', '.join(valid)}"
        )

    return parse


def folder(text: str) -> str:
    """Parse the name of a folder; an empty one would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("'' names no folder")
    return text


def integer(minimum: int) -> Callable[[str], int]:
    """Make a parser of whole numbers of at least `minimum`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        # Seeds, sizes and counts all end up in 32 bits.
        if value is None or not minimum <= value < 2**31:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number of at least {minimum}"
                + (" and below 2^31" if value is not None and value > minimum else "")
            )
        return value

    return parse


def number(
    minimum: float, *, exclusive: bool = False, below: float = math.inf, most: float = FLOAT32_MAX
) -> Callable[[str], float]:
    """Make a parser of finite numbers of at least, or above, `minimum`, and below a limit.

    Args:
        minimum: the least it may be.
        exclusive: whether that itself is too little.
        below: what it must be below.
        most: the most that it may be.
    """

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        # On devices the smallest numbers are 0.
        above = value > minimum and abs(value) > _LEAST if exclusive else value >= minimum
        if not (above and value < below and value <= most):
            bound = f"{'above' if exclusive else 'of at least'} {minimum:g}"
            bound += "" if below == math.inf else f" and below {below:g}"
            bound += f" and at most {most:.7g}" if value > most or most < FLOAT32_MAX else ""
            raise argparse.ArgumentTypeError(f"{text!r} is not a finite number {bound}")
        return value

    return parse


def integer_or(word: str, minimum: int) -> Callable[[str], int | str]:
    """Make a parser of whole numbers of at least `minimum`, and of the word."""
    return _or_word((word,), integer(minimum))


def number_or(
    words: tuple[str, ...], minimum: float, *, exclusive: bool = False
) -> Callable[[str], float | str]:
    """Make a parser of what `number` takes, and of the words."""
    return _or_word(words, number(minimum, exclusive=exclusive))


def _or_word(words: tuple[str, ...], parse: Callable[[str], T]) -> Callable[[str], T | str]:
    def parse_or(text: str) -> T | str:
        if text in words:
            return text
        try:
            return parse(text)
        except argparse.ArgumentTypeError as error:
            names = " or ".join(map(repr, words))
            raise argparse.ArgumentTypeError(f"{error}, nor {names}") from None

    return parse_or


def carry_out(parser: Parser, place: Path, work: Callable[[], int]) -> int:
    """Do a command's work; whatever ends it early gets one line.

    Args:
        parser: the command's; a mistake in the settings exits with 2.
        place: where it writes. What the system refuses there, such as a full disk, gives 1.
        work: gives the exit code. A KeyboardInterrupt gives 130: it can be gone on with.
    """
    try:
        return work()
    except (ValueError, ImportError, FileNotFoundError) as error:
        parser.error(str(error))
    except OSError as error:
        print(f"error: {place}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on where this was", file=sys.stderr)
        return STOPPED


class Once(argparse.Action):
    """Stores a list of different values; a flag that is given again is an error."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Check and store.

        Raises:
            argparse.ArgumentError: if there is something in its place, or a value comes twice.
        """
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(self, "given twice: name all its values at once")
        for value in values:
            if values.count(value) > 1:
                raise argparse.ArgumentError(self, f"{value} is there twice")
        setattr(namespace, self.dest, values)
