"""Command lines whose mistakes get one clear line and exit code 2."""

import argparse
import difflib
import math
from collections.abc import Callable, Iterable
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """An argument parser that doesn't put its usage before an error, or guess at abbreviations."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
                prog, max_help_position=32, width=100
            ),
        )

    def error(self, message: str) -> NoReturn:
        """Print the message in one line and exit with 2."""
        message = " ".join(message.split())
        self.exit(2, f"error: {message} (see --help)\n")


def one_of(kind: str, names: Iterable[str]) -> Callable[[str], str]:
    """A type for argparse: one of the names, or an error with the nearest of them."""
    valid = tuple(names)

    def parse(text: str) -> str:
        if text in valid:
            return text
        nearest = difflib.get_close_matches(text, valid, n=1)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise argparse.ArgumentTypeError(
            f"unknown {kind} {text!r}: {hint}valid: {', '.join(valid)}"
        )

    return parse


def integer(minimum: int) -> Callable[[str], int]:
    """A type for argparse: a whole number of at least `minimum`."""

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


def number(minimum: float, *, exclusive: bool = False) -> Callable[[str], float]:
    """A type for argparse: a finite number of at least, or above, `minimum`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < minimum or (exclusive and value == minimum):
            bound = "above" if exclusive else "of at least"
            raise argparse.ArgumentTypeError(f"{text!r} is not a finite number {bound} {minimum:g}")
        return value

    return parse


def integer_or(word: str, minimum: int) -> Callable[[str], int | str]:
    """A type for argparse: a whole number of at least `minimum`, or the word."""

    def parse(text: str) -> int | str:
        if text == word:
            return word
        try:
            return integer(minimum)(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error}, nor {word!r}") from None

    return parse
