"""Mistakes of `benchmarks.cases`: each ends in one clear line, before anything is compiled."""

import tracemalloc

import pytest

from benchmarks import bad_input, cases
from benchmarks.cases import Call, Command

EVERY = list(cases.every())


@pytest.mark.slow
@pytest.mark.parametrize("case", EVERY, ids=lambda case: ascii(case.name)[1:-1])
def test_a_mistake_ends_in_one_clear_line(case, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert not bad_input.complaint(case, tmp_path)


def test_there_are_hundreds_and_of_every_command():
    assert len(EVERY) > 1000
    commands = {case.command for case in EVERY if isinstance(case, Command)}
    assert commands >= {"run", "sweep", "compare", "list", "paper", "robustness", "which_b"}
    assert len({case.name for case in EVERY if isinstance(case, Call)}) > 500


def in_two_lines():
    raise ValueError("one\ntwo")


@pytest.mark.parametrize(
    ("case", "complaint"),
    [
        (Command("list", ("--kind", "rules"), ""), "exit code None in place of 2"),
        (Command("list", ("--help",), ""), "exit code 0 in place of 2"),
        (Command("run", ("--steps", "x"), "other words"), "not 'other words'"),
        (Call("none", lambda: None, ""), "no error"),
        (Call("two", in_two_lines, "one"), "says more than a line: 'one\\ntwo'"),
    ],
)
def test_another_end_is_described(case, complaint, tmp_path):
    assert complaint in bad_input.complaint(case, tmp_path)


@pytest.mark.parametrize(
    ("case", "error"),
    [
        (Call("a bug", lambda: [][0], ""), IndexError("list index out of range")),
        (Command("run", ("--dataset", "digits", "--out", "run"), ""), AssertionError("compiles")),
    ],
)
def test_a_bug_is_let_through(case, error, tmp_path):
    with pytest.raises(type(error), match=str(error)):
        bad_input.complaint(case, tmp_path)


def test_a_bomb_takes_no_memory(tmp_path):
    (bomb,) = (case for case in EVERY if "more, where" in case.message)
    tracemalloc.start()
    try:
        assert not bad_input.complaint(bomb, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20
