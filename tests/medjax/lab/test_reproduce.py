"""Running a folder's runs again and comparing: the same, or what isn't, and by how much."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medjax.lab.commands import reproduce, run, sweep

pytestmark = pytest.mark.usefixtures("no_pictures")

QUICK = ("--dataset", "digits", "--model", "logistic", "--steps", "20", "--eval-every", "10")
RECORDED = Path(__file__).parent / "recorded"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run, in one for others."""
    parent = tmp_path_factory.mktemp("finished")
    settings = ("--rule", "noisy_sign", "--b", "adaptive:0.1", "--partition", "dirichlet")
    assert run.main([*QUICK, *settings, "--batch-size", "8", "--out", str(parent / "run")]) == 0
    return parent


@pytest.fixture
def folder(finished, tmp_path):
    """A copy to change things in."""
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def scale(path, metric, step, factor):
    table = pq.read_table(path)
    values = table[metric].to_numpy().copy()
    values[table["step"].to_numpy() == step] *= factor
    place = table.column_names.index(metric)
    pq.write_table(table.set_column(place, metric, pa.array(values)), path)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["run", "sweep"])
def test_the_same_again(folder, which, capsys):
    # Not all settings apply to all runs.
    grid = ("--rule", "sign", "noisy_mean", "--b", "0.1", "--seeds", "2")
    if which == "sweep":
        assert sweep.main([*QUICK, *grid, "--out", str(folder / "sweep")]) == 0
    assert reproduce.main([str(folder / which)]) == 0
    said = capsys.readouterr().out
    assert said.endswith("\nidentical, bit for bit\n")
    assert "the second folder isn't kept" in said


@pytest.mark.slow
def test_on_eight_devices_it_is_the_same_to_rounding(finished, tmp_path, capsys):
    out = tmp_path / "again"
    flags = ("--devices", "8", "--tolerance", "1e-5", "--out", str(out))
    assert reproduce.main([str(finished / "run"), *flags]) == 0
    assert json.loads((out / "config.json").read_text())["mesh"]["workers"] == 8
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "identical, bit for bit" or last.startswith("the same within 1e-05: ")


@pytest.mark.slow
def test_what_differs_or_has_changed_since_is_named(folder, capsys):
    path = folder / "run/metrics.parquet"
    scale(path, "test_loss", 10, 1.001)
    largest = max(pq.read_table(path)["test_loss"].to_pylist())
    recorded = pq.read_table(path)["test_loss"].to_pylist()[1]
    off = (recorded - recorded / 1.001) / largest
    record = json.loads((folder / "run/config.json").read_text())
    record["versions"]["jax"] = "0.0.1"
    record["commit"] = "abc"
    (folder / "run/config.json").write_text(json.dumps(record))
    assert reproduce.main([str(folder / "run")]) == 0
    said = capsys.readouterr().out
    assert "\ncommit: was abc, is " in said
    assert "\nversions: jax was 0.0.1, is " in said
    verdict = f"test_loss is off by {off:.2g} of its largest value at step 10"
    assert said.splitlines()[-1] == f"the same within 0.01: {verdict}"
    assert reproduce.main([str(folder / "run"), "--tolerance", "1e-6"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"not the same within 1e-06: {verdict}"


@pytest.mark.slow
def test_an_older_version_recorded_the_same(capsys):
    # A run of mean, of which rounding isn't amplified: another version or machine may round
    # otherwise, but no more than that.
    assert reproduce.main([str(RECORDED), "--tolerance", "1e-4"]) == 0
    assert "not the same" not in capsys.readouterr().out


def test_differences_of_what_is_not_finite():
    def table(**columns):
        return pa.table({"step": [0, 5], **columns})

    a = table(x=[np.nan, 2.0], y=[np.inf, 1.0], z=[0.0, 0.0])
    same, infinite, zero = reproduce.differences(a, table(x=[np.nan, 2], y=[3.0, 1.0], z=[0, 1e-9]))
    assert same == ("x", 0.0, 0, True)
    assert infinite == ("y", np.inf, 0, False)
    assert zero == ("z", np.inf, 5, False)
    half = reproduce.differences(a, pa.table({"step": [5, 7], "x": [3.0, 9.0]}))
    assert half == [("x", 0.5, 5, False)]  # only what both have measured is compared
    with pytest.raises(ValueError, match="no measurement in common"):
        reproduce.differences(a, pa.table({"step": [7], "x": [3.0]}))


def test_mistakes(make_run, make_sweep, tmp_path, error_of):
    folder = tmp_path / "folder"
    make_run(folder / "run")

    def said(*arguments):
        return error_of(reproduce.main, *map(str, arguments))

    assert "isn't the folder of a run or a sweep" in said(tmp_path / "none")
    assert "isn't the folder of a run or a sweep" in said(tmp_path)
    assert "'-1' is not a finite number" in said(folder / "run", "--tolerance", "-1")
    assert "already holds a run" in said(folder / "run", "--out", folder / "run")
    (folder / "run/metrics.parquet").write_bytes(b"torn")
    assert "metrics.parquet' can't be read" in said(folder / "run")
    (folder / "run/metrics.parquet").unlink()
    assert "no metrics.parquet to compare with" in said(folder / "run")
    (folder / "run/config.json").write_text("{")
    assert "config.json' can't be read" in said(folder / "run")
    make_sweep(folder / "sweep", rule=["sign", "mean"])
    record = json.loads((folder / "sweep/config.json").read_text()) | {"grid": "0" * 8}
    (folder / "sweep/config.json").write_text(json.dumps(record))
    assert "aren't those that the sweep was begun with" in said(folder / "sweep")


def test_edited_settings_are_checked(make_run, tmp_path, error_of):
    make_run(tmp_path)
    path = tmp_path / "config.json"
    record = json.loads(path.read_text())
    for name, value, message in (
        ("rule", "../sign", "unknown rule '../sign'"),
        ("resume", "elsewhere", "a setting that runs don't have, 'resume'"),
    ):
        path.write_text(json.dumps(record | {"config": record["config"] | {name: value}}))
        assert message in error_of(reproduce.main, str(tmp_path))
