"""Results after kills, full disks and read-only ones, by `python -m benchmarks.trust`."""

import json

import pytest

from benchmarks import cases, trust
from benchmarks.cases import Call


@pytest.mark.slow
@pytest.mark.promotes
@pytest.mark.parametrize("name", ["kill-run", "kill-sweep", "full-disk", "read-only"])
def test_everything_is_survived(name, capsys):
    assert trust.main(["--quick", "--only", name]) == 0, capsys.readouterr().err


def test_mistakes_are_counted_and_named(monkeypatch, capsys, tmp_path):
    broken = [Call("good", lambda: int("x"), "invalid"), Call("bad", lambda: None, "x")]
    monkeypatch.setattr(cases, "every", lambda: iter(broken))
    assert trust.main(["--only", "bad-input", "--json", str(tmp_path / "a.json")]) == 1
    out, err = capsys.readouterr()
    assert err == "bad: no error\n"
    assert "mistakes of users      2         1" in out
    figures = json.loads((tmp_path / "a.json").read_text())["figures"]["bad-input"]
    assert (figures["tried"], figures["survived"]) == (2, 1)
