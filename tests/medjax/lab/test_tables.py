"""Numbers in tables have the digits that their errors bear."""

import math
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from medjax.lab.tables import aligned, rounded, show, text_table

FINITE = st.floats(allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
# Of the error's size or up to a million times it, as a measured mean is.
MEASURED = st.tuples(st.floats(-1e6, 1e6), st.floats(1e-30, 1e30)).map(
    lambda pair: (pair[0] * pair[1], pair[1])
)


def parsed(text):
    """Value, error, and the unit of the last digit of each, in rational numbers."""
    shared = re.fullmatch(r"\((.+) ± (.+)\)(e-?\d+)", text)
    value, error = (x + shared[3] for x in shared.groups()[:2]) if shared else text.split(" ± ")
    return *map(Fraction, (value, error)), *map(unit, (value, error))


def unit(text):
    digits, _, exponent = text.partition("e")
    places = len(digits.partition(".")[2])
    return Fraction(10) ** (int(exponent or 0) - places)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.83124, 0.004127, "0.8312 ± 0.0041"),
        (0.83124, 0.0095, "0.8312 ± 0.0095"),
        (0.83124, 0.00996, "0.831 ± 0.010"),  # two digits, once rounded
        (12.0, 3.456, "12.0 ± 3.5"),
        (12345.6, 96.4, "12346 ± 96"),
        (1234.5, 122.0, "(1.23 ± 0.12)e3"),
        (-0.001, 0.3, "0.00 ± 0.30"),  # no minus zero
        (0.0, 0.3, "0.00 ± 0.30"),
        (1.2e-7, 3.14e-8, "(1.20 ± 0.31)e-7"),
        (3.14e-8, 1.2e-7, "(0.3 ± 1.2)e-7"),
        (1.5e20, 2.5e18, "(1.500 ± 0.025)e20"),
        (0.25, 1e-17, "0.25 ± 1.0e-17"),  # no more digits than a float32 has
    ],
)
def test_known_answers(value, error, text):
    assert rounded(value, error) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.831249, "0.8312"),
        (12345.6, "1.235e+04"),
        (12345, "12345"),  # a step
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
    ],
)
def test_four_digits_without_an_error(value, text):
    assert rounded(value) == text


def test_an_error_that_gives_no_precision():
    assert rounded(0.831249, 0.0) == "0.8312 ± 0"
    assert rounded(0.831249, math.inf) == "0.8312 ± inf"
    assert rounded(math.inf, 0.1) == "inf ± 0.1"
    assert rounded(math.inf, math.nan) == "inf"


@given(FINITE, POSITIVE)
def test_within_half_a_unit_of_the_last_digit(value, error):
    shown, shown_error, last, last_of_error = parsed(rounded(value, error))
    assert abs(shown - Fraction(value)) <= last / 2
    assert abs(shown_error - Fraction(error)) <= last_of_error / 2


@given(MEASURED)
def test_an_error_has_two_digits_and_the_value_as_many_decimals(measured):
    _, shown_error, last, last_of_error = parsed(rounded(*measured))
    assert last == last_of_error
    assert 10 <= shown_error / last < 100


@given(st.lists(st.one_of(MEASURED, st.tuples(FINITE)), min_size=1))
def test_aligned_only_adds_spaces(measured):
    texts = [rounded(*each) for each in measured]
    padded = aligned(texts)
    assert [re.sub(" ± |±", "±", re.sub(" +", " ", text)).strip() for text in padded] == [
        text.replace(" ± ", "±") for text in texts
    ]
    assert len({len(text) for text in padded}) == 1


def test_points_and_errors_stand_below_each_other():
    texts = ["0.8312 ± 0.0041", "12.0 ± 3.5", "nan", "12346 ± 96"]
    assert aligned(texts) == [
        "    0.8312 ±  0.0041",
        "   12.0    ±  3.5   ",
        "  nan               ",
        "12346      ± 96     ",
    ]
    assert aligned(["0.5", "12"]) == [" 0.5", "12  "]
    assert aligned([]) == []


@pytest.mark.parametrize("width", [10, 40, 80])
def test_narrow_terminal_cuts_no_number(width, capsys):
    numbers = {f"metric {k}": ["0.12345 ± 0.00012", "3.0 ± 1.2"] for k in range(4)}
    show(Console(width=width), text_table({"rule": ["mean", "krum"]}, numbers))
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split("  ")[0] == "rule"
    assert [row.count(" ± ") for row in rows] == [4, 4]
    assert all(row.count("0.12345 ± 0.00012") == 4 for row in rows[:1])
