"""Several processes as one run: the same figures, and one line where something is amiss."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from medjax.lab.commands import run
from medjax.lab.machine import processes

QUICK = ("--dataset", "digits", "--model", "logistic", "--rule", "noisy_sign", "--batch-size", "8")
QUICK += ("--workers", "12", "--attack", "label_flip", "--byzantine", "2")
SHORT = ("--steps", "20", "--eval-every", "10")
ENDLESS = ("--steps", "100000000", "--eval-every", "100")


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.fixture
def start(all_cores):
    """Starts the processes of a run, each with flags of its own; ends them after the test."""
    started = []

    def start(*flags_of_each, common=(), timeout=50):
        where = ("--coordinator", f"127.0.0.1:{free_port()}", "--timeout", f"{timeout}")
        for index, flags in enumerate(flags_of_each):
            one = ("--processes", f"{len(flags_of_each)}", "--process", f"{index}")
            command = (
                "-m",
                "experiments.run",
                *QUICK,
                "--distributed",
                *where,
                *one,
                *common,
            )
            started.append(
                subprocess.Popen(
                    [sys.executable, *command, *flags],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=os.environ | {"PYTHONUNBUFFERED": "1"},
                )
            )
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ends(process, within=60):
    """Its exit code, what it said, and the errors among it: the runtime logs there too."""
    out, err = process.communicate(timeout=within)
    return process.returncode, out, [x for x in err.splitlines() if x.startswith("error: ")]


def training(process):
    """Waits until the run is under way."""
    for line in process.stdout:
        if line.startswith("compiled in"):
            return
    pytest.fail(process.stderr.read())


@pytest.mark.slow
def test_two_processes_give_what_one_gives(start, tmp_path):
    assert run.main([*QUICK, *SHORT, "--out", str(tmp_path / "one")]) == 0
    out = ("--out", str(tmp_path / "two"))
    first, second = start((), (), common=(*SHORT, "--tensorboard", "--devices", "2", *out))
    code, said, errors = ends(first)
    assert (code, errors) == (0, [])
    assert "20 steps in" in said
    code, said, errors = ends(second)
    assert (code, errors) == (0, [])
    # The runtime's own words alone, which its threads write into each other's lines.
    own = {"[Gloo]", "Rank", "connected", "peer", "ranks", "Expected", "number", "is", "to", "of"}
    assert set(re.sub(r"\d+|[.:]", " ", said).replace("[Gloo]", " [Gloo] ").split()) <= own
    *names, events = sorted(
        (x.name for x in (tmp_path / "two").iterdir()), key=lambda x: ("tfevents" in x, x)
    )
    assert names == ["config.json", "curves.png", "metrics.parquet", "summary.json"]
    assert "tfevents" in events  # the first process's, and no other's
    one, two = (
        pq.read_table(tmp_path / name / "metrics.parquet").to_pydict() for name in ("one", "two")
    )
    assert one.keys() == two.keys()
    for name in one.keys() - {"median_mean_gap"}:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_after_a_loss_all_go_on_from_the_last_checkpoint(start, tmp_path):
    # Momenta are kept by the workers, whom the processes share out: each has a part of the state.
    common = ("--steps", "400", "--eval-every", "20", "--worker-momentum", "0.9")
    common += ("--checkpoint-every", "20")
    for process in start((), (), common=(*common, "--out", str(tmp_path / "whole"))):
        assert ends(process)[0] == 0
    killed = start((), (), common=(*common, "--out", str(tmp_path / "run")))[2:]
    training(killed[0])
    while not list((tmp_path / "run" / "checkpoints").glob("[1-9]*")):
        time.sleep(0.05)
    killed[1].kill()
    assert ends(killed[0])[0] != 0
    assert not (tmp_path / "run" / "summary.json").exists()
    for process in start((), (), common=(*common, "--resume", str(tmp_path / "run")))[4:]:
        assert ends(process)[0] == 0
    one, two = (
        pq.read_table(tmp_path / name / "metrics.parquet").to_pydict() for name in ("whole", "run")
    )
    assert one == two  # to the last bit
    again = start((), (), common=(*common, "--resume", str(tmp_path / "run")))[6:]
    for process in again:
        code, _, errors = ends(process)
        assert code == 2
        assert "has finished its 400 steps" in errors[0]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_process_ends_the_other(start, tmp_path, victim):
    processes = start((), (), common=(*ENDLESS, "--out", str(tmp_path / "run")))
    training(processes[0])
    time.sleep(1)
    processes[victim].kill()
    begin = time.monotonic()
    code, _, errors = ends(processes[1 - victim])
    assert time.monotonic() - begin < 60
    # If the coordinator is the one, JAX's runtime may be faster than we are to end the process.
    assert code == 1 or (victim == 0 and code == -signal.SIGABRT)
    assert code != 1 or f"process {1 - victim} has lost another" in errors[0]
    assert pq.read_table(tmp_path / "run" / "metrics.parquet").num_rows > 0


@pytest.mark.slow
def test_asking_one_to_stop_stops_all(start, tmp_path):
    processes = start((), (), common=(*ENDLESS, "--out", str(tmp_path / "run")))
    training(processes[0])
    processes[1].send_signal(signal.SIGTERM)
    assert [ends(process)[0] for process in processes] == [130, 130]
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second", "messages"),
    [
        (
            ("--lr", "0.1"),
            ("--lr", "0.2"),
            ["the processes disagree: lr is 0.1 in process 0, 0.2 in process 1"] * 2,
        ),
        (
            ("--out", "{path}"),  # which isn't empty
            ("--out", "elsewhere"),
            ["output folder '{path}' isn't empty", "process 0: output folder '{path}' isn't"],
        ),
    ],
)
def test_what_is_wrong_in_one_is_said_by_all(start, tmp_path, first, second, messages):
    (tmp_path / "something").touch()
    first = [flag.format(path=tmp_path) for flag in first]
    processes = start(first, second, common=SHORT)
    for process, message in zip(processes, messages, strict=True):
        code, _, errors = ends(process)
        assert code == 2
        assert len(errors) == 1
        assert message.format(path=tmp_path) in errors[0]


@pytest.mark.slow
@pytest.mark.parametrize("present", [0, 1])
def test_who_waits_in_vain_gives_up(start, present):
    processes = start((), (), common=SHORT, timeout=3)
    processes[1 - present].kill()
    code, _, errors = ends(processes[present])
    assert code == 1
    assert len(errors) == 1
    assert errors[0].startswith("error: not all processes came together at 127.0.0.1:")
    assert errors[0].endswith("within 3 s")


def test_a_signal_while_the_processes_agree_is_not_forgotten(tmp_path, monkeypatch):
    def interrupted(seconds, requested):
        if not requested:
            signal.raise_signal(signal.SIGINT)  # after the others were told that there was none
        return seconds, requested

    monkeypatch.setattr(processes, "agreed", interrupted)
    assert run.main([*QUICK, "--steps", "9999", "--out", str(tmp_path / "run")]) == 130


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--processes 2", "--processes goes with --distributed"),
        ("--distributed --process 1", "--process needs --coordinator and --processes beside it"),
        ("--distributed --coordinator host", "'host' is not a host and a port"),
        ("--distributed --coordinator host:70000", "'host:70000' is not a host and a port"),
        (
            "--distributed --coordinator host:1 --processes 2 --process 2",
            "--process 2 isn't one of --processes 2: valid: 0 to 1",
        ),
        ("--distributed --timeout 0", "'0' is not a whole number of at least 1"),
    ],
)
def test_mistakes_get_one_line(flags, message, error_of):
    assert message in error_of(run.main, *QUICK, *flags.split())
