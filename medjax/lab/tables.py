"""Measurements as text, with no more digits than their errors bear."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_WIDEST = 10_000  # characters, more than a table has
_LEAST = -4  # power of ten that is written as a decimal, 0.0001
_MOST_DIGITS = 9  # that tell any float32, in which metrics are measured, from all others


def rounded(value: float, error: float = math.nan) -> str:
    """Write a measurement, with its standard error if it has one: `0.8312 ± 0.0041`.

    The error gets two significant digits throughout, and the value as many decimals. (By the rule
    of the Particle Data Group an error from 0.355 to 0.949 would get one. Two are never too few
    for the errors of a handful of seeds, and a column is easier to read if all its errors have the
    same precision.)

    Small numbers, and those with an error of 100 or more, share a power of ten:
    `(1.20 ± 0.31)e-7`. So every digit that is written counts.

    Args:
        value: the measurement. Without an error that is positive and finite, it gets four
            significant digits; a whole number, such as a step, all of its digits.
        error: its standard error, NaN if there is none.

    Examples:
        >>> rounded(0.83124, 0.004127), rounded(0.83124), rounded(1234.5, 122.0)
        ('0.8312 ± 0.0041', '0.8312', '(1.23 ± 0.12)e3')
    """
    if math.isnan(error):
        return str(value) if isinstance(value, int) else f"{value:.4g}"
    if not (math.isfinite(value) and 0 < error < math.inf):
        return f"{value:.4g} ± {error:.2g}"
    place = _exponent(error, 2) - 1  # of the last digit, as a power of ten
    largest = max(_exponent(value, _MOST_DIGITS) if value else place, place + 1)
    if largest - place >= _MOST_DIGITS:
        return f"{value:.{_MOST_DIGITS}g} ± {error:.1e}"
    power = 0 if largest >= _LEAST and place <= 0 else largest
    both = (Decimal(number).scaleb(-power) for number in (value, error))
    text = " ± ".join(f"{number:z.{power - place}f}" for number in both)  # z: no minus zero
    return f"({text})e{power}" if power else text


def aligned(texts: Sequence[str]) -> list[str]:
    """Pad the numbers of a column with spaces, so that points and ± stand below each other."""
    split = [text.partition(" ± ") for text in texts]
    values, errors = (_at_point([parts[k] for parts in split]) for k in (0, 2))
    between = " ± " if any(middle for _, middle, _ in split) else ""
    return [
        f"{value}{middle or ' ' * len(between)}{error}"
        for value, (_, middle, _), error in zip(values, split, errors, strict=True)
    ]


def _at_point(texts: Sequence[str]) -> list[str]:
    parts = [text.partition(".") for text in texts]
    left, right = (max((len(part[k]) for part in parts), default=0) for k in (0, 2))
    point = any(dot for _, dot, _ in parts)
    width = left + point + right
    return [f"{whole:>{left}}{dot}{rest}".ljust(width) for whole, dot, rest in parts]


def _exponent(number: float, digits: int) -> int:
    """Return the power of ten of the first digit, once rounded to so many digits."""
    return int(f"{number:.{digits - 1}e}".partition("e")[2])


def show(console: Console, table: Table) -> None:
    """Print a table whole: where it is too wide, the terminal folds its lines.

    Rich would cut the numbers that don't fit, with an ellipsis.
    """
    options = console.options
    natural = Measurement.get(console, options.update(width=_WIDEST), table).maximum
    if natural > options.max_width:
        table.width = natural
    console.print(table, crop=False)


def text_table(words: Mapping[str, Sequence[str]], numbers: Mapping[str, Sequence[str]]) -> Table:
    """Make a table without lines: columns of words, then columns of aligned numbers.

    Args:
        words: texts by heading.
        numbers: numbers as text, such as `rounded` gives, by heading.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (*words, *numbers):
        table.add_column(Text(name, justify="right" if name in numbers else "left"))
    columns = [*words.values(), *map(aligned, numbers.values())]
    for row in zip(*columns, strict=True):
        table.add_row(*map(Text, row))  # Text: brackets are no markup
    return table
