"""`--tensorboard`: the event files say what the tables say, whatever ends a run or a sweep."""

import signal
import struct

import numpy as np
import pyarrow.parquet as pq
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from medjax.lab.commands import run, sweep
from medjax.lab.machine import memory
from medjax.lab.settings.config import configure
from medjax.lab.storage import watching
from medjax.lab.storage.keeper import Keeper
from medjax.lab.sweeps import pictures, store, watched

pytestmark = pytest.mark.usefixtures("no_pictures")

QUICK = ("--dataset", "digits", "--model", "logistic", "--steps", "60", "--eval-every", "20")


def crc32c(data):
    """By Castagnoli's polynomial, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read(folder):
    """The events of the one file there is, by TensorBoard's format of records."""
    (path,) = folder.glob("*tfevents*")
    data, found = path.read_bytes(), []
    while data:
        length, crc = struct.unpack("<QI", data[:12])
        assert crc == masked(data[:8])
        payload, (crc,) = data[12 : 12 + length], struct.unpack("<I", data[12 + length :][:4])
        assert crc == masked(payload)
        found.append(Event.FromString(payload))
        data = data[16 + length :]
    return found


def scalars(folder):
    """Each metric's steps and values, in the order in which they are written."""
    found = {}
    for event in read(folder):
        for value in event.summary.value:
            if not value.tag.startswith("_hparams_"):
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def table(folder):
    columns = pq.read_table(folder / "metrics.parquet").to_pydict()
    steps = columns.pop("step")
    return {
        name: list(zip(steps, map(float, np.float32(values)), strict=True))
        for name, values in columns.items()
    }


def hyperparameters(folder):
    for event in read(folder):
        for value in event.summary.value:
            if value.tag == "_hparams_/session_start_info":
                data = HParamsPluginData.FromString(value.metadata.plugin_data.content)
                return data.session_start_info.hparams
    raise AssertionError("no hyper-parameters")


def test_the_checksum_is_that_of_the_standard():
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.slow
def test_a_value_for_each_metric_and_measurement(tmp_path):
    out = tmp_path / "run"
    rule = ("--rule", "noisy_sign", "--b", "0.03")
    assert run.main([*QUICK, *rule, "--tensorboard", "--out", str(out)]) == 0
    assert scalars(out) == table(out)
    assert [step for step, _ in scalars(out)["train_loss"]] == [0, 20, 40, 60]
    assert read(out)[0].file_version == "brain.Event:2"
    settings = hyperparameters(out)
    assert settings["rule"].string_value == "noisy_sign"
    assert settings["b"].number_value == 0.03
    assert settings["workers"].number_value == 10
    assert "momentum" not in settings  # which the run doesn't have
    assert "out" not in settings


@pytest.mark.slow
@pytest.mark.parametrize("since", ["the beginning", "it goes on"])
def test_a_run_that_goes_on(since, tmp_path, monkeypatch):
    out, update = tmp_path / "run", Keeper.update

    def asked_to_stop(self, step, state, rows, *, now):
        update(self, step, state, rows, now=now)
        signal.raise_signal(signal.SIGINT)

    begun, resumed = (
        (["--tensorboard"], []) if since == "the beginning" else ([], ["--tensorboard"])
    )
    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "update", asked_to_stop)
        kept = ["--checkpoint-every", "10", *begun, "--out", str(out)]
        assert run.main([*QUICK, "--rule", "mean", *kept]) == 130
    # The step at which it was stopped, 1, is no longer in the table when it has gone on.
    assert len(table(out)["train_loss"]) == 2
    if begun:
        assert scalars(out) == table(out)
    else:
        assert not list(out.glob("*tfevents*"))
    assert run.main(["--resume", str(out), *resumed]) == 0
    assert scalars(out) == table(out)
    assert [step for step, _ in table(out)["train_loss"]] == [0, 20, 40, 60]


def test_what_was_written_after_the_last_checkpoint_is_not_there_twice(tmp_path):
    config = configure(steps=60)
    rows = [{"step": step, "train_loss": 2.0 - step / 60} for step in (0, 20, 40, 60)]
    with watching.watch(tmp_path, {"tensorboard": ""}, config, {}) as add:
        for row in rows[:3]:
            add(row)
    (first,) = tmp_path.iterdir()
    kept = {name: [row[name] for row in rows[:2]] for name in rows[0]}
    with watching.watch(tmp_path, {}, config, kept) as add:
        for row in rows[2:]:
            add(row)
    (second,) = tmp_path.iterdir()
    assert first.name < second.name  # TensorBoard looks for later names
    assert scalars(tmp_path) == {
        "train_loss": [(r["step"], np.float32(r["train_loss"])) for r in rows]
    }
    sessions = [event for event in read(tmp_path) if event.HasField("session_log")]
    assert [(x.step, x.session_log.status) for x in sessions] == [(0, SessionLog.START)]


def test_no_events_where_none_are_wanted(tmp_path):
    with watching.watch(tmp_path, {}, configure(), {}) as add:
        add({"step": 0, "train_loss": 1.0})
    chosen = {"tensorboard": ""}
    with watching.watch(None, chosen, configure(), {}) as add:  # not the first of several processes
        add({"step": 0, "train_loss": 1.0})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["stopped", "refused"])
def test_a_run_that_is_given_up_leaves_no_folder(ending, tmp_path, monkeypatch, capsys):
    def check_program(*_):
        if ending == "stopped":
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        raise ValueError("too large")

    out = tmp_path / "run"
    monkeypatch.setattr(
        run, "compile_program", lambda *_, **__: type("Compiled", (), {"num_bytes": 0})
    )
    monkeypatch.setattr(memory, "check_program", check_program)
    arguments = [*QUICK, "--rule", "mean", "--tensorboard", "--out", str(out)]
    if ending == "stopped":
        assert run.main(arguments) == 130
    else:
        with pytest.raises(SystemExit, match="2"):
            run.main(arguments)
        assert "too large" in capsys.readouterr().err
    assert not out.exists()


@pytest.fixture
def swept(tmp_path, monkeypatch):
    """Runs a sweep of two programs in one folder, with flags."""
    monkeypatch.setattr(pictures, "draw", lambda *_: {})
    arguments = [*QUICK, "--rule", "mean", "noisy_sign", "--b", "0.03", "--seeds", "2"]
    out = tmp_path / "grid"

    def swept(*flags):
        assert sweep.main([*arguments, *flags, "--out", str(out)]) == 0
        return out

    return swept


@pytest.mark.slow
def test_events_for_each_run_of_a_sweep_are_there_when_a_chunk_is_finished(swept, monkeypatch):
    complete, seen = watched.Watching.complete, []

    def counted(self):
        complete(self)
        folder = self._folder
        seen.append((len(store.parts(folder)), len(list(folder.glob("tensorboard/*")))))

    monkeypatch.setattr(watched.Watching, "complete", counted)
    out = swept("--tensorboard")
    assert seen == [(0, 0), (1, 2), (2, 4)]
    folders = sorted((out / "tensorboard").iterdir())
    assert [folder.name for folder in folders] == [
        "0000,rule=mean,lr=0.1,seed=0",
        "0001,rule=mean,lr=0.1,seed=1",
        "0002,rule=noisy_sign,lr=0.003,b=0.03,seed=0",
        "0003,rule=noisy_sign,lr=0.003,b=0.03,seed=1",
    ]
    columns = pq.read_table(out / "results.parquet").to_pandas()
    for place, folder in enumerate(folders):
        rows = columns[columns["run"] == place]
        found = scalars(folder)
        assert {"train_loss", "validation_accuracy", "test_accuracy"} <= found.keys()
        for name, values in found.items():
            assert values == list(zip(rows["step"], np.float32(rows[name]), strict=True))
    settings = hyperparameters(folders[2])
    assert {*settings} == {"rule", "zero", "tie", "lr", "b", "noise", "seed"}  # all that vary
    assert settings["rule"].string_value == "noisy_sign"
    assert settings["b"].number_value == 0.03
    assert settings["seed"].number_value == 0
    assert "b" not in hyperparameters(folders[0])


@pytest.mark.slow
def test_a_sweep_completes_the_events_that_are_missing(swept):
    out = swept()
    assert not (out / "tensorboard").exists()
    swept("--tensorboard")
    folders = sorted((out / "tensorboard").iterdir())
    assert len(folders) == 4
    before = {path: path.read_bytes() for path in out.glob("tensorboard/*/*")}
    gone, torn = folders[0], folders[3]
    lost = scalars(gone), scalars(torn)
    (file,) = gone.iterdir()
    file.unlink()
    gone.rmdir()
    torn.rename(torn.with_name(f".{torn.name}.tmp"))  # as if killed before it was whole
    swept("--tensorboard")
    assert sorted((out / "tensorboard").iterdir()) == folders
    assert (scalars(gone), scalars(torn)) == lost
    for folder in folders[1:3]:
        (path,) = folder.iterdir()
        assert path.read_bytes() == before[path]


def test_names_of_folders_are_short_and_safe():
    run = configure(rule="mean", attack="ipm:tau=10", byzantine=1, dataset="text:/a b/c")
    name = watched.run_name(run, 7, ["attack", "dataset", "momentum"])
    assert name == "0007,attack=ipm_tau=10,dataset=text__a_b_c"
    assert len(watched.run_name(run, 7, [*vars(run)]).encode()) <= 120
