"""Files are written whole, or not at all; JSON has no NaN; the folder explains the run."""

import json
import math
import sys
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from medjax.lab.storage import results


def test_json_has_no_nan(tmp_path):
    results.write_json(tmp_path / "a.json", {"x": math.nan, "y": [math.inf, 1.5], "δ": "ξ"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"x": None, "y": [None, 1.5], "δ": "ξ"}
    assert "δ" in text


def test_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, full_disk):
    path = tmp_path / "a.json"
    results.write_json(path, {"version": 1})
    full_disk()
    with pytest.raises(OSError, match="No space left"):
        results.write_json(path, {"version": 2})
    assert json.loads(path.read_text()) == {"version": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_table_round_trip(tmp_path):
    columns = {"step": [0, 5], "loss": [2.5, math.nan]}
    results.write_table(tmp_path / "t.parquet", columns)
    table = pq.read_table(tmp_path / "t.parquet").to_pydict()
    assert table["step"] == [0, 5]
    assert table["loss"][0] == 2.5
    assert math.isnan(table["loss"][1])


def test_check_folder_makes_nothing(tmp_path):
    results.check_folder(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_default_folders_never_collide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [results.new_folder("stem") for _ in range(3)]
    assert len(set(folders)) == 3
    assert all(folder.is_dir() for folder in folders)


def test_folder_is_claimed_by_one_run_only(tmp_path):
    results.claim_folder(tmp_path / "run", {"config": {"lr": 1.0}})
    with pytest.raises(ValueError, match="already holds a run"):
        results.claim_folder(tmp_path / "run", {"config": {"lr": 2.0}})
    assert json.loads((tmp_path / "run" / results.CONFIG).read_text()) == {
        "folder": str(tmp_path / "run"),
        "config": {"lr": 1.0},
    }
    assert [path.name for path in (tmp_path / "run").iterdir()] == [results.CONFIG]


def test_what_has_measured_something_is_not_begun_anew(tmp_path):
    results.claim_folder(tmp_path, {"config": {"lr": 1.0}})
    results.check_folder(tmp_path, {"lr": 1.0})  # nothing is lost
    results.write_table(tmp_path / "metrics.parquet", {"step": [0]})
    with pytest.raises(ValueError, match="already holds a run"):
        results.check_folder(tmp_path, {"lr": 1.0})


def test_provenance_names_versions_device_and_commit():
    record = results.provenance()
    assert {"python", "medjax", "jax", "jaxlib", "optax", "flax", "numpy"} <= set(
        record["versions"]
    )
    assert record["device"]["platform"] == "cpu"
    assert record["commit"] is None or len(record["commit"].removesuffix("-dirty")) == 40


@pytest.mark.parametrize(
    ("module", "program", "command"),
    [
        (
            "experiments.paper.__main__",
            "/src/experiments/paper/__main__.py",
            "python -m experiments.paper",
        ),
        (None, "/usr/local/bin/medjax", "medjax"),
        (None, "medjax.exe", "medjax"),
        (None, "studies/mine.py", "python studies/mine.py"),
    ],
)
def test_provenance_names_the_command_as_it_is_written(module, program, command, monkeypatch):
    spec = None if module is None else SimpleNamespace(name=module)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    monkeypatch.setattr(sys, "argv", [program, "run", "--out", "a b"])
    assert results.provenance()["command"] == f"{command} run --out 'a b'"


@pytest.mark.parametrize("text", ["", "[1]", '{"config": '])
def test_what_is_not_a_configuration_gets_a_line(text, tmp_path):
    (tmp_path / results.CONFIG).write_text(text)
    with pytest.raises(ValueError, match=r"config\.json' can't be read: "):
        results.check_folder(tmp_path)
