"""Results after kills, losses, full disks and rivals, by `python -m benchmarks.trust`."""

import json
import re

import pytest

from benchmarks import cases, trust
from benchmarks.cases import Call


@pytest.mark.slow
def test_everything_is_survived(capsys):
    # Losses of a cluster are in tests/medjax/lab/test_sweep_cluster.py, in a quarter of the time.
    elsewhere = {"bad-input", "kill-cluster"}
    names = [name for name in trust.CHECKS if name not in elsewhere]
    assert trust.main(["--quick", "--only", *names]) == 0, capsys.readouterr().err


def test_mistakes_are_counted_and_named(monkeypatch, capsys, tmp_path):
    broken = [Call("good", lambda: int("x"), "invalid"), Call("bad", lambda: None, "x")]
    monkeypatch.setattr(cases, "every", lambda: iter(broken))
    assert trust.main(["--only", "bad-input", "--json", str(tmp_path / "a.json")]) == 1
    out, err = capsys.readouterr()
    assert err == "bad: no error\n"
    assert re.search(r"^mistakes of users +2 +1 ", out, re.MULTILINE)
    record = json.loads((tmp_path / "a.json").read_text())
    figures = record["figures"]["bad-input"]
    assert (figures["tried"], figures["survived"]) == (2, 1)
    assert f"\n{record['started'][:10]}, commit {(record['commit'] or 'unknown')[:12]}" in out


def test_what_needs_a_package_that_is_missing_is_not_counted(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(trust, "find_spec", lambda name: None)
    assert trust.main(["--only", "kill-cluster", "--json", str(tmp_path / "a.json")]) == 0
    assert re.search(r"cluster .*: ray isn't installed +— +— +—\n", capsys.readouterr().out)
    figures = json.loads((tmp_path / "a.json").read_text())["figures"]["kill-cluster"]
    assert (figures["tried"], figures["survived"]) == (0, 0)
