"""Every mistake of `benchmarks.cases` ends in one clear line, before anything is compiled."""

import tracemalloc

import pytest

from benchmarks import bad_input, cases
from benchmarks.cases import Call, Command

EVERY = list(cases.every())


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
        (
            Command("run", ("--dataset", "digits", "--steps", "1", "--out", "run"), ""),
            "raises AssertionError('compiles')",
        ),
        (Call("none", lambda: None, ""), "no error"),
        (Call("another", lambda: [][0], ""), "raises IndexError('list index out of range')"),
        (Call("two", in_two_lines, "one"), "says more than a line: 'one\\ntwo'"),
    ],
)
def test_what_does_not_end_so_is_told(case, complaint, tmp_path):
    assert complaint in bad_input.complaint(case, tmp_path)


def test_a_bomb_takes_no_memory(tmp_path):
    (bomb,) = (case for case in EVERY if "more, where" in case.message)
    tracemalloc.start()
    try:
        assert not bad_input.complaint(bomb, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20


def test_check_counts(monkeypatch, capsys):
    assert bad_input.check(3) == (3, 3)
    broken = [Call("fine", lambda: int("x"), "invalid"), Call("not", lambda: None, "x")]
    monkeypatch.setattr(cases, "every", lambda: iter(broken))
    assert bad_input.check(5) == (2, 1)
    assert bad_input.main([]) == 1
    assert capsys.readouterr().out == "not: no error\n1 of 2 mistakes end in one clear line\n"
