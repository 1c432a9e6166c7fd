"""The commands `python -m benchmarks.sizes` and `networks` at a small size."""

import json
import re

import pytest

from benchmarks import networks, sizes, workload


@pytest.mark.slow
def test_time_memory_and_growth_are_measured(tmp_path, capsys):
    flags = ("--only", "clients", "--shrink", "100", "--repeats", "1")
    assert sizes.main([*flags, "--json", str(tmp_path / "a.json")]) == 0
    (found,) = json.loads((tmp_path / "a.json").read_text())["figures"].values()
    assert (found["n"], found["d"]) == (10, 101_770)
    for each, what in (("time", "ms"), ("memory", "peak_bytes")):
        assert found["growth"][each] == found["whole"][what] / found["half"][what] > 0
    assert re.search(r"1,000 clients .* 10 +101770 ", capsys.readouterr().out)


@pytest.mark.slow
def test_clients_are_unequal_and_keep_their_examples():
    sizes = workload.build_clients(16, 4, hidden=2).data.sizes
    assert sorted(set(sizes.tolist())) == [4, 8, 12, 16, 20, 32]


@pytest.mark.slow
def test_networks_are_compared_with_vmap(tmp_path, capsys):
    flags = ("--networks", "logistic", "transformer", "--workers", "2", "--batch-size", "1")
    assert networks.main([*flags, "--repeats", "1", "--json", str(tmp_path / "a.json")]) == 0
    figures = json.loads((tmp_path / "a.json").read_text())["figures"]
    printed = capsys.readouterr().out
    for name, found in figures.items():
        assert found["ratio"] == found["medjax"] / found["vmap(grad)"]
        assert re.search(rf"^{name} .* {found['ratio']:.2f}$", printed, re.MULTILINE)
    assert [*figures] == ["logistic", "transformer"]
