"""Several processes as one run: the same figures, and one line where something is amiss."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from medjax.lab.commands import run
from medjax.lab.machine import processes

QUICK = ("--dataset", "digits", "--model", "logistic", "--rule", "noisy_sign", "--batch-size", "8")
QUICK += ("--workers", "12", "--attack", "label_flip", "--byzantine", "2")
# Momenta are kept by the workers, whom the processes share out: each has a part of the state.
QUICK += ("--worker-momentum", "0.9", "--eval-every", "20")
KEPT = ("--steps", "60", "--checkpoint-every", "20")
ENDLESS = ("--steps", "100000000")
TWO = ("--devices", "2")  # of all pairs that train, so that they compile one program
# Of which every part is kept, however quickly it compiles.
ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@contextmanager
def started():
    """Give a function that starts a run's processes, each with flags of its own; end them after."""
    processes = []

    def start(*flags_of_each, common=(), timeout=50):
        where = ("--coordinator", f"127.0.0.1:{free_port()}", "--timeout", f"{timeout}")
        for index, flags in enumerate(flags_of_each):
            one = ("--processes", f"{len(flags_of_each)}", "--process", f"{index}")
            command = ("-m", "experiments.run", *QUICK, "--distributed", *where, *one, *common)
            processes.append(
                subprocess.Popen(
                    [sys.executable, *command, *flags],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=os.environ | ENVIRONMENT,
                )
            )
        return processes[-len(flags_of_each) :]

    try:
        yield start
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.fixture
def start(all_cores):
    """Start the processes of a run; see `started`."""
    with started() as start:
        yield start


def table(folder):
    return pq.read_table(folder / "metrics.parquet").to_pydict()


def ends(process, within=300):
    """Return its exit code, what it said, and its error lines: the runtime logs there too."""
    out, err = process.communicate(timeout=within)
    return process.returncode, out, [x for x in err.splitlines() if x.startswith("error: ")]


def training(process):
    """Wait until the run is under way."""
    for line in process.stdout:
        if line.startswith("compiled in"):
            return
    pytest.fail(process.stderr.read())


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder of a run of two processes, and how each ended."""
    folder = tmp_path_factory.mktemp("whole") / "two"
    with started() as start:
        flags = (*KEPT, *TWO, "--tensorboard", "--out", str(folder))
        return folder, [ends(process) for process in start((), (), common=flags)]


@pytest.mark.slow
def test_only_the_first_process_talks_and_writes_events(two):
    folder, ((first_code, said, first_errors), (second_code, said_by_second, second_errors)) = two
    assert (first_code, second_code) == (0, 0)
    assert first_errors == second_errors == []
    assert "60 steps in" in said
    # The runtime's own words alone, which its threads write into each other's lines.
    own = {"[Gloo]", "Rank", "connected", "peer", "ranks", "Expected", "number", "is", "to", "of"}
    words = re.sub(r"\d+|[.:]", " ", said_by_second).replace("[Gloo]", " [Gloo] ").split()
    assert set(words) <= own
    assert len(list(folder.glob("*tfevents*"))) == 1


@pytest.mark.slow
def test_two_processes_measure_what_one_does(two, tmp_path):
    assert run.main([*QUICK, *KEPT, "--out", str(tmp_path / "one")]) == 0
    one, measured = table(tmp_path / "one"), table(two[0])
    assert one.keys() == measured.keys()
    for name in one.keys() - {"median_mean_gap"}:
        np.testing.assert_allclose(measured[name], one[name], rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_after_a_loss_both_go_on_from_the_last_checkpoint(two, start, tmp_path):
    folder = tmp_path / "run"
    flags = (*KEPT, *TWO)
    first, second = start((), (), common=(*flags, "--out", str(folder)), timeout=15)
    training(first)
    while not list((folder / "checkpoints").glob("[1-9]*")):
        time.sleep(0.02)
    second.kill()
    code, _, errors = ends(first)
    # JAX's runtime may be faster than we are to end the process.
    assert code in (1, -signal.SIGABRT)
    assert code != 1 or "process 0 has lost another" in errors[0]
    assert not (folder / "summary.json").exists()
    for process in start((), (), common=(*flags, "--resume", str(folder))):
        assert ends(process)[0] == 0
    assert table(folder) == table(two[0])  # to the last bit


@pytest.mark.slow
def test_losing_the_first_process_ends_the_other(start, tmp_path):
    first, second = start((), (), common=(*ENDLESS, *TWO, "--out", str(tmp_path / "run")))
    training(first)
    first.kill()
    code, _, errors = ends(second)
    assert code in (1, -signal.SIGABRT)
    assert code != 1 or "process 1 has lost another" in errors[0]


@pytest.fixture
def other(monkeypatch):
    """Play a second process, which has what this one has but for what a function makes of it."""
    changes = []

    def gather(x):
        return np.stack([x, changes[0](x)])

    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(processes.multihost_utils, "process_allgather", gather)
    return changes.append


@pytest.mark.slow
def test_asking_one_to_stop_stops_all(other, tmp_path):
    # Only what is agreed on is of float64: the seconds taken, and whether to stop.
    other(lambda x: np.array([x[0], True]) if x.dtype == np.float64 else x)
    assert run.main([*QUICK, "--steps", "9999", "--out", str(tmp_path / "run")]) == 130
    assert json.loads((tmp_path / "run/summary.json").read_text())["stopped_early"] is True


def test_settings_that_differ_are_named_before_the_run(other, error_of, tmp_path):
    def change(x):
        if x.dtype != np.uint8:
            return x
        return np.frombuffer(x.tobytes().replace(b'"lr": "0.1"', b'"lr": "0.2"'), np.uint8)

    other(change)
    message = error_of(run.main, *QUICK, "--lr", "0.1", "--out", str(tmp_path / "run"))
    assert "the processes disagree: lr is 0.1 in process 0, 0.2 in process 1" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_is_wrong_in_one_is_said_by_all(start, tmp_path):
    (tmp_path / "something").touch()
    both = start(("--out", str(tmp_path)), ("--out", "elsewhere"), common=KEPT)
    refused = f"output folder '{tmp_path}' isn't empty"
    for process, message in zip(both, (refused, f"process 0: {refused}"), strict=True):
        code, _, errors = ends(process)
        assert code == 2
        assert len(errors) == 1
        assert message in errors[0]


@pytest.mark.slow
def test_who_waits_in_vain_gives_up(start):
    first, second = start((), (), common=KEPT, timeout=1)
    second.kill()
    code, _, errors = ends(first)
    assert code == 1
    assert len(errors) == 1
    assert errors[0].startswith("error: not all processes came together at 127.0.0.1:")
    assert errors[0].endswith("within 1 s")


@pytest.mark.slow
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
