"""Mutation testing: which mutants there are, and what the command says of those that survive."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks
from benchmarks import _cosmic_ray, mutation
from benchmarks._mutants import mutants

ROOTS = ("x.max(axis=k)", "sqrt(x.min(axis=k))", "sqrt(x.max())")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a + b * c", ["a - b * c", "a + b / c"]),
        ("a < b <= c", ["a <= b <= c", "a >= b <= c", "a < b < c", "a < b > c"]),
        ("a and not b", ["a or not b", "a and b"]),
        ("x[-1:]", ["x[1:]", "x[-2:]"]),
        ("n += 2", ["n -= 2", "n += 3"]),
        ("x if a else y", ["x if not a else y"]),
        ("if a == b:\n    f(c)", ["if a != b:\n    f(c)", "if a == b:\n    pass"]),
        ("np.where(a, b, c)", ["pass", "np.where(a, c, b)"]),
        ("Y = np.where(a > b, c, d)", ["Y = np.where(a >= b, c, d)", "Y = np.where(a <= b, c, d)"]),
        ("Y = sqrt(x.max(axis=k))", [f"Y = {y}" for y in ROOTS]),
        ("Y = f(x, keep=True)", ["Y = f(x, keep=False)"]),
        ("def f(x: g(1) = 0.5) -> h(2):\n    pass", ["def f(x: g(1)=1.5) -> h(2):\n    pass"]),
        ("if a:\n    raise E(1)", ["if not a:\n    raise E(1)", "if a:\n    pass"]),
        ("A = 1\nPair = tuple[f(1), 2]", ["A = 2\nPair = tuple[f(1), 2]"]),
        ("import a\nassert b + 1\nY = zip(a, b, strict=c)\nZ = f'{x + 1}'\n'1'", []),
    ],
)
def test_mutants_by_hand(source: str, expected: list[str]):
    assert [mutant.source for mutant in mutants(source)] == expected


def test_a_mutant_says_where_and_what():
    (mutant,) = mutants("X = f(\n    b,\n    -c,\n)\n")
    assert mutant == (1, 3, "-c", "c", "X = f(b, c)")


def test_cosmic_ray_leaves_annotations_alone():
    source = "def f(x: int | None = 1):\n    y = -x\n    return y\n"
    assert sorted(mutant[:4] for mutant in _cosmic_ray.mutants(source)) == [
        (1, 1, "def f(x: int | None = 1):", f"def f(x: int | None = {k}):") for k in (0, 2)
    ] + [(2, 2, "y = -x", f"y = {x}") for x in ("+x", "not x", "x", "~x")]


MODULE = """
LIMIT = 10


def clip(x):
    return min(x, LIMIT)


def double(x):
    '''Twice x.

    >>> double(2)
    4
    '''
    return 2 * x
"""
TESTS = """
import pytest
from clipping import clip, double


def test_clip():
    assert clip(3) == 3


@pytest.mark.parametrize("six", [double(3)])
def test_six(six):
    assert six == 6
"""


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a project of its own."""
    (folder / "clipping.py").write_text(MODULE)
    (folder / "test_clipping.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --doctest-modules\n")
    code = "import sys; from benchmarks.mutation import main; sys.exit(main(sys.argv[1:]))"
    files = ["clipping.py", "--tests", "test_clipping.py", "clipping.py"]
    return subprocess.run(
        [sys.executable, "-c", code, *files, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(mutation.__file__).parents[1])},
        capture_output=True,
        text=True,
    )


def test_survivors_are_printed(tmp_path: Path):
    done = command(tmp_path, "--json", "mutants.json")
    assert (done.returncode, done.stderr) == (1, "")
    # clip(3) is 3 for any limit from 3 on, and 2 · 2 is 2 + 2, but neither 2 / 2 nor 3 · 2.
    assert done.stdout == (
        "4 of 4 mutants; those that survive:\n\n"
        "clipping.py:2 (3 tests): 10 → 11\n\n"
        "3 of 4 killed, 75.0%\n"
    )
    rows = json.loads((tmp_path / "mutants.json").read_text())["mutants"]
    assert [(x["mutant"], x["tests"], x["survives"]) for x in rows] == [
        ("10 → 11", 3, True),
        ("min(x, LIMIT) → max(x, LIMIT)", 1, False),
        ("2 * x → 2 / x", 3, False),  # by a doctest, or when the tests' parameters are made
        ("2 → 3", 3, False),
    ]
    assert (tmp_path / "clipping.py").read_text() == MODULE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.py", "--tests", __file__], "'none.py' is not a Python file that there is"),
        ([__file__], "the following arguments are required: --tests"),
        ([__file__, "--tests", __file__, "--sample", "0"], "'0' is not a whole number of at least"),
        ([benchmarks.__file__, "--tests", __file__], "have no mutants: there is nothing but decl"),
    ],
)
def test_errors(error_of, arguments: list[str], message: str):
    assert message in error_of(mutation.main, *arguments)
