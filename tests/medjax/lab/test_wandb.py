"""`--wandb`: what is logged to Weights & Biases is what the tables say."""

import importlib.util
import json
import struct
import sys
from types import ModuleType, SimpleNamespace

import pyarrow.parquet as pq
import pytest

from medjax.lab.commands import run, sweep
from medjax.lab.settings.config import configure
from medjax.lab.storage.watching import watched
from medjax.lab.sweeps import pictures

pytestmark = pytest.mark.usefixtures("no_pictures")

QUICK = ("--dataset", "digits", "--model", "logistic", "--steps", "4", "--eval-every", "2")


@pytest.fixture
def offline(monkeypatch):
    """The package itself, without a network."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield
    wandb.teardown()


@pytest.fixture
def fake(monkeypatch):
    """A module of the same name that keeps the calls."""
    module, calls = ModuleType("wandb"), []
    module.__spec__ = importlib.util.spec_from_loader("wandb", None)
    module.Error, module.problem = type("Error", (Exception,), {}), None

    def init(**settings):
        if module.problem:
            raise module.Error(module.problem)
        logged = SimpleNamespace(settings=settings, rows=[], finished=False)
        calls.append(logged)

        def finish():
            logged.finished = True

        def log(row, step):
            logged.rows.append({"step": step, **row})

        return SimpleNamespace(log=log, finish=finish)

    module.init, module.calls = init, calls
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(pictures, "draw", lambda *_: {})
    return module


def records(path):
    """The records of a file, by LevelDB's format of logs: parts in blocks of 32 KiB."""
    data, place, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while place + 7 <= len(data):
        if 2**15 - place % 2**15 < 7:  # no room for a header
            place += 2**15 - place % 2**15
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the only part, or the last one
            yield whole
            whole = b""


def stored(folder):
    """The run, its configuration and its rows, from the file that the package has written."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    found, rows = [], []
    for record in map(Record.FromString, records(path)):
        if record.HasField("run"):
            found.append(record.run)
        if record.HasField("history"):
            items = record.history.item
            row = {x.key or x.nested_key[0]: json.loads(x.value_json) for x in items}
            rows.append({"step": record.history.step.num} | row)
    config = {x.key: json.loads(x.value_json) for x in found[0].config.update}
    return found[0], config, [{k: v for k, v in row.items() if k[0] != "_"} for row in rows]


def measured(path, **which):
    rows = pq.read_table(path).to_pylist()
    return [row for row in rows if all(row[k] == v for k, v in which.items())]


@pytest.mark.slow
def test_the_package_writes_what_is_measured(offline, tmp_path):
    out = tmp_path / "first"
    arguments = [*QUICK, "--rule", "noisy_sign", "--b", "0.03", "--out", str(out)]
    assert run.main([*arguments, "--wandb", "signs"]) == 0
    about, config, rows = stored(out)
    assert (about.project, about.display_name, about.run_group) == ("signs", "first", "")
    assert {name: config[name] for name in ("rule", "b", "workers")} == {
        "rule": "noisy_sign",
        "b": 0.03,
        "workers": 10,
    }
    assert rows == measured(out / "metrics.parquet")
    assert [row["step"] for row in rows] == [0, 2, 4]


@pytest.mark.slow
def test_a_run_is_begun_and_finished(fake, tmp_path):
    out = tmp_path / "first"
    assert run.main([*QUICK, "--rule", "mean", "--out", str(out), "--wandb"]) == 0
    (logged,) = fake.calls
    settings = logged.settings
    assert settings["project"] == "medjax"
    assert settings["config"] == watched.plain(
        configure(dataset="digits", model="logistic", steps=4, eval_every=2, rule="mean")
    )
    assert settings["dir"] == str(out)
    assert settings["group"] is None
    assert logged.rows == measured(out / "metrics.parquet")
    assert logged.finished


@pytest.mark.slow
def test_each_run_of_a_sweep_is_logged_once(fake, tmp_path, capsys):
    out = tmp_path / "grid"
    arguments = [*QUICK, "--rule", "mean", "--lr", "0.1", "0.2", "--seeds", "2", "--out", str(out)]
    fake.problem = "No API key\nconfigured."
    assert sweep.main([*arguments, "--wandb", "signs"]) == 0
    assert (
        capsys.readouterr().out.count("Weights & Biases can't begin: No API key configured.") == 1
    )
    assert not list(out.glob("wandb/[!.]*"))
    fake.problem = None
    for _ in range(2):  # the same command completes what is missing
        assert sweep.main([*arguments, "--wandb", "signs"]) == 0
    calls = sorted(fake.calls, key=lambda x: x.settings["name"])
    assert [x.settings["name"] for x in calls] == [
        "0000,rule=mean,lr=0.1,seed=0",
        "0001,rule=mean,lr=0.1,seed=1",
        "0002,rule=mean,lr=0.2,seed=0",
        "0003,rule=mean,lr=0.2,seed=1",
    ]
    assert {x.settings["group"] for x in fake.calls} == {"grid"}
    assert all(x.finished for x in fake.calls)
    for place, logged in enumerate(calls):
        rows = measured(out / "results.parquet", run=place)
        assert logged.settings["config"]["lr"] == rows[0]["lr"]
        for actual, row in zip(logged.rows, rows, strict=True):
            assert actual == {name: row[name] for name in actual}
            assert {"step", "train_loss", "validation_accuracy"} <= actual.keys()


@pytest.mark.parametrize("command", [run, sweep])
def test_without_the_package(command, monkeypatch, tmp_path, error_of):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr("medjax.lab.storage.watching.wandb.find_spec", lambda _: None)
    message = error_of(command.main, "--wandb", "--out", str(tmp_path / "run"))
    assert "pip install wandb" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["", "a/b", "a:b"])
def test_a_name_that_no_project_has(name, fake, error_of):
    assert f"{name!r} names no project" in error_of(run.main, "--wandb", name)


@pytest.mark.slow
def test_a_run_that_cannot_be_logged_leaves_no_folder(fake, tmp_path, capsys):
    fake.problem = "No API key configured."
    out = tmp_path / "run"
    with pytest.raises(SystemExit, match="2"):
        run.main([*QUICK, "--rule", "mean", "--wandb", "--out", str(out)])
    error = capsys.readouterr().err
    assert error.startswith("error: Weights & Biases can't begin: No API key configured.")
    assert error.count("\n") == 1
    assert not out.exists()
